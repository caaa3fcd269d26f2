"""What receivers confirm."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


# Rules of one value are domains: they are looked at where the value is written, CHECKs at every update of a delivery.
DOMAINS = [
    """create domain minoots.ack_timeout as bigint
       constraint deliveries_ack_timeout check (value between 1 and 31536000000)""",
    "comment on domain minoots.ack_timeout is 'How long a receiver may take to acknowledge, in ms; a year at most.'",
    """create domain minoots.ack_note as text
       constraint deliveries_ack_note check (char_length(value) <= 1000)""",
    "comment on domain minoots.ack_note is 'What a receiver adds for people to read.'",
    """create domain minoots.ack_result as jsonb
       constraint deliveries_ack_result_size check (octet_length(value::text) <= 16384)
       constraint timers_numbers check (minoots.is_representable(value))
       constraint timers_depth check (minoots.is_json_shallow(value))""",
    "comment on domain minoots.ack_result is 'What came of a receiver''s work: any JSON of up to 16 KiB.'",
]

COLUMNS = [
    """alter table minoots.deliveries
           add column ack_timeout_ms minoots.ack_timeout,
           add column ack_outcome text,
           add column ack_note minoots.ack_note,
           add column ack_result minoots.ack_result,
           add column ack_at timestamptz,
           add column ack_deadline_at timestamptz,
           add constraint deliveries_ack check (
               case when ack_outcome is null
                    then num_nonnulls(ack_note, ack_result, ack_at, ack_deadline_at) = 0
                    else ack_at is not null and ack_outcome in ('done', 'failed', 'working') end),
           -- else nobody would ever come for it
           add constraint deliveries_awaiting check (next_attempt_at is not null or status not in ('awaiting', 'overdue'))""",
    """create index deliveries_awaited on minoots.deliveries (next_attempt_at)
       where status in ('awaiting', 'overdue')""",
    """comment on column minoots.deliveries.ack_timeout_ms is
       'How long the receiver may take to acknowledge, from when it was sent; null: it need not. Set as it is leased.'""",
    "comment on column minoots.deliveries.ack_outcome is 'What the receiver said last, of the latest attempt: done, failed or working; null: nothing yet.'",
    "comment on column minoots.deliveries.ack_note is 'What it added for people to read.'",
    "comment on column minoots.deliveries.ack_result is 'What came of its work.'",
    "comment on column minoots.deliveries.ack_at is 'When it said so.'",
    "comment on column minoots.deliveries.ack_deadline_at is 'Until when a receiver has time that said working before the attempt was recorded.'",
    """comment on column minoots.deliveries.next_attempt_at is
       'When somebody takes it: 2 s after firing, then the lease''s end, then the retry''s instant; while awaiting, the deadline of the acknowledgement (acknowledged before the attempt was recorded: the lease''s end); null while it waits for a place, and when it ended.'""",
]

# Kinds without a way of acknowledging may have such a parameter, which is none of ours.
FUNCTIONS = [
    """create function minoots.ack_timeout_of(kind text, parameters jsonb, binding jsonb) returns bigint
       language sql immutable parallel safe
       return case
           when kind in ('command', 'workflow_event') then null
           when parameters ->> 'acknowledgementTimeoutMs' ~ '^[1-9][0-9]{0,10}$'
               then least((parameters ->> 'acknowledgementTimeoutMs')::bigint, 31536000000)
           when kind = 'agent_prompt' and coalesce(parameters ->> 'adapter', parameters ->> 'target') is null
                and binding ->> 'acknowledgementTimeoutMs' ~ '^[1-9][0-9]{0,10}$'
               then least((binding ->> 'acknowledgementTimeoutMs')::bigint, 31536000000) end""",
    """comment on function minoots.ack_timeout_of is
       'How long the receiver of an action may take to acknowledge it, in ms; of an agent prompt that goes where the binding says, what that says. Null: it need not.'""",
    """create function minoots.status_heard(ack_outcome text, status text) returns text language sql immutable parallel safe
       return case
           when ack_outcome is null then status
           when ack_outcome = 'done' then 'confirmed'
           when ack_outcome = 'working' then 'awaiting'
           when status = 'awaiting' then 'overdue' else status end""",
    """comment on function minoots.status_heard is
       'What becomes of a delivery whose attempt ended so, when its receiver has been heard already: that it has it counts for more than an answer that was lost.'""",
    """create function minoots.overdue_reason(d minoots.deliveries) returns text language sql stable parallel safe
       return case d.ack_outcome
           when 'failed' then concat('acknowledged as failed', ': ' || d.ack_note)
           when 'working' then 'said to be worked on, and then not acknowledged in time'
           else coalesce('not acknowledged within ' || (d.ack_timeout_ms / 1000.0)::double precision || ' s',
                         'not acknowledged in time') end""",
    "comment on function minoots.overdue_reason is 'Why a delivery is overdue, for people.'",
]

# __ACK__ stands for what each version shows.
SHOW = """create or replace function minoots.delivery_json(d minoots.deliveries) returns json language sql stable parallel safe
       return json_build_object(
           'actionId', d.action_id, 'kind', d.kind, 'status', d.status, 'lane', d.lane,
           'attemptCount', d.attempt_count, 'nextAttemptAt', minoots.iso(d.next_attempt_at),
           'deliveredAt', minoots.iso(d.delivered_at), 'deadAt', minoots.iso(d.dead_at), 'deadReason', d.dead_reason,
           'redrives', d.redrives, 'escalatedFrom', d.escalated_from, 'ack', __ACK__)"""
ACK = """case when d.ack_outcome is not null
                then json_build_object('outcome', d.ack_outcome, 'note', d.ack_note, 'result', d.ack_result,
                                       'at', minoots.iso(d.ack_at)) end"""

PARAMETERS = r"""create or replace function minoots.is_parameters(kind text, parameters jsonb) returns boolean language plpgsql immutable as $$
       begin
           if kind not in ('webhook', 'agent_prompt') then return true; end if;
           if coalesce(jsonb_typeof(parameters -> 'acknowledgementTimeoutMs'), 'null') <> 'null'
              and (jsonb_typeof(parameters -> 'acknowledgementTimeoutMs') <> 'number'
                   or parameters ->> 'acknowledgementTimeoutMs' !~ '^[1-9][0-9]{0,10}$'
                   or (parameters ->> 'acknowledgementTimeoutMs')::bigint > 31536000000) then return false; end if;
           if kind = 'agent_prompt' then return true; end if;
           if jsonb_typeof(parameters -> 'headers') = 'object' and exists (
               select from (select key, value #>> '{}' as value, jsonb_typeof(value) as kind
                              from jsonb_each(parameters -> 'headers')) h
                where h.kind <> 'string' or h.key !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]+$' or char_length(h.key) > 256
                   or h.key ~* '^(host|content-length|transfer-encoding|connection|cookie|upgrade|te|trailer|(webhook|proxy|x-minoots)-.*)$'
                   or h.value ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(h.value) > 8192) then return false; end if;
           return jsonb_typeof(parameters -> 'url') is not distinct from 'string'
              and minoots.is_url(parameters ->> 'url')
              and char_length(parameters ->> 'url') <= 2048
              and parameters - array['url', 'method', 'headers', 'body', 'timeoutMs', 'acknowledgementTimeoutMs', 'acceptDirectives'] = '{}'
              and coalesce(jsonb_typeof(parameters -> 'acceptDirectives'), 'null') in ('boolean', 'null')
              and coalesce(parameters ->> 'method', 'POST') in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')
              and coalesce(jsonb_typeof(parameters -> 'headers'), 'null') in ('object', 'null')
              and (coalesce(jsonb_typeof(parameters -> 'timeoutMs'), 'null') = 'null'
                   or (parameters ->> 'timeoutMs' ~ '^[0-9]{1,6}$' and jsonb_typeof(parameters -> 'timeoutMs') = 'number'
                       and (parameters ->> 'timeoutMs')::int between 1 and 120000));
       end $$"""

FORMER = [
    r"""create or replace function minoots.is_parameters(kind text, parameters jsonb) returns boolean language plpgsql immutable as $$
       begin
           if kind <> 'webhook' then return true; end if;
           if jsonb_typeof(parameters -> 'headers') = 'object' and exists (
               select from (select key, value #>> '{}' as value, jsonb_typeof(value) as kind
                              from jsonb_each(parameters -> 'headers')) h
                where h.kind <> 'string' or h.key !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]+$' or char_length(h.key) > 256
                   or h.key ~* '^(host|content-length|transfer-encoding|connection|cookie|upgrade|te|trailer|(webhook|proxy|x-minoots)-.*)$'
                   or h.value ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(h.value) > 8192) then return false; end if;
           return jsonb_typeof(parameters -> 'url') is not distinct from 'string'
              and minoots.is_url(parameters ->> 'url')
              and char_length(parameters ->> 'url') <= 2048
              and parameters - array['url', 'method', 'headers', 'body', 'timeoutMs', 'acceptDirectives'] = '{}'
              and coalesce(jsonb_typeof(parameters -> 'acceptDirectives'), 'null') in ('boolean', 'null')
              and coalesce(parameters ->> 'method', 'POST') in ('GET', 'POST', 'PUT', 'PATCH', 'DELETE')
              and coalesce(jsonb_typeof(parameters -> 'headers'), 'null') in ('object', 'null')
              and (coalesce(jsonb_typeof(parameters -> 'timeoutMs'), 'null') = 'null'
                   or (parameters ->> 'timeoutMs' ~ '^[0-9]{1,6}$' and jsonb_typeof(parameters -> 'timeoutMs') = 'number'
                       and (parameters ->> 'timeoutMs')::int between 1 and 120000));
       end $$""",
    # What knows nothing of acknowledgement would never come for them: they are tried again.
    "update minoots.deliveries set status = 'pending' where status in ('awaiting', 'overdue')",
    "drop function minoots.ack_timeout_of",
    "drop function minoots.status_heard",
    "drop function minoots.overdue_reason",
    "drop index minoots.deliveries_awaited",
    """alter table minoots.deliveries
           drop constraint deliveries_awaiting, drop constraint deliveries_ack,
           drop column ack_timeout_ms, drop column ack_outcome, drop column ack_note, drop column ack_result,
           drop column ack_at, drop column ack_deadline_at""",
    """comment on column minoots.deliveries.next_attempt_at is
       'When somebody takes it: 2 s after firing, then the lease''s end, then the retry''s instant; null while it waits for a place, and when it ended.'""",
    *(f"drop domain minoots.{name}" for name in ("ack_result", "ack_note", "ack_timeout")),
]


def upgrade() -> None:
    for statement in (*DOMAINS, *COLUMNS, *FUNCTIONS, PARAMETERS):
        run(statement)
    run(SHOW.replace("__ACK__", ACK))


def downgrade() -> None:
    run(SHOW.replace("__ACK__", "null::json"))
    for statement in FORMER:
        run(statement)
