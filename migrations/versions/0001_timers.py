"""The clock, the installation, timers and the outbox."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


CLOCK = [
    """create function minoots.now() returns timestamptz language sql stable parallel safe
       return statement_timestamp()""",
    """comment on function minoots.now() is
       'The only clock: every statement asks it. A test or development server may replace its body to move time.'""",
    """create function minoots.iso(instant timestamptz) returns text language sql stable parallel safe
       return to_char(instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
    "comment on function minoots.iso is 'An instant as JSON writes it: RFC 3339, UTC, microseconds.'",
    """create function minoots.uuid7() returns uuid language sql volatile parallel safe
       return encode(
           set_bit(set_bit(
               overlay(uuid_send(gen_random_uuid())
                       placing substring(int8send((extract(epoch from minoots.now()) * 1000)::bigint) from 3)
                       from 1 for 6), 52, 1), 53, 1), 'hex')::uuid""",
    "comment on function minoots.uuid7 is 'A UUID of version 7 (RFC 9562): sorts by the time it was made.'",
]

CHECKS = [
    """create function minoots.is_json_shallow(value jsonb) returns boolean language sql immutable parallel safe
       return not jsonb_path_exists(value, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")')""",
    "comment on function minoots.is_json_shallow is 'Nested at most 32 deep, the value itself counted.'",
    r"""create function minoots.is_representable(value jsonb) returns boolean language sql immutable parallel safe
       return value::text !~ '[0-9]{200}[0-9]{109}' or not jsonb_path_exists(
           value, 'strict $.** ? (@.type() == "number" && (@ > 1.8e308 || @ < -1.8e308))')""",
    "comment on function minoots.is_representable is 'No number in it is beyond what a double holds.'",
    """create function minoots.is_labels(labels jsonb) returns boolean language plpgsql immutable strict parallel safe as $$
       declare
           many integer := 0; k text; v jsonb;
       begin
           if jsonb_typeof(labels) <> 'object' then return false; end if;
           if labels = '{}' then return true; end if;
           for k, v in select * from jsonb_each(labels) loop
               many := many + 1;
               if many > 64 or char_length(k) not between 1 and 63 or jsonb_typeof(v) <> 'string'
                  or char_length(v #>> '{}') > 255 then return false; end if;
           end loop;
           return true;
       end $$""",
    "comment on function minoots.is_labels is 'At most 64 labels: keys of 1 to 63, text values of up to 255 characters.'",
    r"""create function minoots.is_ipv6(address text) returns boolean language plpgsql immutable strict as $$
       begin
           return family(address::inet) = 6;
       exception when invalid_text_representation then
           return false;
       end $$""",
    "comment on function minoots.is_ipv6 is 'Whether it is an IPv6 address.'",
    r"""create function minoots.is_url(url text) returns boolean language plpgsql immutable strict as $$
       declare
           part text[] := regexp_match(url,
               '^[Hh][Tt][Tt][Pp][Ss]?://(?:([^\x01-\x20\x7f/?#@:\[\]\\]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?(?:[/?#][^\x01-\x20\x7f\\]*)?$');
       begin
           return part is not null
              and (part[3] is null or part[3]::int between 1 and 65535)
              and (part[2] is null or minoots.is_ipv6(part[2]))
              -- what would be another host once it is written in compatible characters (UTS 46)
              and (part[1] is null or part[1] !~ '[^\x01-\x7f]' or normalize(part[1], NFKC) !~ '[\x01-\x20\x7f-\xa0/?#@:\[\]\\]');
       end $$""",
    "comment on function minoots.is_url is 'An http or https URL with a host, without a user, spaces or backslashes.'",
    r"""create function minoots.is_action(action jsonb) returns boolean language plpgsql immutable as $$
       declare
           parameters jsonb := action -> 'parameters';
           escalation jsonb := action -> 'escalation';
       begin
           if jsonb_typeof(action) is distinct from 'object'
              or action - array['id', 'kind', 'parameters', 'escalation'] <> '{}'
              or jsonb_typeof(action -> 'id') is distinct from 'string'
              or action ->> 'id' !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$' or action ->> 'id' = 'agent'
              or coalesce(action ->> 'kind', '') not in ('webhook', 'agent_prompt', 'command', 'workflow_event')
              or jsonb_typeof(parameters) is distinct from 'object' then return false; end if;
           -- kept out as long as nothing acts on it
           if coalesce(jsonb_typeof(escalation), 'null') <> 'null' then return false; end if;
           if action ->> 'kind' <> 'webhook' then return true; end if;
           if jsonb_typeof(parameters -> 'headers') = 'object' and exists (
               select from (select key, value #>> '{}' as value, jsonb_typeof(value) as kind
                              from jsonb_each(parameters -> 'headers')) h
                where h.kind <> 'string' or h.key !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]+$' or char_length(h.key) > 256
                   or h.key ~* '^(host|content-length|transfer-encoding|connection|cookie|upgrade|te|trailer|(webhook|proxy|x-minoots)-.*)$'
                   or h.value ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(h.value) > 8192) then return false; end if;
           return jsonb_typeof(parameters -> 'url') is not distinct from 'string'
              and minoots.is_url(parameters ->> 'url')
              and char_length(parameters ->> 'url') <= 2048
              and parameters - array['url', 'method', 'headers', 'body', 'timeoutMs'] = '{}'
              and coalesce(parameters ->> 'method', 'POST') in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')
              and coalesce(jsonb_typeof(parameters -> 'headers'), 'null') in ('object', 'null')
              and (coalesce(jsonb_typeof(parameters -> 'timeoutMs'), 'null') = 'null'
                   or (parameters ->> 'timeoutMs' ~ '^[0-9]{1,6}$' and jsonb_typeof(parameters -> 'timeoutMs') = 'number'
                       and (parameters ->> 'timeoutMs')::int between 1 and 120000));
       end $$""",
    "comment on function minoots.is_action is 'An action as REST takes it: id, kind, parameters, escalation.'",
    """create function minoots.is_action_bundle(bundle jsonb) returns boolean language plpgsql immutable strict as $$
       declare
           actions jsonb := bundle -> 'actions'; policy jsonb := bundle -> 'retryPolicy'; many integer; a jsonb;
       begin
           if jsonb_typeof(bundle) <> 'object' or bundle - array['actions', 'concurrency', 'retryPolicy'] <> '{}'
              or jsonb_typeof(actions) is distinct from 'array' then return false; end if;
           many := jsonb_array_length(actions);
           if many > 16 then return false; end if;
           for a in select * from jsonb_array_elements(actions) loop
               if not minoots.is_action(a) then return false; end if;
           end loop;
           if many > 1 and (select count(distinct e ->> 'id') from jsonb_array_elements(actions) e) < many then
               return false;
           end if;
           if coalesce(jsonb_typeof(bundle -> 'concurrency'), 'null') <> 'null'
              and (jsonb_typeof(bundle -> 'concurrency') <> 'number'
                   or bundle ->> 'concurrency' !~ '^([1-9]|1[0-6])$') then return false; end if;
           if coalesce(jsonb_typeof(policy), 'null') = 'null' then return true; end if;
           return jsonb_typeof(policy) = 'object'
              and policy - array['maxAttempts', 'maxAgeMs', 'backoffInitialMs', 'backoffMultiplier', 'backoffMaxMs'] = '{}'
              -- strict: else the path would look into an array instead of at it
              and not jsonb_path_exists(policy, 'strict $.* ? (@.type() != "number" && @.type() != "null")')
              and not jsonb_path_exists(policy, '$.backoffMultiplier ? (@ != null && (@ < 1 || @ > 1000))')
              -- whole numbers are written as such: 1.0 would not be read as one
              and not exists (
                  select from jsonb_each_text(policy) p
                   where p.key <> 'backoffMultiplier' and p.value is not null
                     and (p.value !~ '^[0-9]{1,11}$'
                          or p.value::bigint not between case when p.key in ('maxAttempts', 'maxAgeMs') then 1 else 0 end
                             and case when p.key = 'maxAttempts' then 1000 else 31536000000 end));
       end $$""",
    """comment on function minoots.is_action_bundle is
       'A bundle as REST takes it: up to 16 actions with unique ids, concurrency, retryPolicy.'""",
    """create function minoots.is_agent_binding(binding jsonb) returns boolean language plpgsql immutable strict parallel safe as $$
       begin
           return jsonb_typeof(binding) = 'object'
              and binding - array['adapter', 'target', 'payloadTemplate', 'acknowledgementTimeoutMs'] = '{}'
              and coalesce(binding ->> 'adapter', '') in ('mcp', 'langchain', 'autogen', 'custom')
              and jsonb_typeof(binding -> 'target') is not distinct from 'string'
              and char_length(binding ->> 'target') between 1 and 2048
              and (coalesce(jsonb_typeof(binding -> 'acknowledgementTimeoutMs'), 'null') = 'null'
                   or (jsonb_typeof(binding -> 'acknowledgementTimeoutMs') = 'number'
                       and binding ->> 'acknowledgementTimeoutMs' ~ '^[1-9][0-9]{0,10}$'
                       and (binding ->> 'acknowledgementTimeoutMs')::bigint <= 31536000000));
       end $$""",
    "comment on function minoots.is_agent_binding is 'An agent binding as REST takes it.'",
]

