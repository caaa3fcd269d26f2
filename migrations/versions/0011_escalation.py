"""Escalation, dead letters and their redrive."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


# What an action's kind takes stands apart, so that what escalates keeps the same rules.
RULES = [
    r"""create function minoots.is_parameters(kind text, parameters jsonb) returns boolean language plpgsql immutable as $$
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
    "comment on function minoots.is_parameters is 'Whether an action of this kind can be run with these parameters.'",
    r"""create or replace function minoots.is_action(action jsonb) returns boolean language plpgsql immutable as $$
       declare
           a jsonb := action; escalation jsonb;
       begin
           -- the action, then what it escalates to, at most four times in a row
           for depth in 0 .. 4 loop
               if jsonb_typeof(a) is distinct from 'object'
                  or a - array['id', 'kind', 'parameters', 'escalation'] <> '{}'
                  -- what is escalated to is named by what it stands in for, and may go without an id
                  or ((depth = 0 or coalesce(jsonb_typeof(a -> 'id'), 'null') <> 'null')
                      and (jsonb_typeof(a -> 'id') is distinct from 'string'
                           or a ->> 'id' !~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$' or a ->> 'id' = 'agent'))
                  or coalesce(a ->> 'kind', '') not in ('webhook', 'agent_prompt', 'command', 'workflow_event')
                  or jsonb_typeof(a -> 'parameters') is distinct from 'object'
                  or not minoots.is_parameters(a ->> 'kind', a -> 'parameters') then return false; end if;
               escalation := a -> 'escalation';
               if coalesce(jsonb_typeof(escalation), 'null') = 'null' then return true; end if;
               if jsonb_typeof(escalation) <> 'object'
                  or escalation - array['afterAttempts', 'escalatesTo'] <> '{}'
                  or jsonb_typeof(escalation -> 'afterAttempts') is distinct from 'number'
                  or escalation ->> 'afterAttempts' !~ '^([1-9][0-9]{0,2}|1000)$' then return false; end if;
               a := escalation -> 'escalatesTo';
           end loop;
           return false;
       end $$""",
    """comment on function minoots.is_action is
       'An action as REST takes it: id, kind, parameters, escalation: {afterAttempts, escalatesTo: an action}, up to 4 in a row.'""",
    """create function minoots.action_of(bundle jsonb, binding jsonb, action_id text, place integer) returns jsonb
       language sql immutable parallel safe
       return case
           when strpos(action_id, '~') > 0 then bundle #> (
               '{actions,' || place || repeat(',escalation,escalatesTo', split_part(action_id, '~', 2)::int) || '}')::text[]
           else coalesce(bundle -> 'actions' -> place,
                         jsonb_build_object('id', action_id, 'kind', 'agent_prompt', 'parameters', binding)) end""",
    """comment on function minoots.action_of is
       'What a delivery does: the action at its position in the bundle, for a~2 what that escalates to twice; else the agent binding.'""",
]

COLUMNS = [
    """alter table minoots.deliveries
           add column opened_at timestamptz,
           add column charged_before integer,
           add column unknown_before integer,
           add column escalated_at timestamptz""",
    """comment on column minoots.deliveries.opened_at is
       'When it was opened by an escalation or by the last redrive, and its age counts from; null: as the firing fired.'""",
    """comment on column minoots.deliveries.charged_before is
       'How many attempts its policy had counted before the last redrive: they are not counted again. Null: none.'""",
    "comment on column minoots.deliveries.unknown_before is 'How many of unknown_count were before the last redrive. Null: none.'",
    """comment on column minoots.deliveries.escalated_at is
       'When the delivery that it escalates to joined in; null: not yet since it was opened, or it does not escalate.'""",
    """comment on column minoots.deliveries.action_id is
       'The action''s id in the bundle; agent for an agent binding; a~1 for what the action a escalates to, a~2 for what that does.'""",
    "comment on column minoots.deliveries.escalated_from is 'The delivery beside which it joined in: a for a~1, a~1 for a~2.'",
    "comment on column minoots.deliveries.redrives is 'How often it was opened again: by a redrive, or by what escalates to it.'",
]

FORMER = [
    # Nothing would find what they send.
    """with gone as (
           delete from minoots.deliveries
            where escalated_from is not null and status in ('pending', 'awaiting', 'overdue')
        returning timer_id, occurrence),
       firing as (
           update minoots.firings f
              set open_deliveries = f.open_deliveries - g.many,
                  status = case when f.open_deliveries = g.many then 'failed' else f.status end,
                  settled_at = case when f.open_deliveries = g.many then minoots.now() end
             from (select timer_id, occurrence, count(*) as many from gone group by timer_id, occurrence) g
            where f.timer_id = g.timer_id and f.occurrence = g.occurrence
        returning f.timer_id, f.occurrence, f.status),
       closed as (
           delete from minoots.open_firings o using firing f
            where f.status = 'failed' and o.timer_id = f.timer_id and o.occurrence = f.occurrence)
       update minoots.timers t
          set status = 'failed', settled_at = minoots.now(), failure_reason = 'its escalation was given up',
              version = t.version + 1
         from firing f
        where t.id = f.timer_id and t.occurrence = f.occurrence and f.status = 'failed' and t.status = 'fired'""",
    r"""create or replace function minoots.is_action(action jsonb) returns boolean language plpgsql immutable as $$
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
    "drop function minoots.is_parameters",
    "drop function minoots.action_of",
    """alter table minoots.deliveries
           drop column opened_at, drop column charged_before, drop column unknown_before, drop column escalated_at""",
    "comment on column minoots.deliveries.action_id is 'The action''s id in the bundle; agent for an agent binding.'",
    "comment on column minoots.deliveries.escalated_from is 'The action that it stands in for.'",
    "comment on column minoots.deliveries.redrives is 'How often it was opened again.'",
]


def upgrade() -> None:
    for statement in (*RULES, *COLUMNS):
        run(statement)


def downgrade() -> None:
    for statement in FORMER:
        run(statement)
