"""Statements about recurring timers: what the kernel has to know of them, and the one that moves them on."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import uuid_utils

from minoots.domain.recurrence import Recurring, Step
from minoots.store.database import Connection, Database

# Enough to decide whether a claimed one fires: no schedule is read in the transaction of a claim.
_READ_CLAIMED = """
select t.id, t.version, t.status, t.fire_at, t.planned[1:1] as planned, t.planned_to, t.plan_ends, t.jitter_ms, t.runs,
       t.created_at, t.extra_firings, t.is_held, t.skip_to, t.not_before,
       t.planned_for, coalesce(t.schedule ->> 'whileRunning', 'allow') as while_running,
       exists (select from minoots.open_firings o where o.timer_id = t.id) as is_running, minoots.now() as now,
       null::timestamptz as free_at, '' as schedule, null::bigint as schedule_hash
  from minoots.timers t where t.id = any($1::uuid[])
"""

_READ_WHOLE = """
select t.id, t.version, t.status, t.fire_at, t.planned, t.planned_to, t.plan_ends, t.jitter_ms, t.runs, t.created_at,
       t.extra_firings, t.is_held, t.skip_to, t.not_before, t.planned_for,
       coalesce(t.schedule ->> 'whileRunning', 'allow') as while_running,
       exists (select from minoots.open_firings o where o.timer_id = t.id) as is_running, minoots.now() as now,
       (select max(f.settled_at) from minoots.firings f
         where f.timer_id = t.id and f.occurrence > t.occurrence - 10) as free_at,
       t.schedule::text as schedule, jsonb_hash_extended(t.schedule, 0) as schedule_hash
  from minoots.timers t where t.id = any($1::uuid[]) and t.schedule is not null and t.status in ('scheduled', 'paused')
"""

# One statement moves timers on, fires occurrences and tells what was missed. A row that has changed since it was read
# stays as it is: somebody else was first.
_MOVE = """
with asked as (
    select * from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::int[], $5::text[], $6::timestamptz[],
                         $7::boolean[], $8::boolean[], $9::int[], $10::int[], $11::bigint[], $12::timestamptz[],
                         $13::timestamptz[], $14::text[], $15::int[], $16::int[], $23::bigint[], $24::text[])
        as a(id, version, planned_from, gone, added, planned_to, ends, is_held, firings, runs, missed, missed_from,
             missed_to, reason, jitter_ms, extra, planned_for, canonical)),
-- the instants that are left, the next one first
left_over as (
    select a.*, (case when t.fire_at is null then '{}' else array[t.fire_at] end || t.planned)[a.gone + 1:]
                || a.added::timestamptz[] as queue,
           a.gone > 0 or t.fire_at is null as is_next_new
      from asked a join minoots.timers t using (id)),
-- the timer moves on
moved as (
    update minoots.timers t
       set fire_at = l.queue[1], planned = l.queue[2:],
           not_before = case when l.is_next_new
               then greatest(l.queue[1] + coalesce(l.jitter_ms, t.jitter_ms) * interval '1 ms', minoots.now())
               else t.not_before end,
           planned_to = coalesce(l.planned_to, t.planned_to), plan_ends = coalesce(l.ends, t.plan_ends),
           jitter_ms = coalesce(l.jitter_ms, t.jitter_ms), is_held = l.is_held,
           skip_to = case when l.is_held then t.skip_to end,
           schedule = coalesce(l.canonical::jsonb, t.schedule),
           planned_for = coalesce(jsonb_hash_extended(l.canonical::jsonb, 0), l.planned_for, t.planned_for),
           extra_firings = greatest(0, t.extra_firings - l.extra), occurrence = t.occurrence + l.firings,
           runs = t.runs + l.runs, missed = t.missed + l.missed,
           fired_at = case when l.firings > 0 then minoots.now() else t.fired_at end,
           -- a plan that only grows is nobody's change
           version = t.version + (l.firings > 0 or l.missed > 0 or l.is_next_new)::int
      from left_over l
     where t.id = l.id and t.version = l.version and t.planned_to is not distinct from l.planned_from
       and t.status in ('scheduled', 'paused')
       -- and still of the schedule that was read
       and (l.planned_for is null or jsonb_hash_extended(t.schedule, 0) = l.planned_for)
 returning t.id, t.tenant_id, t.occurrence, t.version, t.action_bundle, t.agent_binding, t.traceparent, t.plan_ends,
           cardinality(t.planned) as ahead, t.is_held, l.firings, l.missed, l.missed_from, l.missed_to, l.reason,
           minoots.timer_json(t) as shown),