# Rules of one value are domains, not CHECKs of the table: Postgres looks at every CHECK again at every update, and firing
# is an update. Measured: 11,400 timers fired a second with CHECKs, 17,000 with domains.
DOMAINS = [
    r"""create domain minoots.tenant as text
       constraint timers_tenant_id check (value ~ '^[A-Za-z0-9][A-Za-z0-9_:@-]{0,127}$')""",
    "comment on domain minoots.tenant is 'A tenant''s name: 1 to 128 letters, digits and _ : @ -.'",
    """create domain minoots.metadata as jsonb
       constraint timers_metadata check (jsonb_typeof(value) = 'object')
       constraint timers_metadata_size check (octet_length(value::text) <= 65536)
       constraint timers_numbers check (minoots.is_representable(value))
       constraint timers_depth check (minoots.is_json_shallow(value))""",
    "comment on domain minoots.metadata is 'A JSON object of up to 64 KiB.'",
    """create domain minoots.labels as jsonb
       constraint timers_labels check (minoots.is_labels(value))""",
    "comment on domain minoots.labels is 'Labels: {key: value}.'",
    """create domain minoots.action_bundle as jsonb
       constraint timers_action_bundle check (minoots.is_action_bundle(value))
       constraint timers_action_bundle_size check (octet_length(value::text) <= 262144)
       constraint timers_numbers check (minoots.is_representable(value))
       constraint timers_depth check (minoots.is_json_shallow(value))""",
    "comment on domain minoots.action_bundle is 'What to do: {actions, concurrency, retryPolicy}.'",
    """create domain minoots.agent_binding as jsonb
       constraint timers_agent_binding check (minoots.is_agent_binding(value))
       constraint timers_agent_binding_size check (octet_length(value::text) <= 262144)
       constraint timers_numbers check (minoots.is_representable(value))
       constraint timers_depth check (minoots.is_json_shallow(value))""",
    "comment on domain minoots.agent_binding is 'The agent to wake.'",
    """create domain minoots.traceparent as text
       constraint timers_traceparent check (value ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$')""",
    "comment on domain minoots.traceparent is 'A W3C trace context.'",
]

