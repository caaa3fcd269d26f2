"""Where agents, commands and workflow events go."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


# Bindings and agent_prompt parameters: which agent, and what it is told.
AGENTS = [
    r"""create function minoots.is_extension(name text) returns boolean language sql immutable strict parallel safe
       return name ~ '^[a-z][a-z0-9_]{0,30}(\.[a-z0-9_]{1,31}){1,3}$'""",
    "comment on function minoots.is_extension is 'A name of an adapter or action kind that an extension brings: it has a dot in it.'",
    r"""create function minoots.is_template(template jsonb) returns boolean language sql immutable parallel safe
       return template is null or strpos(template::text, '{{') = 0 or not exists (
           select from jsonb_path_query(template, 'strict $.** ? (@.type() == "string")') as s(piece)
            where strpos(piece #>> '{}', '{{') > 0
              and piece #>> '{}' !~ '^([^{]|\{(?!\{)|\{\{\{\{|\{\{ *(timer|firing|event|delivery|ack)(\.[^.{}\x01-\x20\x7f]+)* *\}\})*$')""",
    "comment on function minoots.is_template is 'Whether every placeholder of a payload template can be read.'",
    r"""create function minoots.is_agent_target(adapter text, target text) returns boolean language sql immutable parallel safe
       return case
           when minoots.is_extension(adapter) then true
           when adapter not in ('mcp', 'langchain', 'autogen', 'custom') then false
           when starts_with(target, 'nats:')
               then adapter in ('autogen', 'custom') and target ~ '^nats:[A-Za-z0-9_-]{1,64}(\.[A-Za-z0-9_-]{1,64}){0,7}$'
           else minoots.is_url(target)
                and (adapter <> 'mcp' or strpos(target, '#') = 0 or target ~ '^[^#]*#[A-Za-z0-9_./-]{0,128}$') end""",
    "comment on function minoots.is_agent_target is 'Whether an adapter can find the agent there; an extension''s target is its own to check.'",
    r"""create function minoots.is_headers(headers jsonb) returns boolean language sql immutable parallel safe
       return case coalesce(jsonb_typeof(headers), 'null')
           when 'null' then true
           when 'object' then not exists (
               select from (select key, value #>> '{}' as value, jsonb_typeof(value) as kind from jsonb_each(headers)) h
                where h.kind <> 'string' or h.key !~ '^[!#$%&''*+.^_`|~0-9A-Za-z-]+$' or char_length(h.key) > 256
                   or h.key ~* '^(host|content-length|transfer-encoding|connection|cookie|upgrade|te|trailer|(webhook|proxy|x-minoots)-.*)$'
                   or h.value ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(h.value) > 8192)
           else false end""",
    "comment on function minoots.is_headers is 'HTTP headers of an agent''s prompt, as a webhook may have them.'",
    r"""create function minoots.is_agent_parameters(parameters jsonb) returns boolean language plpgsql immutable as $$
       declare
           named jsonb := jsonb_strip_nulls(parameters);
       begin
           if parameters - array['adapter', 'target', 'payloadTemplate', 'prompt', 'headers', 'acknowledgementTimeoutMs',
                                 'timeoutMs'] <> '{}'
              or not minoots.is_headers(parameters -> 'headers')
              or (named ? 'prompt' and (named ? 'payloadTemplate' or jsonb_typeof(named -> 'prompt') <> 'string'))
              or not minoots.is_template(named -> 'payloadTemplate') or not minoots.is_template(named -> 'prompt')
              or (named ? 'timeoutMs'
                  and (jsonb_typeof(named -> 'timeoutMs') <> 'number' or named ->> 'timeoutMs' !~ '^[0-9]{1,6}$'
                       or (named ->> 'timeoutMs')::int not between 1 and 120000)) then return false; end if;
           -- neither: the timer's agentBinding says where
           if not named ? 'adapter' and not named ? 'target' then return true; end if;
           return jsonb_typeof(named -> 'adapter') is not distinct from 'string'
              and jsonb_typeof(named -> 'target') is not distinct from 'string'
              and char_length(named ->> 'target') between 1 and 2048
              and minoots.is_agent_target(named ->> 'adapter', named ->> 'target');
       end $$""",
    """comment on function minoots.is_agent_parameters is
       'Parameters of an agent_prompt as REST takes them; without adapter and target the timer''s agentBinding has to say.'""",
    """create or replace function minoots.is_agent_binding(binding jsonb) returns boolean language plpgsql immutable strict parallel safe as $$
       begin
           return jsonb_typeof(binding) = 'object'
              and binding - array['adapter', 'target', 'payloadTemplate', 'acknowledgementTimeoutMs'] = '{}'
              and jsonb_typeof(binding -> 'adapter') is not distinct from 'string'
              and jsonb_typeof(binding -> 'target') is not distinct from 'string'
              and char_length(binding ->> 'target') between 1 and 2048
              and minoots.is_agent_target(binding ->> 'adapter', binding ->> 'target')
              and minoots.is_template(binding -> 'payloadTemplate')
              and (coalesce(jsonb_typeof(binding -> 'acknowledgementTimeoutMs'), 'null') = 'null'
                   or (jsonb_typeof(binding -> 'acknowledgementTimeoutMs') = 'number'
                       and binding ->> 'acknowledgementTimeoutMs' ~ '^[1-9][0-9]{0,10}$'
                       and (binding ->> 'acknowledgementTimeoutMs')::bigint <= 31536000000));
       end $$""",
]

# What a command takes, the operator's file says, which no database knows.
WORKFLOWS = [
    r"""create function minoots.is_workflow_event(parameters jsonb) returns boolean language plpgsql immutable as $$
       declare
           named jsonb := jsonb_strip_nulls(parameters);
       begin
           return parameters - array['name', 'payload', 'payloadTemplate', 'endpoint'] = '{}'
              and jsonb_typeof(named -> 'name') is not distinct from 'string'
              and char_length(named ->> 'name') <= 128
              and named ->> 'name' ~ '^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)*$'
              and not (named ? 'payload' and named ? 'payloadTemplate')
              and minoots.is_template(named -> 'payloadTemplate')
              and (not named ? 'endpoint'
                   or (jsonb_typeof(named -> 'endpoint') = 'string' and minoots.is_url(named ->> 'endpoint')
                       and char_length(named ->> 'endpoint') <= 2048));
       end $$""",
    """comment on function minoots.is_workflow_event is
       'Parameters of a workflow_event as REST takes them: name, payload or payloadTemplate, endpoint.'""",
]

# A kind of an extension has a dot in its name; whether this installation runs it, only its processes know.
ACTIONS = [
    r"""create function minoots.is_other_kind(kind text, parameters jsonb) returns boolean language sql immutable parallel safe
       return case kind
           when 'command' then true
           when 'agent_prompt' then minoots.is_agent_parameters(parameters)
           when 'workflow_event' then minoots.is_workflow_event(parameters)
           else minoots.is_extension(kind) end""",
    "comment on function minoots.is_other_kind is 'Whether an action of a kind that is no webhook can have these parameters.'",
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
                  or jsonb_typeof(a -> 'kind') is distinct from 'string'
                  or jsonb_typeof(a -> 'parameters') is distinct from 'object' then return false; end if;
               -- most are webhooks, and each comparison costs
               if a ->> 'kind' <> 'webhook' and not minoots.is_other_kind(a ->> 'kind', a -> 'parameters') then
                   return false;
               end if;
               if not minoots.is_parameters(a ->> 'kind', a -> 'parameters') then return false; end if;
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
]

LANES = [
    r"""create function minoots.agent_lane(parameters jsonb) returns text language sql immutable parallel safe
       return coalesce(
           regexp_replace(regexp_replace(
               lower(substring(parameters ->> 'target' from '^[Hh][Tt][Tt][Pp][Ss]?://[^/?#]+')),
               '^(http://.*):80$', '\1'), '^(https://.*):443$', '\1'),
           'agent:' || coalesce(parameters ->> 'adapter', 'unbound'))""",
    r"""create function minoots.workflow_lane(parameters jsonb) returns text language sql immutable parallel safe
       return coalesce(
           regexp_replace(regexp_replace(
               lower(substring(parameters ->> 'endpoint' from '^[A-Za-z]+://[^/?#]+')),
               '^(http://.*):80$', '\1'), '^(https://.*):443$', '\1'),
           'workflow')""",
    "comment on function minoots.workflow_lane is 'The queue of a workflow event: workflow, or the origin of its own endpoint.'",
    "comment on function minoots.agent_lane is 'The queue of a prompt: the origin of its target, else agent: and the adapter.'",
    r"""create or replace function minoots.lane_of(kind text, parameters jsonb) returns text language sql immutable parallel safe
       return case when kind = 'agent_prompt' then minoots.agent_lane(parameters)
                   when kind = 'workflow_event' then minoots.workflow_lane(parameters)
                   when kind = 'command' then 'command:' || coalesce(left(parameters ->> 'name', 63), '')
                   when kind <> 'webhook' then kind
                   -- a match rebuilds its automaton for each call; most URLs have nothing that needs one
                   when strpos(parameters ->> 'url', ':80') = 0 and strpos(parameters ->> 'url', ':443') = 0
                    and strpos(parameters ->> 'url', '?') = 0 and strpos(parameters ->> 'url', '#') = 0
                   then lower(split_part(parameters ->> 'url', '/', 1) || '//' || split_part(parameters ->> 'url', '/', 3))
                   else regexp_replace(regexp_replace(
                            lower(substring(parameters ->> 'url' from '^[A-Za-z]+://[^/?#]+')),
                            '^(http://.*):80$', '\1'), '^(https://.*):443$', '\1') end""",
    "comment on function minoots.lane_of is 'The queue of an action: the origin of where it goes, else the kind.'",
]

FORMER = [
    r"""create or replace function minoots.lane_of(kind text, parameters jsonb) returns text language sql immutable parallel safe
       return case when kind <> 'webhook' then kind
                   -- a match rebuilds its automaton for each call; most URLs have nothing that needs one
                   when strpos(parameters ->> 'url', ':80') = 0 and strpos(parameters ->> 'url', ':443') = 0
                    and strpos(parameters ->> 'url', '?') = 0 and strpos(parameters ->> 'url', '#') = 0
                   then lower(split_part(parameters ->> 'url', '/', 1) || '//' || split_part(parameters ->> 'url', '/', 3))
                   else regexp_replace(regexp_replace(
                            lower(substring(parameters ->> 'url' from '^[A-Za-z]+://[^/?#]+')),
                            '^(http://.*):80$', '\1'), '^(https://.*):443$', '\1') end""",
    "comment on function minoots.lane_of is 'The queue of an action: the origin of a webhook, else the kind.'",
    "drop function minoots.agent_lane",
    "drop function minoots.workflow_lane",
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
    """create or replace function minoots.is_agent_binding(binding jsonb) returns boolean language plpgsql immutable strict parallel safe as $$
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
    "drop function minoots.is_other_kind",
    "drop function minoots.is_workflow_event",
    "drop function minoots.is_agent_parameters",
    "drop function minoots.is_headers",
    "drop function minoots.is_agent_target",
    "drop function minoots.is_template",
    "drop function minoots.is_extension",
]


def upgrade() -> None:
    for statement in (*AGENTS, *WORKFLOWS, *ACTIONS, *LANES):
        run(statement)


def downgrade() -> None:
    for statement in FORMER:
        run(statement)
