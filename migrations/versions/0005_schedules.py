"""Recurring timers: their schedule, the instants planned ahead, and what is open of them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


DOMAIN = [
    """create domain minoots.schedule as jsonb
       constraint timers_schedule check (jsonb_typeof(value) = 'object')
       constraint timers_schedule_size check (octet_length(value::text) <= 65536)
       constraint timers_numbers check (minoots.is_representable(value))
       constraint timers_depth check (minoots.is_json_shallow(value))""",
    """create domain minoots.instants as timestamptz[]
       constraint timers_planned check (
           array_position(value, null) is null and coalesce(array_ndims(value), 1) = 1
           and timestamptz '1970-01-01 00:00:00+00' <= all (value) and timestamptz '9000-01-01 00:00:00+00' > all (value))""",
    "comment on domain minoots.instants is 'Instants as the driver can read them.'",
    "comment on domain minoots.schedule is 'A recurring schedule as REST takes it; the kernel reads it and fails the timer of one that it cannot read.'",
]

# due_at has another expression now, and with it everything that was made from it.
OLD_DUE = [
    "drop view minoots.timer_overview",
    "drop view minoots.due_soon",
    "drop index minoots.timers_due",
    "alter table minoots.timers drop column due_at",
]

COLUMNS = [
    """alter table minoots.timers
           add column schedule minoots.schedule,
           add column not_before timestamptz,
           add column planned minoots.instants not null default '{}',
           add column planned_to timestamptz,
           add column plan_ends boolean not null default false,
           add column jitter_ms integer not null default 0,
           add column is_held boolean not null default false,
           add column skip_to timestamptz,
           add column planned_for bigint,
           add column extra_firings integer not null default 0,
           add column runs integer not null default 0,
           add column missed bigint not null default 0,
           add column failures integer not null default 0,
           add column is_named boolean not null default false,
           alter column fire_at drop not null,
           drop constraint timers_fired,
           drop constraint timers_instants""",
    """alter table minoots.timers
           add column due_at timestamptz generated always as (
               case when status = 'scheduled' and fire_at is not null and not is_held
                    then greatest(fire_at, created_at, not_before) end) stored,
           add column attention text generated always as (
               case when schedule is null or status not in ('scheduled', 'paused') then null
                    when extra_firings > 0 then 'extra'
                    when status = 'paused' then null
                    when fire_at is not null and jsonb_hash_extended(schedule, 0) is distinct from planned_for then 'changed'
                    when is_held then 'held'
                    when fire_at is null then case when plan_ends then 'ending' else 'unplanned' end end) stored,
           add column unique_name text generated always as (
               case when is_named and status in ('scheduled', 'paused') then name end) stored,
           add constraint timers_fire_at check (fire_at is not null or schedule is not null),
           add constraint timers_fired check (status not in ('fired', 'settled') or fired_at is not null or schedule is not null),
           add constraint timers_instants check (
               greatest(created_at, fire_at, fired_at, settled_at, cancelled_at, not_before, planned_to, skip_to) < timestamptz '9000-01-01 00:00:00+00'
               and least(created_at, fire_at, fired_at, settled_at, cancelled_at, not_before, planned_to, skip_to) >= timestamptz '1970-01-01 00:00:00+00'),
           add constraint timers_counts check (
               jitter_ms >= 0 and extra_firings between 0 and 1000000 and runs >= 0 and missed >= 0 and failures >= 0)""",
    "create index timers_due on minoots.timers (due_at, id) where due_at is not null",
    "create index timers_attention on minoots.timers (attention, id) where attention is not null",
    "create unique index timers_unique_name on minoots.timers (tenant_id, unique_name) where unique_name is not null",
    """comment on column minoots.timers.fire_at is
       'When it is to fire; of a recurring timer the next instant of its schedule, null before it is planned and after its last.'""",
    """comment on column minoots.timers.due_at is
       'The instant the kernel waits for: fire_at, never before the creation and not_before; null unless the timer is waiting. Follows by itself.'""",
    "comment on column minoots.timers.schedule is 'The recurring schedule; null for a timer that fires once.'",
    "comment on column minoots.timers.not_before is 'It does not fire before this: its jitter, or the moment it was resumed.'",
    "comment on column minoots.timers.planned is 'The instants after fire_at, computed ahead so that firing computes none.'",
    "comment on column minoots.timers.planned_to is 'The last instant that was planned; the next plan goes on from here.'",
    "comment on column minoots.timers.plan_ends is 'Whether the schedule has no instants after the planned ones.'",
    "comment on column minoots.timers.jitter_ms is 'How long after each instant of the schedule it fires, in milliseconds: stable, within the jitter window.'",
    "comment on column minoots.timers.is_held is 'It is due, but the kernel has to find out what is still to fire: it is behind, or an earlier firing is still running.'",
    "comment on column minoots.timers.skip_to is 'While it is held: what came due until then is missed, for it was paused.'",
    "comment on column minoots.timers.planned_for is 'A hash of the schedule that the plan was made for: another schedule is planned anew.'",
    "comment on column minoots.timers.extra_firings is 'How many firings beside the schedule were asked for by SQL and are still to come.'",
    "comment on column minoots.timers.runs is 'How many occurrences of the schedule have fired.'",
    "comment on column minoots.timers.missed is 'How many occurrences of the schedule did not fire.'",
    "comment on column minoots.timers.failures is 'How many firings have failed in a row; counted only with pauseAfterFailures.'",
    "comment on column minoots.timers.is_named is 'Made by name: no other waiting timer of the tenant that was made so has its name.'",
    "comment on column minoots.timers.attention is 'What a recurring timer needs beside firing: extra, changed, held, ending, unplanned. Follows by itself.'",
    "comment on column minoots.timers.unique_name is 'The name while it has to be unique. Follows by itself.'",
    """create or replace function minoots.timer_json(t minoots.timers) returns json language sql stable parallel safe
       return json_build_object(
           'id', t.id, 'tenantId', t.tenant_id, 'name', t.name, 'requestedBy', t.requested_by, 'status', t.status,
           'durationMs', t.duration_ms, 'createdAt', minoots.iso(t.created_at), 'fireAt', minoots.iso(t.fire_at),
           'firedAt', minoots.iso(t.fired_at), 'settledAt', minoots.iso(t.settled_at),
           'cancelledAt', minoots.iso(t.cancelled_at), 'cancelReason', t.cancel_reason, 'cancelledBy', t.cancelled_by,
           'failureReason', t.failure_reason, 'metadata', t.metadata, 'labels', t.labels,
           'actionBundle', t.action_bundle, 'agentBinding', t.agent_binding, 'schedule', t.schedule,
           'occurrence', t.occurrence, 'missed', t.missed, 'version', t.version)""",
]

VIEWS = [
    """create view minoots.timer_overview as
       select tenant_id, status, count(*) as timers, min(due_at) as next_due_at, min(created_at) as oldest_created_at,
              count(*) filter (where due_at < minoots.now()) as overdue
         from minoots.timers group by tenant_id, status order by tenant_id, status""",
    "comment on view minoots.timer_overview is 'How many timers there are, by tenant and status, and what is overdue.'",
    """create view minoots.due_soon as
       select due_at, due_at - minoots.now() as due_in, tenant_id, id, name, requested_by
         from minoots.timers where due_at < minoots.now() + interval '1 hour' order by due_at, id""",
    "comment on view minoots.due_soon is 'What fires within the hour, the next first; a negative due_in is late.'",
]

FIRINGS = [
    """alter table minoots.firings
           add column is_scheduled boolean,
           add column timer_shown json""",
    # Beside the key of (timer, occurrence): no instant of a schedule fires twice, however it is counted.
    "create unique index firings_nominal on minoots.firings (timer_id, nominal_at) where is_scheduled",
    "comment on column minoots.firings.is_scheduled is 'An instant of a schedule (true), or beside it (false); null for a timer that fires once.'",
    "comment on column minoots.firings.timer_shown is 'The recurring timer as it was when it fired: what every attempt of a delivery sends.'",
    """create or replace function minoots.timer_as_fired(t minoots.timers, f minoots.firings) returns json language sql stable parallel safe
       return case when f.timer_shown is not null then f.timer_shown else minoots.timer_json(
           jsonb_populate_record(t, jsonb_build_object(
               'status', 'fired', 'settled_at', null, 'failure_reason', null, 'fired_at', f.fired_at,
               'occurrence', f.occurrence, 'version', f.timer_version))) end""",
    """create table minoots.open_firings (
           tenant_id text not null,
           timer_id uuid not null,
           occurrence integer not null,
           constraint open_firings_pkey primary key (timer_id, occurrence)
       ) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0)""",
    "comment on table minoots.open_firings is 'Firings of recurring timers whose deliveries have not all ended.'",
    "comment on column minoots.open_firings.tenant_id is 'Whose it is.'",
    "comment on column minoots.open_firings.timer_id is 'The timer.'",
    "comment on column minoots.open_firings.occurrence is 'Which firing of the timer.'",
    """create or replace function minoots.forget_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts x using gone where x.timer_id = gone.id;
           delete from minoots.deliveries x using gone where x.timer_id = gone.id;
           delete from minoots.firings x using gone where x.timer_id = gone.id;
           delete from minoots.open_firings x using gone where x.timer_id = gone.id;
           return null;
       end $$""",
    """create or replace function minoots.forget_all_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts;
           delete from minoots.deliveries;
           delete from minoots.firings;
           delete from minoots.open_firings;
           return null;
       end $$""",
]


def upgrade() -> None:
    for statement in (*DOMAIN, *OLD_DUE, *COLUMNS, *VIEWS, *FIRINGS):
        run(statement)


# A recurring timer cannot be shown to the former version: it goes, with what belongs to it.
DOWN = [
    "delete from minoots.timers where schedule is not null",
    "drop view minoots.timer_overview",
    "drop view minoots.due_soon",
    "drop index minoots.timers_due",
    "drop index minoots.timers_attention",
    "drop index minoots.timers_unique_name",
    "drop index minoots.firings_nominal",
    """create or replace function minoots.timer_json(t minoots.timers) returns json language sql stable parallel safe
       return json_build_object(
           'id', t.id, 'tenantId', t.tenant_id, 'name', t.name, 'requestedBy', t.requested_by, 'status', t.status,
           'durationMs', t.duration_ms, 'createdAt', minoots.iso(t.created_at), 'fireAt', minoots.iso(t.fire_at),
           'firedAt', minoots.iso(t.fired_at), 'settledAt', minoots.iso(t.settled_at),
           'cancelledAt', minoots.iso(t.cancelled_at), 'cancelReason', t.cancel_reason, 'cancelledBy', t.cancelled_by,
           'failureReason', t.failure_reason, 'metadata', t.metadata, 'labels', t.labels,
           'actionBundle', t.action_bundle, 'agentBinding', t.agent_binding, 'schedule', null::json,
           'occurrence', t.occurrence, 'version', t.version)""",
    """create or replace function minoots.timer_as_fired(t minoots.timers, f minoots.firings) returns json language sql stable parallel safe
       return minoots.timer_json(jsonb_populate_record(t, jsonb_build_object(
           'status', 'fired', 'settled_at', null, 'failure_reason', null, 'fired_at', f.fired_at,
           'occurrence', f.occurrence, 'version', f.timer_version)))""",
    """create or replace function minoots.forget_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts x using gone where x.timer_id = gone.id;
           delete from minoots.deliveries x using gone where x.timer_id = gone.id;
           delete from minoots.firings x using gone where x.timer_id = gone.id;
           return null;
       end $$""",
    """create or replace function minoots.forget_all_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts;
           delete from minoots.deliveries;
           delete from minoots.firings;
           return null;
       end $$""",
    """alter table minoots.firings drop column is_scheduled, drop column timer_shown""",
    "drop table minoots.open_firings",
    """alter table minoots.timers
           drop column due_at, drop column attention, drop column unique_name,
           drop constraint timers_fire_at, drop constraint timers_fired, drop constraint timers_instants,
           drop constraint timers_counts""",
    """alter table minoots.timers
           drop column schedule, drop column not_before, drop column planned, drop column planned_to, drop column plan_ends,
           drop column jitter_ms, drop column is_held, drop column skip_to, drop column planned_for, drop column extra_firings, drop column runs, drop column missed,
           drop column failures, drop column is_named,
           alter column fire_at set not null,
           add column due_at timestamptz generated always as (case when status = 'scheduled' then greatest(fire_at, created_at) end) stored,
           add constraint timers_fired check (status not in ('fired', 'settled') or fired_at is not null),
           add constraint timers_instants check (
               greatest(created_at, fire_at, fired_at, settled_at, cancelled_at) < timestamptz '9000-01-01 00:00:00+00'
               and least(created_at, fire_at, fired_at, settled_at, cancelled_at) >= timestamptz '1970-01-01 00:00:00+00')""",
    "create index timers_due on minoots.timers (due_at, id) where due_at is not null",
    "comment on column minoots.timers.fire_at is 'When it is to fire.'",
    """comment on column minoots.timers.due_at is
       'The instant the kernel waits for: fire_at, never before the creation; null unless the timer is waiting. Follows by itself.'""",
    "drop domain minoots.schedule",
    "drop domain minoots.instants",
]


def downgrade() -> None:
    for statement in (*DOWN, *VIEWS):
        run(statement)