fired as (
    select m.id, m.tenant_id, m.occurrence - m.firings + c.nth as occurrence, m.version, m.action_bundle,
           m.agent_binding, m.traceparent, m.shown, c.nominal_at, c.due_at, c.is_scheduled, c.event_id
      from unnest($17::uuid[], $18::int[], $19::timestamptz[], $20::timestamptz[], $21::boolean[], $22::uuid[])
               as c(id, nth, nominal_at, due_at, is_scheduled, event_id)
      join moved m using (id)
     -- an instant that somebody put back into the plan has fired all the same
     where not (c.is_scheduled and exists (
         select from minoots.firings x where x.timer_id = c.id and x.nominal_at = c.nominal_at and x.is_scheduled))),
-- its actions in the bundle's order; an agent binding without an agent action is one more, `agent`
action as (
    select f.id, f.occurrence, a.value ->> 'id' as action_id, a.nth - 1 as position, a.value ->> 'kind' as kind,
           case when a.value ->> 'kind' = 'agent_prompt' and not a.value -> 'parameters' ? 'target'
                then coalesce(f.agent_binding::jsonb, a.value -> 'parameters') else a.value -> 'parameters' end
               as parameters
      from fired f, jsonb_array_elements(f.action_bundle -> 'actions') with ordinality as a(value, nth)
     where f.action_bundle is not null
     union all
    select f.id, f.occurrence, 'agent', coalesce(jsonb_array_length(f.action_bundle -> 'actions'), 0), 'agent_prompt',
           f.agent_binding
      from fired f
     where f.agent_binding is not null
       and not coalesce(f.action_bundle @? '$.actions[*] ? (@.kind == "agent_prompt")', false)),
counted as (
    select id, occurrence, count(*)::smallint as actions from action group by id, occurrence),
firing as (
    insert into minoots.firings as x (tenant_id, timer_id, occurrence, status, nominal_at, due_at, settled_at,
                                 open_deliveries, timer_version, event_id, is_scheduled, timer_shown)
    select f.tenant_id, f.id, f.occurrence, case when n.actions is null then 'settled' else 'dispatching' end,
           f.nominal_at, f.due_at, case when n.actions is null then minoots.now() end, coalesce(n.actions, 0),
           f.version, f.event_id, f.is_scheduled, f.shown
      from fired f left join counted n using (id, occurrence)
 returning x.timer_id, x.occurrence, minoots.firing_json(x) as shown),
open as (
    insert into minoots.open_firings (tenant_id, timer_id, occurrence)
    select f.tenant_id, f.id, f.occurrence from fired f join counted using (id, occurrence)),
-- as many as may be under way at once are due in 2 s, for whoever has no message; without events, now
delivery as (
    insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, position, kind, lane, gate,
                               next_attempt_at)
    select f.tenant_id, f.id, f.occurrence, a.action_id, a.position, a.kind, minoots.lane_of(a.kind, a.parameters),
           case when n.actions > g.gate then g.gate end,
           case when a.position < g.gate
                then minoots.now() + case when i.events then interval '2 s' else interval '0' end end
      from fired f join action a using (id, occurrence) join counted n using (id, occurrence)
      cross join minoots.installation i
      cross join lateral (select coalesce((f.action_bundle ->> 'concurrency')::smallint, 1::smallint)) as g(gate)),