INSTALLATION = [
    "comment on table minoots.alembic_version is 'The revision that this schema is at: Alembic''s own.'",
    "comment on column minoots.alembic_version.version_num is 'The revision.'",
    """create table minoots.installation (
           only_row boolean primary key default true check (only_row),
           events boolean not null default true,
           created_at timestamptz not null default minoots.now())""",
    "comment on table minoots.installation is 'Facts about this installation as a whole; one row.'",
    "comment on column minoots.installation.only_row is 'Always true: there is one row.'",
    """comment on column minoots.installation.events is
       'Whether lifecycle events are written at all (`minoots events on|off`); off: no outbox rows, deliveries due at once.'""",
    "comment on column minoots.installation.created_at is 'When this schema was made.'",
    "insert into minoots.installation default values",
]

TIMERS = [
    """create table minoots.timers (
           id uuid default minoots.uuid7(),
           tenant_id minoots.tenant not null,
           name text,
           requested_by text not null default current_user,
           status text not null default 'scheduled',
           duration_ms bigint,
           created_at timestamptz not null default minoots.now(),
           fire_at timestamptz not null,
           due_at timestamptz generated always as (case when status = 'scheduled' then greatest(fire_at, created_at) end) stored,
           fired_at timestamptz,
           settled_at timestamptz,
           cancelled_at timestamptz,
           cancel_reason text,
           cancelled_by text,
           failure_reason text,
           metadata minoots.metadata,
           labels minoots.labels not null default '{}',
           action_bundle minoots.action_bundle,
           agent_binding minoots.agent_binding,
           occurrence integer not null default 0,
           version bigint not null default 1,
           traceparent minoots.traceparent,
           constraint timers_pkey primary key (id),
           constraint timers_name check (char_length(name) between 1 and 200),
           constraint timers_requested_by check (char_length(requested_by) between 1 and 200),
           constraint timers_status check (status in ('scheduled', 'paused', 'fired', 'settled', 'failed', 'cancelled')),
           constraint timers_duration check (duration_ms > 0),
           constraint timers_instants check (
               greatest(created_at, fire_at, fired_at, settled_at, cancelled_at) < timestamptz '9000-01-01 00:00:00+00'
               and least(created_at, fire_at, fired_at, settled_at, cancelled_at) >= timestamptz '1970-01-01 00:00:00+00'),
           constraint timers_fired check (status not in ('fired', 'settled') or fired_at is not null),
           constraint timers_settled check ((settled_at is not null) = (status in ('settled', 'failed'))),
           constraint timers_cancelled check ((cancelled_at is not null) = (status = 'cancelled')),
           constraint timers_failure_reason check ((failure_reason is not null) = (status = 'failed')),
           constraint timers_cancel_reason check (char_length(cancel_reason) <= 1000),
           constraint timers_cancelled_by check (char_length(cancelled_by) between 1 and 200),
           constraint timers_occurrence check (occurrence >= 0),
           constraint timers_version check (version >= 1)
       ) with (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.05,
               autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1)""",
    # The claim: partial, so that a timer that ended leaves it and its later updates stay HOT.
    "create index timers_due on minoots.timers (due_at, id) where due_at is not null",
    # Listing: newest first, one tenant.
    "create index timers_by_tenant on minoots.timers (tenant_id, id)",
    "comment on table minoots.timers is 'The promises: one row a timer, from its creation to its end and until it is pruned.'",
    "comment on column minoots.timers.id is 'UUID of version 7.'",
    "comment on column minoots.timers.tenant_id is 'Whose it is.'",
    "comment on column minoots.timers.name is 'What people call it; not unique.'",
    "comment on column minoots.timers.requested_by is 'Who asked for it, as they said.'",
    """comment on column minoots.timers.status is
       'scheduled, paused, fired, settled (all its actions delivered), failed, or cancelled.'""",
    "comment on column minoots.timers.duration_ms is 'The duration it was asked with, in milliseconds; null when an instant was given.'",
    "comment on column minoots.timers.created_at is 'When it was created.'",
    "comment on column minoots.timers.fire_at is 'When it is to fire.'",
    """comment on column minoots.timers.due_at is
       'The instant the kernel waits for: fire_at, never before the creation; null unless the timer is waiting. Follows by itself.'""",
    "comment on column minoots.timers.fired_at is 'When it fired.'",
    "comment on column minoots.timers.settled_at is 'When the last of its actions ended, or it failed.'",
    "comment on column minoots.timers.cancelled_at is 'When it was cancelled.'",
    "comment on column minoots.timers.cancel_reason is 'Why it was cancelled, as the request said.'",
    "comment on column minoots.timers.cancelled_by is 'Who cancelled it.'",
    "comment on column minoots.timers.failure_reason is 'Why it failed.'",
    "comment on column minoots.timers.metadata is 'A JSON object of the user''s; up to 64 KiB.'",
    "comment on column minoots.timers.labels is 'Labels to find it by: {key: value}.'",
    "comment on column minoots.timers.action_bundle is 'What to do when it fires: {actions, concurrency, retryPolicy}.'",
    "comment on column minoots.timers.agent_binding is 'The agent to wake: {adapter, target, payloadTemplate, acknowledgementTimeoutMs}.'",
    "comment on column minoots.timers.occurrence is 'How often it has fired.'",
    "comment on column minoots.timers.version is 'Grows with every change of this row.'",
    "comment on column minoots.timers.traceparent is 'The W3C trace context of the request that made it.'",
    """create function minoots.timer_json(t minoots.timers) returns json language sql stable parallel safe
       return json_build_object(
           'id', t.id, 'tenantId', t.tenant_id, 'name', t.name, 'requestedBy', t.requested_by, 'status', t.status,
           'durationMs', t.duration_ms, 'createdAt', minoots.iso(t.created_at), 'fireAt', minoots.iso(t.fire_at),
           'firedAt', minoots.iso(t.fired_at), 'settledAt', minoots.iso(t.settled_at),
           'cancelledAt', minoots.iso(t.cancelled_at), 'cancelReason', t.cancel_reason, 'cancelledBy', t.cancelled_by,
           'failureReason', t.failure_reason, 'metadata', t.metadata, 'labels', t.labels,
           'actionBundle', t.action_bundle, 'agentBinding', t.agent_binding, 'schedule', null::json,
           'occurrence', t.occurrence, 'version', t.version)""",
    "comment on function minoots.timer_json is 'A timer as REST, gRPC and the events show it: this is the one place of its shape.'",
]

