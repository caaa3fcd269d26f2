"""Firings, their deliveries and attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


FIRINGS = [
    """create table minoots.firings (
           tenant_id text not null,
           timer_id uuid not null,
           occurrence integer not null,
           status text not null default 'dispatching',
           nominal_at timestamptz not null,
           due_at timestamptz not null,
           fired_at timestamptz not null default minoots.now(),
           settled_at timestamptz,
           open_deliveries smallint not null default 0,
           dead_deliveries smallint not null default 0,
           timer_version bigint not null,
           event_id uuid not null default minoots.uuid7(),
           constraint firings_pkey primary key (timer_id, occurrence),
           constraint firings_occurrence check (occurrence >= 1),
           constraint firings_status check (status in ('dispatching', 'settled', 'failed')),
           constraint firings_settled check ((settled_at is not null) = (status <> 'dispatching')),
           constraint firings_open check (open_deliveries >= 0 and (open_deliveries > 0) = (status = 'dispatching')),
           constraint firings_never_early check (fired_at >= due_at)
       ) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05,
               autovacuum_vacuum_cost_delay = 1)""",
    # Written in the order of fired_at, so a block range index answers the lateness of the last hour for next to nothing.
    "create index firings_by_instant on minoots.firings using brin (fired_at) with (autosummarize = on)",
    "comment on table minoots.firings is 'Every coming-due of a timer: the key lets no occurrence fire twice.'",
    "comment on column minoots.firings.tenant_id is 'Whose it is.'",
    "comment on column minoots.firings.timer_id is 'The timer.'",
    "comment on column minoots.firings.occurrence is 'Which firing of the timer: 1, 2, …'",
    "comment on column minoots.firings.status is 'dispatching, settled (all delivered), or failed (one is dead).'",
    "comment on column minoots.firings.nominal_at is 'The instant that was asked for.'",
    "comment on column minoots.firings.due_at is 'The instant it was due.'",
    "comment on column minoots.firings.fired_at is 'When it fired; never before it was due.'",
    "comment on column minoots.firings.settled_at is 'When its last delivery ended.'",
    "comment on column minoots.firings.open_deliveries is 'How many of its deliveries have not ended.'",
    "comment on column minoots.firings.dead_deliveries is 'How many of its deliveries gave up.'",
    "comment on column minoots.firings.timer_version is 'The timer''s version as it fired, so that every attempt sends the same body.'",
    "comment on column minoots.firings.event_id is 'The id of its event timer.fired.'",
    """create function minoots.firing_json(f minoots.firings) returns json language sql stable parallel safe
       return json_build_object(
           'tenantId', f.tenant_id, 'timerId', f.timer_id, 'occurrence', f.occurrence, 'status', f.status,
           'nominalAt', minoots.iso(f.nominal_at), 'dueAt', minoots.iso(f.due_at), 'firedAt', minoots.iso(f.fired_at),
           'latenessMs', round(extract(epoch from f.fired_at - f.due_at) * 1000, 3),
           'settledAt', minoots.iso(f.settled_at))""",
    "comment on function minoots.firing_json is 'A firing as REST, gRPC and the events show it, without its deliveries.'",
]

# A changed field goes in by name, so that a later column of the tables needs no change here.
AS_FIRED = [
    """create function minoots.timer_as_fired(t minoots.timers, f minoots.firings) returns json language sql stable parallel safe
       return minoots.timer_json(jsonb_populate_record(t, jsonb_build_object(
           'status', 'fired', 'settled_at', null, 'failure_reason', null, 'fired_at', f.fired_at,
           'occurrence', f.occurrence, 'version', f.timer_version)))""",
    "comment on function minoots.timer_as_fired is 'The timer as it was when it fired: what every attempt of a delivery sends.'",
    """create function minoots.firing_as_fired(f minoots.firings) returns json language sql stable parallel safe
       return minoots.firing_json(jsonb_populate_record(f, jsonb_build_object(
           'status', 'dispatching', 'settled_at', null)))""",
    "comment on function minoots.firing_as_fired is 'The firing as it was when it began.'",
]

DELIVERIES = [
    """create table minoots.deliveries (
           tenant_id text not null,
           timer_id uuid not null,
           occurrence integer not null,
           action_id text not null,
           position smallint not null default 0,
           kind text not null,
           lane text not null,
           status text not null default 'pending',
           gate smallint,
           next_attempt_at timestamptz,
           lease_id uuid,
           leased_by text,
           leased_at timestamptz,
           attempt_count integer not null default 0,
           unknown_count integer not null default 0,
           delivered_at timestamptz,
           dead_at timestamptz,
           dead_reason text,
           redrives integer not null default 0,
           escalated_from text,
           constraint deliveries_pkey primary key (timer_id, occurrence, action_id),
           constraint deliveries_status check (
               status in ('pending', 'awaiting', 'overdue', 'delivered', 'confirmed', 'dead')),
           constraint deliveries_next check (next_attempt_at is null or status in ('pending', 'awaiting', 'overdue')),
           constraint deliveries_lease check (lease_id is null or (next_attempt_at is not null and leased_at is not null)),
           constraint deliveries_delivered check ((delivered_at is not null) = (status in ('delivered', 'confirmed'))),
           constraint deliveries_dead check (
               (dead_at is not null) = (status = 'dead') and (dead_reason is not null) = (status = 'dead')),
           constraint deliveries_counts check (attempt_count >= unknown_count and unknown_count >= 0 and redrives >= 0)
       ) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05,
               autovacuum_vacuum_cost_delay = 1)""",
    "create index deliveries_next on minoots.deliveries (next_attempt_at) where next_attempt_at is not null",
    "create index deliveries_dead on minoots.deliveries (tenant_id, dead_at) where dead_at is not null",
    "comment on table minoots.deliveries is 'One action of one firing, until it ends.'",
    "comment on column minoots.deliveries.tenant_id is 'Whose it is.'",
    "comment on column minoots.deliveries.timer_id is 'The timer.'",
    "comment on column minoots.deliveries.occurrence is 'Which firing of the timer.'",
    "comment on column minoots.deliveries.action_id is 'The action''s id in the bundle; agent for an agent binding.'",
    "comment on column minoots.deliveries.position is 'Its place in the bundle.'",
    "comment on column minoots.deliveries.kind is 'webhook, agent_prompt, command, workflow_event.'",
    "comment on column minoots.deliveries.lane is 'The destination whose queue it is in, within its tenant: the origin of a webhook.'",
    "comment on column minoots.deliveries.status is 'pending until it ends as delivered (confirmed) or dead; awaiting and overdue are about acknowledgement.'",
    "comment on column minoots.deliveries.gate is 'How many deliveries of the firing may be under way at once; null when that is no bound.'",
    """comment on column minoots.deliveries.next_attempt_at is
       'When somebody takes it: 2 s after firing, then the lease''s end, then the retry''s instant; null while it waits for a place, and when it ended.'""",
    "comment on column minoots.deliveries.lease_id is 'The attempt under way; only its holder may write the result.'",
    "comment on column minoots.deliveries.leased_by is 'The node that holds or last held the lease.'",
    "comment on column minoots.deliveries.leased_at is 'When it was last leased; null when never.'",
    "comment on column minoots.deliveries.attempt_count is 'How many attempts were begun and are known to have ended.'",
    "comment on column minoots.deliveries.unknown_count is 'How many of them ended without a record.'",
    "comment on column minoots.deliveries.delivered_at is 'When the receiver took it.'",
    "comment on column minoots.deliveries.dead_at is 'When it gave up.'",
    "comment on column minoots.deliveries.dead_reason is 'Why it gave up.'",
    "comment on column minoots.deliveries.redrives is 'How often it was opened again.'",
    "comment on column minoots.deliveries.escalated_from is 'The action that it stands in for.'",
    """create function minoots.lane_of(kind text, parameters jsonb) returns text language sql immutable parallel safe
       return case when kind = 'webhook'
                   then regexp_replace(regexp_replace(
                            lower(substring(parameters ->> 'url' from '^[A-Za-z]+://[^/?#]+')),
                            '^(http://.*):80$', '\\1'), '^(https://.*):443$', '\\1')
                   else kind end""",
    "comment on function minoots.lane_of is 'The queue of an action: the origin of a webhook, else the kind.'",
    """create function minoots.delivery_json(d minoots.deliveries) returns json language sql stable parallel safe
       return json_build_object(
           'actionId', d.action_id, 'kind', d.kind, 'status', d.status, 'lane', d.lane,
           'attemptCount', d.attempt_count, 'nextAttemptAt', minoots.iso(d.next_attempt_at),
           'deliveredAt', minoots.iso(d.delivered_at), 'deadAt', minoots.iso(d.dead_at), 'deadReason', d.dead_reason,
           'redrives', d.redrives, 'escalatedFrom', d.escalated_from, 'ack', null::json)""",
    "comment on function minoots.delivery_json is 'A delivery as REST, gRPC and the events show it, without its attempts.'",
]

ATTEMPTS = [
    """create table minoots.attempts (
           tenant_id text not null,
           timer_id uuid not null,
           occurrence integer not null,
           action_id text not null,
           attempt integer not null,
           started_at timestamptz not null,
           duration_ms integer,
           outcome text not null,
           status_code integer,
           error text,
           excerpt text,
           node text,
           constraint attempts_pkey primary key (timer_id, occurrence, action_id, attempt),
           constraint attempts_outcome check (outcome in ('delivered', 'retry', 'rejected', 'unknown')),
           constraint attempts_excerpt check (octet_length(excerpt) <= 16384)
       ) with (autovacuum_vacuum_insert_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)""",
    "comment on table minoots.attempts is 'Every try of a delivery, as it ended.'",
    "comment on column minoots.attempts.tenant_id is 'Whose it is.'",
    "comment on column minoots.attempts.timer_id is 'The timer.'",
    "comment on column minoots.attempts.occurrence is 'Which firing of the timer.'",
    "comment on column minoots.attempts.action_id is 'Which action.'",
    "comment on column minoots.attempts.attempt is '1, 2, …; continues over redrives.'",
    "comment on column minoots.attempts.started_at is 'When it began.'",
    "comment on column minoots.attempts.duration_ms is 'How long it took; null when that is not known.'",
    "comment on column minoots.attempts.outcome is 'delivered, retry, rejected (no use in trying again), or unknown (nobody recorded how it ended).'",
    "comment on column minoots.attempts.status_code is 'The HTTP status of the answer.'",
    "comment on column minoots.attempts.error is 'What went wrong, when there was no good answer.'",
    "comment on column minoots.attempts.excerpt is 'The beginning of the answer, control characters escaped.'",
    "comment on column minoots.attempts.node is 'The process that tried.'",
    """create function minoots.attempt_json(a minoots.attempts) returns json language sql stable parallel safe
       return json_build_object(
           'attempt', a.attempt, 'startedAt', minoots.iso(a.started_at), 'durationMs', a.duration_ms,
           'outcome', a.outcome, 'statusCode', a.status_code, 'error', a.error, 'excerpt', a.excerpt, 'node', a.node)""",
    "comment on function minoots.attempt_json is 'An attempt as REST and gRPC show it.'",
]

# No foreign keys on these tables: they would cost every firing a look-up. Deleting a timer takes what belongs to it.
CASCADE = [
    """create function minoots.forget_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts x using gone where x.timer_id = gone.id;
           delete from minoots.deliveries x using gone where x.timer_id = gone.id;
           delete from minoots.firings x using gone where x.timer_id = gone.id;
           return null;
       end $$""",
    "comment on function minoots.forget_timers is 'What belongs to a deleted timer goes with it.'",
    """create trigger timers_forgotten after delete on minoots.timers
       referencing old table as gone for each statement execute function minoots.forget_timers()""",
    """create function minoots.forget_all_timers() returns trigger language plpgsql as $$
       begin
           delete from minoots.attempts;
           delete from minoots.deliveries;
           delete from minoots.firings;
           return null;
       end $$""",
    "comment on function minoots.forget_all_timers is 'The same for truncate, which no row trigger sees.'",
    """create trigger timers_all_forgotten before truncate on minoots.timers
       for each statement execute function minoots.forget_all_timers()""",
]


def upgrade() -> None:
    for statement in (*FIRINGS, *AS_FIRED, *DELIVERIES, *ATTEMPTS, *CASCADE):
        run(statement)


def downgrade() -> None:
    run("drop trigger timers_forgotten on minoots.timers")
    run("drop trigger timers_all_forgotten on minoots.timers")
    for function in (
        "forget_timers",
        "forget_all_timers",
        "attempt_json",
        "delivery_json",
        "lane_of",
        "firing_as_fired",
        "timer_as_fired",
        "firing_json",
    ):
        run(f"drop function minoots.{function}")
    for table in ("attempts", "deliveries", "firings"):
        run(f"drop table minoots.{table}")