event as (
    insert into minoots.outbox (tenant_id, timer_id, event_id, kind, traceparent, data)
    select tenant_id, id, event_id, kind, traceparent, data
      from (select tenant_id, id, minoots.uuid7() as event_id, 'timer.missed' as kind, traceparent, 0 as occurrence,
                   json_build_object('timer', shown, 'missed', json_build_object(
                       'from', minoots.iso(missed_from), 'to', minoots.iso(missed_to), 'count', missed,
                       'reason', reason)) as data
              from moved where missed > 0
             union all
            select f.tenant_id, f.id, f.event_id, 'timer.fired', f.traceparent, f.occurrence,
                   json_build_object('timer', f.shown, 'firing', x.shown)
              from fired f join firing x on x.timer_id = f.id and x.occurrence = f.occurrence) told
     where (select events from minoots.installation)
     order by id, occurrence)
select id, ahead, plan_ends, is_held from moved
"""

# What needs the planner, a page of it. What waits for a firing to end is told apart: it must hide nothing behind it.
_FIND_ATTENTION = """
select t.id, t.version, t.attention,
       (t.attention = 'ending' or (t.attention = 'held' and t.schedule ->> 'whileRunning' in ('queue', 'skip')))
       and exists (select from minoots.open_firings o where o.timer_id = t.id) as waits
  from minoots.timers t
 where t.attention is not null and (t.attention, t.id) > ($1, $2)
 order by t.attention, t.id limit $3
