"""The SQL door: schedule_timer and cancel_timer; idempotency keys and tenants."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


TABLES = [
    """create table minoots.tenants (
           tenant_id text primary key check (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_:@-]{0,127}$'),
           created_at timestamptz not null default minoots.now())""",
    "comment on table minoots.tenants is 'The tenants that have come through a door; a timer does not need its tenant to be here.'",
    "comment on column minoots.tenants.tenant_id is 'The tenant.'",
    "comment on column minoots.tenants.created_at is 'When it was first seen.'",
    """create table minoots.idempotency_keys (
           tenant_id text not null,
           key text not null check (char_length(key) between 1 and 255),
           request_hash text not null,
           answer text not null,
           created_at timestamptz not null default minoots.now(),
           primary key (tenant_id, key))""",
    "comment on table minoots.idempotency_keys is 'What was answered to a request with an Idempotency-Key; valid for 24 hours.'",
    "comment on column minoots.idempotency_keys.tenant_id is 'The tenant.'",
    "comment on column minoots.idempotency_keys.key is 'The key, as the caller chose it.'",
    "comment on column minoots.idempotency_keys.request_hash is 'A hash of what was asked, to tell a repetition from another request.'",
    "comment on column minoots.idempotency_keys.answer is 'The answer, as JSON text.'",
    "comment on column minoots.idempotency_keys.created_at is 'When it was first used.'",
    "create index idempotency_keys_by_age on minoots.idempotency_keys (created_at)",
    """create function minoots.request_hash(request jsonb) returns text language sql immutable parallel safe
       return encode(sha256(convert_to(request::text, 'UTF8')), 'hex')""",
    "comment on function minoots.request_hash is 'The same for requests that ask the same: jsonb has one spelling.'",
    """create function minoots.lock_idempotency_key(tenant_id text, key text) returns boolean language sql volatile
       return pg_try_advisory_xact_lock(hashtextextended(
           tenant_id || ':' || key, 'minoots.idempotency_keys'::regclass::oid::bigint))""",
    "comment on function minoots.lock_idempotency_key is 'False while another transaction works on a request with this key.'",
]

DOOR = [
    """create function minoots.schedule_timer(
           tenant_id text,
           name text default null,
           requested_by text default current_user,
           fire_in interval default null,
           fire_at timestamptz default null,
           action_bundle jsonb default null,
           metadata jsonb default null,
           labels jsonb default '{}',
           idempotency_key text default null,
           agent_binding jsonb default null,
           traceparent text default null
       ) returns uuid language plpgsql as $$
       #variable_conflict use_variable
       declare
           current_instant timestamptz := minoots.now();
           instant timestamptz := fire_at;
           asked bigint;
           request text;
           former record;
           made minoots.timers;
       begin
           if (fire_in is null) = (fire_at is null) then
               raise exception 'give either fire_in or fire_at' using errcode = '22023',
                   hint = 'fire_in => interval ''30 s'', or fire_at => timestamptz ''2030-01-01 09:00+00''';
           end if;
           if fire_in is not null then
               if fire_in <= interval '0' then
                   raise exception 'fire_in must be longer than 0' using errcode = '22023';
               end if;
               if fire_in > interval '6970 years' then
                   raise exception 'fire_in is too long: a timer must fire before the year 9000' using errcode = '22023';
               end if;
               instant := current_instant + fire_in;
               asked := greatest(1, round(extract(epoch from instant - current_instant) * 1000));
           elsif fire_at < current_instant - interval '1 minute' then
               raise exception 'fire_at is more than a minute in the past' using errcode = '22023',
                   hint = 'an instant up to a minute past fires at once';
           end if;
           labels := coalesce(labels, '{}');
           requested_by := coalesce(requested_by, current_user);
           if idempotency_key is not null then
               if not minoots.lock_idempotency_key(tenant_id, idempotency_key) then
                   raise exception 'a request with this idempotency_key is still being worked on' using errcode = '55P03',
                       hint = 'try again in a moment';
               end if;
               request := minoots.request_hash(jsonb_build_object(
                   'name', name, 'requestedBy', requested_by, 'durationMs', asked,
                   'fireAt', case when fire_in is null then minoots.iso(fire_at) end, 'metadata', metadata,
                   'labels', labels, 'actionBundle', action_bundle, 'agentBinding', agent_binding));
               select i.request_hash, i.answer into former from minoots.idempotency_keys i
                where i.tenant_id = tenant_id and i.key = idempotency_key
                  and i.created_at > current_instant - interval '24 hours';
               if found then
                   if former.request_hash <> request then
                       raise exception 'this idempotency_key was used with another request' using errcode = '22023',
                           hint = 'use a new key for a new request';
                   end if;
                   return (former.answer::json ->> 'id')::uuid;
               end if;
           end if;
           insert into minoots.timers as t (tenant_id, name, requested_by, duration_ms, created_at, fire_at, metadata, labels,
                                       action_bundle, agent_binding, traceparent)
           values (tenant_id, name, requested_by, asked, current_instant, instant, metadata, labels, action_bundle,
                   agent_binding, traceparent)
           returning t.* into made;
           insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
           select made.tenant_id, made.id, 'timer.scheduled', made.traceparent,
                  json_build_object('timer', minoots.timer_json(made))
             from minoots.installation i where i.events;
           insert into minoots.tenants values (made.tenant_id) on conflict do nothing;
           if idempotency_key is not null then
               insert into minoots.idempotency_keys (tenant_id, key, request_hash, answer, created_at)
               values (tenant_id, idempotency_key, request, minoots.timer_json(made)::text, current_instant)
               on conflict on constraint idempotency_keys_pkey
               do update set request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at;
           end if;
           return made.id;
       end $$""",
    """comment on function minoots.schedule_timer is
       'Schedule a timer inside your own transaction: it exists when you commit, and never did when you roll back. Returns its id.'""",
    """create function minoots.cancel_timer(
           tenant_id text, timer_id uuid, requested_by text default current_user, reason text default null
       ) returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           was text;
           made minoots.timers;
       begin
           update minoots.timers t
              set status = 'cancelled', cancelled_at = minoots.now(), cancelled_by = coalesce(requested_by, current_user),
                  cancel_reason = reason, version = t.version + 1
            where t.id = timer_id and t.tenant_id = tenant_id and t.status in ('scheduled', 'paused')
           returning t.* into made;
           if not found then
               select t.status into was from minoots.timers t where t.id = timer_id and t.tenant_id = tenant_id;
               return coalesce(was = 'cancelled', false);
           end if;
           insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
           select made.tenant_id, made.id, 'timer.cancelled', made.traceparent,
                  json_build_object('timer', minoots.timer_json(made), 'reason', reason)
             from minoots.installation i where i.events;
           return true;
       end $$""",
    """comment on function minoots.cancel_timer is
       'Cancel a timer that has not fired. True when it is cancelled now (also when it was before), false when it is too late or there is none.'""",
]


def upgrade() -> None:
    for statement in (*TABLES, *DOOR):
        run(statement)


def downgrade() -> None:
    for function in ("cancel_timer", "schedule_timer", "lock_idempotency_key", "request_hash"):
        run(f"drop function minoots.{function}")
    run("drop table minoots.idempotency_keys")
    run("drop table minoots.tenants")
