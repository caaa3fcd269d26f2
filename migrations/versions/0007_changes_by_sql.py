"""The SQL door for recurring timers and for changes: pause, resume, reschedule, fire, update, put."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


PARTS = [
    # As `read_schedule` writes it, so that one schedule has one spelling whichever door it came through.
    """create function minoots.schedule_of(schedule jsonb) returns jsonb language sql immutable parallel safe
       return case
           when jsonb_typeof(schedule) <> 'object' or jsonb_typeof(schedule -> 'specs') <> 'null'
               then jsonb_strip_nulls(schedule)
           else jsonb_strip_nulls(
               (schedule - array['specs', 'cron', 'every', 'phase', 'rrule', 'dtstart', 'at', 'timezone'])
               || jsonb_build_object('specs', jsonb_build_array((
                   select coalesce(jsonb_object_agg(f.key, f.value), '{}') from jsonb_each(schedule) f
                    where f.key in ('cron', 'every', 'phase', 'rrule', 'dtstart', 'at', 'timezone'))))) end""",
    "comment on function minoots.schedule_of is 'A schedule with its specs, whether it was given in full or in short.'",
    """create function minoots.check_moment(fire_in interval, fire_at timestamptz, schedule jsonb, former timestamptz)
       returns void language plpgsql stable as $$
       begin
           if num_nonnulls(fire_in, fire_at, schedule) <> 1 then
               raise exception 'give either fire_in or fire_at or schedule' using errcode = '22023',
                   hint = 'fire_in => interval ''30 s'', fire_at => timestamptz ''2030-01-01 09:00+00'', '
                          'or schedule => ''{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}''';
           elsif fire_in <= interval '0' then
               raise exception 'fire_in must be longer than 0' using errcode = '22023';
           elsif fire_in > interval '6970 years' then
               raise exception 'fire_in is too long: a timer must fire before the year 9000' using errcode = '22023';
           elsif fire_at < minoots.now() - interval '1 minute' and fire_at is distinct from former then
               raise exception 'fire_at is more than a minute in the past' using errcode = '22023',
                   hint = 'an instant up to a minute past fires at once';
           end if;
       end $$""",
    "comment on function minoots.check_moment is 'Refuses when a timer cannot fire; former is when it was to fire before, which may be past.'",
    """create function minoots.move_timer(t minoots.timers, fire_in interval, fire_at timestamptz, schedule jsonb, once boolean)
       returns minoots.timers language plpgsql stable as $$
       #variable_conflict use_variable
       declare
           current_instant timestamptz := minoots.now();
           instant timestamptz := coalesce(fire_at, current_instant + fire_in);
           left_over timestamptz[];
       begin
           perform minoots.check_moment(fire_in, fire_at, schedule, t.fire_at);
           if schedule is not null then
               -- The same goes on undisturbed; another one the kernel plans from now on.
               if minoots.schedule_of(t.schedule) is not distinct from minoots.schedule_of(schedule) then
                   return t;
               end if;
               t.schedule := minoots.schedule_of(schedule);
               t.duration_ms := null;
               t.fire_at := null;
               t.planned := '{}';
               t.planned_to := current_instant;
               t.plan_ends := false;
               t.jitter_ms := 0;
           elsif t.schedule is null or once then
               t.schedule := null;
               t.duration_ms := greatest(1, round(extract(epoch from instant - current_instant) * 1000));
               if fire_in is null then
                   t.duration_ms := null;
               end if;
               t.fire_at := instant;
               t.planned := '{}';
               t.planned_to := null;
               t.plan_ends := false;
               t.jitter_ms := 0;
               t.extra_firings := 0;
           else
               -- Only the next occurrence; one just past may have fired already, and none fires twice: it is now.
               t.fire_at := greatest(instant, current_instant);
               left_over := array(select p from unnest(t.planned) p where p > t.fire_at order by p);
               -- What leaves the plan unfired leaves maxOccurrences something: the planner looks again where it ends.
               t.plan_ends := t.plan_ends and cardinality(left_over) = cardinality(t.planned);
               t.planned := left_over;
               t.planned_to := greatest(t.planned_to, t.fire_at);
           end if;
           t.is_held := false;
           t.not_before := current_instant;
           return t;
       end $$""",
    "comment on function minoots.move_timer is 'The row of a timer as it is with another instant or schedule; changes nothing by itself.'",
    """create function minoots.keep_timer(t minoots.timers, kind text, requested_by text, missed json default null)
       returns void language plpgsql as $$
       #variable_conflict use_variable
       declare
           made minoots.timers;
       begin
           if char_length(requested_by) not between 1 and 200 then
               raise exception 'requested_by has 1 to 200 characters' using errcode = '22023';
           end if;
           update minoots.timers x
              set name = t.name, requested_by = t.requested_by, status = t.status, duration_ms = t.duration_ms,
                  fire_at = t.fire_at, metadata = t.metadata, labels = t.labels, action_bundle = t.action_bundle,
                  agent_binding = t.agent_binding, schedule = t.schedule, planned = t.planned,
                  planned_to = t.planned_to, plan_ends = t.plan_ends, jitter_ms = t.jitter_ms, is_held = t.is_held,
                  skip_to = t.skip_to,
                  not_before = greatest(case when t.jitter_ms > 0 then t.fire_at + t.jitter_ms * interval '1 ms' end,
                                        t.not_before),
                  extra_firings = t.extra_firings, missed = x.missed + coalesce((missed ->> 'count')::bigint, 0),
                  failures = t.failures, version = x.version + 1
            where x.id = t.id
           returning x.* into made;
           insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
           select made.tenant_id, made.id, told.kind, made.traceparent, told.data
             from (select kind, 0 as place, json_build_object(
                              'timer', minoots.timer_json(made), 'reason', 'requested by ' || requested_by) as data
                    union all
                   select 'timer.missed', 1, json_build_object('timer', minoots.timer_json(made), 'missed', missed)
                    where missed is not null) told, minoots.installation i
            where i.events
            order by told.place;
       end $$""",
    "comment on function minoots.keep_timer is 'Writes the changed row of a timer that is locked, with its event.'",
    """create function minoots.lock_waiting(tenant_id text, timer_id uuid) returns minoots.timers language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers;
       begin
           select x.* into t from minoots.timers x
            where x.id = timer_id and x.tenant_id = tenant_id and x.status in ('scheduled', 'paused')
              for no key update;
           return t;
       end $$""",
    "comment on function minoots.lock_waiting is 'Locks a timer that is scheduled or paused; null when there is none.'",
    """create function minoots.check_version(t minoots.timers, if_version bigint) returns void language plpgsql immutable as $$
       begin
           if if_version <> 0 and if_version is distinct from t.version then
               raise exception 'the timer is in version %, not in version %', coalesce(t.version::text, '(there is none)'), if_version
                     using errcode = '55000', hint = 'look at it again and decide on what it is now';
           end if;
       end $$""",
    "comment on function minoots.check_version is 'Refuses a timer in another version; 0 is any version, null is not asked.'",
]

SCHEDULE = [
    "drop function minoots.schedule_timer",
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
           traceparent text default null,
           schedule jsonb default null
       ) returns uuid language plpgsql as $$
       #variable_conflict use_variable
       declare
           current_instant timestamptz := minoots.now();
           instant timestamptz := coalesce(fire_at, current_instant + fire_in);
           asked bigint;
           request text;
           former record;
           made minoots.timers;
       begin
           perform minoots.check_moment(fire_in, fire_at, schedule, null);
           if fire_in is not null then
               asked := greatest(1, round(extract(epoch from instant - current_instant) * 1000));
           end if;
           schedule := minoots.schedule_of(schedule);
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
                   'labels', labels, 'actionBundle', action_bundle, 'agentBinding', agent_binding)
                   || case when schedule is null then '{}' else jsonb_build_object('schedule', schedule) end);
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
                                       action_bundle, agent_binding, traceparent, schedule)
           values (tenant_id, name, requested_by, asked, current_instant, instant, metadata, labels, action_bundle,
                   agent_binding, traceparent, schedule)
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
       'Schedule a timer inside your own transaction: it exists when you commit, and never did when you roll back. A schedule is planned by a kernel within a second. Returns its id.'""",
]