OUTBOX = [
    """create table minoots.outbox (
           id bigint generated always as identity (cache 1),
           shard smallint not null generated always as (get_byte(uuid_send(timer_id), 15) % 8) stored,
           event_id uuid not null default minoots.uuid7(),
           tenant_id text not null,
           timer_id uuid not null,
           kind text not null,
           created_at timestamptz not null default minoots.now(),
           traceparent text,
           data json not null,
           constraint outbox_pkey primary key (shard, id)
       ) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
               autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_vacuum_cost_delay = 0)""",
    "comment on table minoots.outbox is 'Events that NATS has not acknowledged yet, written in the transaction that made them true.'",
    "comment on column minoots.outbox.id is 'Order of writing; for one timer a later event has the larger id.'",
    "comment on column minoots.outbox.shard is 'Which relay''s turn it is: a hash of the timer''s id.'",
    "comment on column minoots.outbox.event_id is 'The event''s id, also its Nats-Msg-Id.'",
    "comment on column minoots.outbox.tenant_id is 'Whose event.'",
    "comment on column minoots.outbox.timer_id is 'The timer it is about.'",
    "comment on column minoots.outbox.kind is 'The type without its prefix, as timer.fired.'",
    "comment on column minoots.outbox.created_at is 'When it happened.'",
    "comment on column minoots.outbox.traceparent is 'The trace context of the timer.'",
    "comment on column minoots.outbox.data is '{timer, firing?, delivery?, reason?}, as it goes out.'",
    "create table minoots.outbox_shards (shard smallint primary key)",
    "insert into minoots.outbox_shards select generate_series(0, 7)",
    "comment on table minoots.outbox_shards is 'One row a shard of the outbox: a relay works on the shard whose row it has locked.'",
    "comment on column minoots.outbox_shards.shard is 'The shard, 0 to 7.'",
]


def upgrade() -> None:
    for statement in (*CLOCK, *CHECKS, *DOMAINS, *INSTALLATION, *TIMERS, *OUTBOX):
        run(statement)


def downgrade() -> None:
    for table in ("outbox_shards", "outbox"):
        run(f"drop table minoots.{table}")
    run("drop function minoots.timer_json")
    run("drop table minoots.timers")
    run("drop table minoots.installation")
    for domain in ("traceparent", "agent_binding", "action_bundle", "labels", "metadata", "tenant"):
        run(f"drop domain minoots.{domain}")
    for function in (
        "is_agent_binding",
        "is_action_bundle",
        "is_action",
        "is_url",
        "is_ipv6",
        "is_labels",
        "is_json_shallow",
        "is_representable",
        "uuid7",
        "iso",
        "now",
    ):
        run(f"drop function minoots.{function}")