"""

# Rows that somebody holds are left for later: they must not keep the others waiting.
_LOCK_FREE = """
select id from minoots.timers where id = any($1::uuid[]) order by id for no key update skip locked
"""

_END = """
with ended as (
    update minoots.timers t
       set status = case when f.status = 'failed' then 'failed' else 'settled' end, settled_at = minoots.now(),
           failure_reason = case when f.status = 'failed' then 'its last firing failed' end,
           version = case when t.version < 9223372036854775807 then t.version + 1 else t.version end
      from unnest($1::uuid[], $2::bigint[]) as a(id, version)
      left join lateral (select x.status from minoots.firings x where x.timer_id = a.id
                          order by x.occurrence desc limit 1) f on true
     where t.id = a.id and t.version = a.version and t.attention = 'ending'
 returning t.id, t.tenant_id, t.traceparent, t.status, minoots.timer_json(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select tenant_id, id, 'timer.' || status, traceparent,
           json_build_object('timer', shown, 'reason', 'its schedule has ended')
      from ended where (select events from minoots.installation))
select count(*) from ended
"""

_FAIL = """
with failed as (
    update minoots.timers t
       set status = 'failed', settled_at = minoots.now(), failure_reason = left($3, 1000),
           version = case when t.version < 9223372036854775807 then t.version + 1 else t.version end
     where t.id = $1 and t.version = $2 and t.schedule is not null and t.status in ('scheduled', 'paused')
 returning t.id, t.tenant_id, t.traceparent, minoots.timer_json(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select tenant_id, id, 'timer.failed', traceparent, json_build_object('timer', shown, 'reason', left($3, 1000))
      from failed where (select events from minoots.installation))
select count(*) from failed
"""

_LOCK = """
select true from minoots.timers
 where id = $2 and tenant_id = $1 and schedule is not null and status in ('scheduled', 'paused') for no key update
"""


class Moved(NamedTuple):
    """A timer that moved on: how many instants are planned behind its next one."""

    id: UUID
    ahead: int
    plan_ends: bool
    is_held: bool


class Attention(NamedTuple):
    """A recurring timer that needs the planner, and why: extra, changed, held, ending or unplanned.

    `waits`: for a firing that has not ended.
    """

    id: UUID
    version: int
    attention: str
    waits: bool


async def read_claimed(db: Database, connection: Connection, timer_ids: Sequence[UUID]) -> list[Recurring]:
    """What this transaction has claimed, with the next instant and the one after it."""
    return [_recurring(row) for row in await connection.fetch(db.sql(_READ_CLAIMED), timer_ids)]


async def read_whole(db: Database, connection: Connection, timer_ids: Sequence[UUID]) -> list[Recurring]:
    """Those of these timers that recur and have not ended, with their schedules and plans; not locked."""
    return [_recurring(row) for row in await connection.fetch(db.sql(_READ_WHOLE), timer_ids)]


async def move(db: Database, connection: Connection, steps: Sequence[tuple[Recurring, Step]]) -> list[Moved]:
    """Take each its step, if it is still as it was read: those that moved."""
    fired = [(t.id, nth, o) for t, step in steps for nth, o in enumerate(step.fire, start=1)]
    rows = await connection.fetch(
        db.sql(_MOVE),
        [t.id for t, _ in steps],
        [t.version for t, _ in steps],
        [t.planned_to for t, _ in steps],
        [s.drop for _, s in steps],
        ["{" + ",".join(i.isoformat() for i in s.add) + "}" for _, s in steps],
        [s.planned_to for _, s in steps],
        [s.ends for _, s in steps],
        [s.is_held for _, s in steps],
        [len(s.fire) for _, s in steps],
        [sum(o.is_scheduled for o in s.fire) for _, s in steps],
        [s.missed.count if s.missed else 0 for _, s in steps],
        [s.missed.first if s.missed else None for _, s in steps],
        [s.missed.last if s.missed else None for _, s in steps],
        [s.missed.reason if s.missed else None for _, s in steps],
        [s.jitter_ms for _, s in steps],
        [s.extra for _, s in steps],
        [timer_id for timer_id, _, _ in fired],
        [nth for _, nth, _ in fired],
        [o.nominal_at for _, _, o in fired],
        [o.due_at for _, _, o in fired],
        [o.is_scheduled for _, _, o in fired],
        [UUID(int=uuid_utils.uuid7().int) for _ in fired],
        [t.schedule_hash for t, _ in steps],
        [s.canonical for _, s in steps],
    )
    return [Moved(*row) for row in rows]


async def find_attention(db: Database, connection: Connection, after: Attention | None, limit: int) -> list[Attention]:
    """Up to `limit` that need the planner, behind the one where the last look ended."""
    rows = await connection.fetch(
        db.sql(_FIND_ATTENTION), after.attention if after else "", after.id if after else UUID(int=0), limit
    )
    return [Attention(*row) for row in rows]


async def lock_free(db: Database, connection: Connection, timer_ids: Sequence[UUID]) -> set[UUID]:
    """Lock those of them that nobody else has locked; which."""
    return {row["id"] for row in await connection.fetch(db.sql(_LOCK_FREE), timer_ids)}


async def end_timers(db: Database, connection: Connection, ending: Sequence[Attention]) -> int:
    """End those whose schedule is used up and of which nothing is open: how many."""
    ended: int = await connection.fetchval(db.sql(_END), [a.id for a in ending], [a.version for a in ending])
    return ended


async def fail_timer(db: Database, connection: Connection, timer_id: UUID, version: int, reason: str) -> bool:
    """End a timer whose schedule nobody can read, with its event; False when it has changed since."""
    failed: int = await connection.fetchval(db.sql(_FAIL), timer_id, version, reason)
    return failed > 0


async def lock_timer(db: Database, connection: Connection, tenant_id: str, timer_id: UUID) -> Recurring | None:
    """Lock a recurring timer that has not ended, for a firing beside its schedule; None when there is none."""
    if not await connection.fetchval(db.sql(_LOCK), tenant_id, timer_id):
        return None
    # A statement of its own: only its snapshot surely has what the last holder of the lock wrote.
    return (await read_claimed(db, connection, [timer_id]))[0]


def _recurring(row: Any) -> Recurring:
    fire_at: datetime | None = row["fire_at"]
    return Recurring(
        id=row["id"],
        version=row["version"],
        status=row["status"],
        queue=[] if fire_at is None else [fire_at, *row["planned"]],
        planned_to=row["planned_to"],
        plan_ends=row["plan_ends"],
        jitter=timedelta(milliseconds=row["jitter_ms"]),
        runs=row["runs"],
        while_running=row["while_running"],
        is_running=row["is_running"],
        created_at=row["created_at"],
        now=row["now"],
        is_held=row["is_held"],
        skip_to=row["skip_to"],
        not_before=row["not_before"],
        planned_for=row["planned_for"],
        schedule_hash=row["schedule_hash"],
        extra_firings=row["extra_firings"],
        free_at=row["free_at"],
        schedule=row["schedule"],
    )