CHANGES = [
    """create function minoots.pause_timer(tenant_id text, timer_id uuid, requested_by text default current_user)
       returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers := minoots.lock_waiting(tenant_id, timer_id);
       begin
           if t.id is null then return false; end if;
           if t.status = 'scheduled' then
               t.status := 'paused';
               t.failures := 0;
               perform minoots.keep_timer(t, 'timer.paused', coalesce(requested_by, current_user));
           end if;
           return true;
       end $$""",
    """comment on function minoots.pause_timer is
       'Let a timer wait until it is resumed. True when it is paused now (also when it was before), false when it is too late or there is none.'""",
    """create function minoots.resume_timer(
           tenant_id text, timer_id uuid, requested_by text default current_user, catch_up boolean default false
       ) returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers := minoots.lock_waiting(tenant_id, timer_id);
           until timestamptz;
           past timestamptz[];
           missed json;
       begin
           if t.id is null then return false; end if;
           if t.status = 'scheduled' then return true; end if;
           t.status := 'scheduled';
           t.failures := 0;
           t.not_before := minoots.now();
           until := t.not_before - t.jitter_ms * interval '1 ms';
           if t.schedule is not null and catch_up then
               t.is_held := t.fire_at is not null and t.fire_at <= until;
           elsif t.schedule is not null
                 and (case when t.fire_at is null then not t.plan_ends
                          else t.fire_at <= until and not exists (select from unnest(t.planned) p where p > until) end) then
               -- It was paused for longer than the plan reaches, or there was none: the kernel counts what is missed.
               t.is_held := true;
               t.skip_to := until;
           elsif t.schedule is not null and t.fire_at <= until then
               -- What was planned is missed as far as it is past; maxOccurrences does not count it.
               past := t.fire_at || array(select p from unnest(t.planned) p where p <= until order by p);
               t.planned := array(select p from unnest(t.planned) p where p > until order by p);
               t.fire_at := t.planned[1];
               t.planned := t.planned[2:];
               t.plan_ends := false;
               t.is_held := false;
               missed := json_build_object('from', minoots.iso(past[1]), 'to', minoots.iso(past[cardinality(past)]),
                                           'count', cardinality(past), 'reason', 'paused');
           end if;
           perform minoots.keep_timer(t, 'timer.resumed', coalesce(requested_by, current_user), missed);
           return true;
       end $$""",
    """comment on function minoots.resume_timer is
       'Let a paused timer go on. What came due of a recurring one meanwhile is missed; with catch_up its schedule decides. True when it is scheduled now (also when it was before), false when it is too late or there is none.'""",
    """create function minoots.reschedule_timer(
           tenant_id text, timer_id uuid, requested_by text default current_user, fire_in interval default null,
           fire_at timestamptz default null, schedule jsonb default null
       ) returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers := minoots.lock_waiting(tenant_id, timer_id);
       begin
           perform minoots.check_moment(fire_in, fire_at, schedule, t.fire_at);
           if t.id is null then return false; end if;
           t := minoots.move_timer(t, fire_in, fire_at, schedule, false);
           perform minoots.keep_timer(t, 'timer.rescheduled', coalesce(requested_by, current_user));
           return true;
       end $$""",
    """comment on function minoots.reschedule_timer is
       'Give a timer another instant (of a recurring one: its next occurrence alone) or schedule. True when it is done, false when it is too late or there is none.'""",
    """create function minoots.fire_timer(tenant_id text, timer_id uuid, requested_by text default current_user)
       returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers := minoots.lock_waiting(tenant_id, timer_id);
       begin
           if char_length(coalesce(requested_by, current_user)) not between 1 and 200 then
               raise exception 'requested_by has 1 to 200 characters' using errcode = '22023';
           end if;
           if t.id is null then return false; end if;
           if t.schedule is not null then
               update minoots.timers x set extra_firings = x.extra_firings + 1 where x.id = t.id;
           else
               update minoots.timers x
                  set status = 'scheduled', fire_at = least(x.fire_at, minoots.now()), not_before = minoots.now(),
                      version = x.version + 1
                where x.id = t.id;
           end if;
           return true;
       end $$""",
    """comment on function minoots.fire_timer is
       'Fire a timer when you commit, by a kernel within a second; a recurring one beside its schedule. True when it will, false when it is too late or there is none.'""",
    """create function minoots.update_timer(
           tenant_id text,
           timer_id uuid,
           requested_by text default current_user,
           name text default null,
           fire_in interval default null,
           fire_at timestamptz default null,
           action_bundle jsonb default null,
           metadata jsonb default null,
           labels jsonb default null,
           agent_binding jsonb default null,
           schedule jsonb default null,
           clear text[] default '{}',
           if_version bigint default null
       ) returns boolean language plpgsql as $$
       #variable_conflict use_variable
       declare
           t minoots.timers := minoots.lock_waiting(tenant_id, timer_id);
           clearable text[] := array['name', 'action_bundle', 'metadata', 'labels', 'agent_binding', 'schedule'];
       begin
           clear := coalesce(clear, '{}');
           if not clear <@ clearable then
               raise exception 'there is no such field to clear' using errcode = '22023',
                   hint = 'clear takes name, action_bundle, metadata, labels, agent_binding, and schedule together with fire_in or fire_at';
           end if;
           if num_nonnulls(fire_in, fire_at, schedule) > 0 then
               perform minoots.check_moment(fire_in, fire_at, schedule, t.fire_at);
           end if;
           if t.id is null then return false; end if;
           perform minoots.check_version(t, if_version);
           if num_nonnulls(name, fire_in, fire_at, action_bundle, metadata, labels, agent_binding, schedule) = 0
              and clear = '{}' then return true; end if;
           if num_nonnulls(fire_in, fire_at, schedule) > 0 then
               t := minoots.move_timer(t, fire_in, fire_at, schedule, 'schedule' = any(clear));
           elsif 'schedule' = any(clear) and t.schedule is not null then
               raise exception 'the schedule cannot be taken away alone' using errcode = '22023', hint = 'give fire_in or fire_at with it';
           end if;
           t.name := coalesce(name, case when not 'name' = any(clear) then t.name end);
           t.action_bundle := coalesce(action_bundle, case when not 'action_bundle' = any(clear) then t.action_bundle end);
           t.metadata := coalesce(metadata, case when not 'metadata' = any(clear) then t.metadata end);
           t.labels := coalesce(labels, case when 'labels' = any(clear) then '{}' else t.labels end);
           t.agent_binding := coalesce(agent_binding, case when not 'agent_binding' = any(clear) then t.agent_binding end);
           perform minoots.keep_timer(t, 'timer.rescheduled', coalesce(requested_by, current_user));
           return true;
       end $$""",
    """comment on function minoots.update_timer is
       'Change a timer in place: what is given replaces, what clear names is taken away, the rest stays. True when it is done, false when it is too late or there is none.'""",
    """create function minoots.put_timer(
           tenant_id text,
           name text,
           requested_by text default current_user,
           fire_in interval default null,
           fire_at timestamptz default null,
           action_bundle jsonb default null,
           metadata jsonb default null,
           labels jsonb default '{}',
           agent_binding jsonb default null,
           traceparent text default null,
           schedule jsonb default null,
           if_version bigint default null
       ) returns uuid language plpgsql as $$
       #variable_conflict use_variable
       declare
           current_instant timestamptz := minoots.now();
           t minoots.timers;
           former minoots.timers;
       begin
           if name is null then
               raise exception 'name is required: a timer is put by its name' using errcode = '22023';
           end if;
           requested_by := coalesce(requested_by, current_user);
           labels := coalesce(labels, '{}');
           loop
               select x.* into t from minoots.timers x where x.tenant_id = tenant_id and x.unique_name = name
                  for no key update;
               perform minoots.check_version(t, if_version);
               if t.id is not null then
                   former := t;
                   t := minoots.move_timer(t, fire_in, fire_at, schedule, true);
                   t.requested_by := requested_by;
                   t.action_bundle := action_bundle;
                   t.metadata := metadata;
                   t.labels := labels;
                   t.agent_binding := agent_binding;
                   -- What says the same changes nothing.
                   if t is distinct from former then
                       perform minoots.keep_timer(t, 'timer.rescheduled', null);
                   end if;
                   return t.id;
               elsif if_version = 0 then
                   raise exception 'no timer that waits was made by this name' using errcode = '55000', hint = 'put it without a version';
               end if;
               perform minoots.check_moment(fire_in, fire_at, schedule, null);
               -- Somebody else may be first with the name: then it is replaced.
               insert into minoots.timers as x (tenant_id, name, requested_by, duration_ms, created_at, fire_at, metadata,
                                           labels, action_bundle, agent_binding, traceparent, schedule, is_named)
               values (tenant_id, name, requested_by,
                       case when fire_in is not null
                            then greatest(1, round(extract(epoch from current_instant + fire_in - current_instant) * 1000)) end,
                       current_instant, coalesce(fire_at, current_instant + fire_in), metadata, labels, action_bundle,
                       agent_binding, traceparent, minoots.schedule_of(schedule), true)
               on conflict do nothing
               returning x.* into t;
               if t.id is not null then
                   insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
                   select t.tenant_id, t.id, 'timer.scheduled', t.traceparent,
                          json_build_object('timer', minoots.timer_json(t))
                     from minoots.installation i where i.events;
                   insert into minoots.tenants values (t.tenant_id) on conflict do nothing;
                   return t.id;
               end if;
           end loop;
       end $$""",
    """comment on function minoots.put_timer is
       'Create the timer of this name, or replace the one that waits and was made so: everything is as it is given, and a schedule that is the same goes on undisturbed. Returns its id.'""",
]


def upgrade() -> None:
    for statement in (*PARTS, *SCHEDULE, *CHANGES):
        run(statement)


FORMER = [
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
]


def downgrade() -> None:
    for function in ("put_timer", "update_timer", "fire_timer", "reschedule_timer", "resume_timer", "pause_timer"):
        run(f"drop function minoots.{function}")
    run("drop function minoots.schedule_timer")
    for function in ("check_version", "lock_waiting", "keep_timer", "move_timer", "check_moment", "schedule_of"):
        run(f"drop function minoots.{function}")
    for statement in FORMER:
        run(statement)
