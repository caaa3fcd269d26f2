"""Statements that change timers which wait, and those that make recurring and named ones. An open connection first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from minoots.domain.change import Change, Kept, Timing
from minoots.domain.timer import NewTimer, Timer
from minoots.store.database import Connection, Database

_timer = msgspec.json.Decoder(Timer)

# Not locked: what is written on the strength of it is fenced.
_READ = """
select t.id, t.version, t.runs, minoots.now() as now, t.status, t.duration_ms, t.fire_at, t.schedule::text as schedule,
       t.planned, t.planned_to, t.plan_ends, t.jitter_ms, t.is_held, minoots.timer_json(t)::text as shown
  from minoots.timers t where t.tenant_id = $1 and t.id = $2
"""

_FIND_NAMED = "select t.id from minoots.timers t where t.tenant_id = $1 and t.unique_name = $2"

# A row that is not as it was read stays as it is: somebody else was first. A plan grows without another version, so its
# end is looked at as well. What fires from now on is never due before now.
_CHANGE = """
with asked as (
    select $5::text::jsonb as f, $6::boolean as is_timed, $7::text as status, $8::bigint as duration_ms,
           $9::timestamptz as fire_at, $10::text::jsonb as schedule, $11::timestamptz[] as planned,
           $12::timestamptz as planned_to, $13::boolean as plan_ends, $14::int as jitter_ms, $15::boolean as is_held,
           coalesce($16::bigint, 0) as missed),
changed as (
    update minoots.timers t
       set name = case when f ? 'name' then f ->> 'name' else t.name end,
           requested_by = case when f ? 'requested_by' then f ->> 'requested_by' else t.requested_by end,
           labels = case when f ? 'labels' then (f ->> 'labels')::jsonb else t.labels end,
           metadata = case when f ? 'metadata' then (f ->> 'metadata')::jsonb else t.metadata end,
           action_bundle = case when f ? 'action_bundle' then (f ->> 'action_bundle')::jsonb else t.action_bundle end,
           agent_binding = case when f ? 'agent_binding' then (f ->> 'agent_binding')::jsonb else t.agent_binding end,
           status = case when is_timed then a.status else t.status end,
           duration_ms = case when is_timed then a.duration_ms else t.duration_ms end,
           fire_at = case when is_timed then a.fire_at else t.fire_at end,
           schedule = case when is_timed then a.schedule else t.schedule end,
           planned = case when is_timed then a.planned else t.planned end,
           planned_to = case when is_timed then a.planned_to else t.planned_to end,
           plan_ends = case when is_timed then a.plan_ends else t.plan_ends end,
           jitter_ms = case when is_timed then a.jitter_ms else t.jitter_ms end,
           is_held = case when is_timed then a.is_held else t.is_held end,
           skip_to = case when is_timed then null else t.skip_to end,
           planned_for = case when is_timed then jsonb_hash_extended(a.schedule, 0) else t.planned_for end,
           not_before = case when is_timed
               then greatest(case when a.jitter_ms > 0 then a.fire_at + a.jitter_ms * interval '1 ms' end,
                             minoots.now())
               else t.not_before end,
           extra_firings = case when is_timed and a.schedule is null then 0 else t.extra_firings end,
           missed = t.missed + a.missed,
           failures = case when is_timed and a.status <> t.status then 0 else t.failures end,
           version = t.version + 1
      from asked a
     where t.id = $2 and t.tenant_id = $1 and t.version = $3 and t.planned_to is not distinct from $4::timestamptz
       and t.status in ('scheduled', 'paused')
 returning t.id, t.traceparent, minoots.timer_json(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select $1, id, kind, traceparent, data
      from (select id, 0 as place, $20::text as kind, traceparent,
                   json_build_object('timer', shown, 'reason', 'requested by ' || $21::text) as data
              from changed
             union all
            select id, 1, 'timer.missed', traceparent,
                   json_build_object('timer', shown, 'missed', json_build_object(
                       'from', minoots.iso($17::timestamptz), 'to', minoots.iso($18::timestamptz),
                       'count', $16::bigint, 'reason', $19::text))
              from changed where $16::bigint > 0) told
     where (select events from minoots.installation)
     order by place)
select shown::text from changed
"""

# Made by name: nothing comes back when another that waits has the name.
_INSERT = """
with asked as (
    select * from unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[], $7::text[], $8::text[],
                         $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
                         $15::boolean[], $16::int[])
      with ordinality as a(id, name, requested_by, duration_ms, fire_at, metadata, labels, action_bundle,
                           agent_binding, traceparent, schedule, planned, planned_to, plan_ends, jitter_ms, nth)),
made as (
    insert into minoots.timers as t (id, tenant_id, name, requested_by, duration_ms, created_at, fire_at, metadata,
                                labels, action_bundle, agent_binding, traceparent, schedule, planned, planned_to,
                                plan_ends, jitter_ms, planned_for, not_before, is_named)
    select id, $1, name, requested_by, duration_ms, minoots.now(),
           coalesce(fire_at, minoots.now() + duration_ms * interval '1 ms'), metadata::jsonb, labels::jsonb,
           action_bundle::jsonb, agent_binding::jsonb, traceparent, schedule::jsonb, planned::timestamptz[],
           planned_to, plan_ends, jitter_ms, jsonb_hash_extended(schedule::jsonb, 0),
           case when jitter_ms > 0 then fire_at + jitter_ms * interval '1 ms' end,
           $17
      from asked order by nth
        on conflict (tenant_id, unique_name) where unique_name is not null do nothing
 returning t.id, t.traceparent, minoots.timer_json(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select $1, id, 'timer.scheduled', traceparent, json_build_object('timer', shown) from made
     where (select events from minoots.installation))
select shown::text from made join asked using (id) order by nth
"""

_LOCK = """
select status, schedule is not null as recurs, version from minoots.timers
 where tenant_id = $1 and id = $2 for no key update
"""

_MAKE_DUE = """
update minoots.timers
   set status = 'scheduled', fire_at = least(fire_at, minoots.now()), not_before = minoots.now()
 where tenant_id = $1 and id = $2 and schedule is null and status in ('scheduled', 'paused')
returning due_at
"""


async def read_timer(db: Database, connection: Connection, tenant_id: str, timer_id: UUID) -> tuple[Kept, Timer] | None:
    """The timer as it is now, to decide on and to show; None when this tenant has none of that id."""
    row = await connection.fetchrow(db.sql(_READ), tenant_id, timer_id)
    return None if row is None else (_kept(row), _timer.decode(row["shown"]))


async def find_named(db: Database, connection: Connection, tenant_id: str, name: str) -> UUID | None:
    """The timer that waits and was made by this name."""
    found: UUID | None = await connection.fetchval(db.sql(_FIND_NAMED), tenant_id, name)
    return found


async def change_timer(
    db: Database, connection: Connection, tenant_id: str, kept: Kept, change: Change, requested_by: str | None
) -> Timer | None:
    """Write the change with its events; None when the timer is no longer as it was read. Raises NameTaken."""
    timing, missed = change.timing, change.missed
    text = await connection.fetchval(
        db.sql(_CHANGE),
        tenant_id,
        kept.id,
        kept.version,
        kept.timing.planned_to,
        msgspec.json.encode(change.fields or {}).decode(),
        timing is not None,
        *_columns(timing or kept.timing),
        missed.count if missed else None,
        missed.first if missed else None,
        missed.last if missed else None,
        missed.reason if missed else None,
        f"timer.{change.kind}",
        requested_by,
    )
    return None if text is None else _timer.decode(text)


def _columns(timing: Timing) -> tuple[Any, ...]:
    return (
        timing.status,
        timing.duration_ms,
        timing.fire_at,
        timing.schedule,
        list(timing.planned),
        timing.planned_to,
        timing.plan_ends,
        timing.jitter_ms,
        timing.is_held,
    )


async def insert_planned(
    db: Database,
    connection: Connection,
    tenant_id: str,
    new: Sequence[tuple[UUID, NewTimer, Timing | None]],
    *,
    is_named: bool = False,
) -> list[Timer]:
    """Insert timers of which some recur, or one that is named, with their events; answers in the order given.

    Those that recur come with their plan. A name that another timer has leaves its timer out.
    """
    timings = [timing or Timing("scheduled", n.duration_ms, n.fire_at) for _, n, timing in new]
    rows = await connection.fetch(
        db.sql(_INSERT),
        tenant_id,
        [timer_id for timer_id, _, _ in new],
        [n.name for _, n, _ in new],
        [n.requested_by for _, n, _ in new],
        [t.duration_ms for t in timings],
        [t.fire_at for t in timings],
        [n.metadata for _, n, _ in new],
        [n.labels for _, n, _ in new],
        [n.action_bundle for _, n, _ in new],
        [n.agent_binding for _, n, _ in new],
        [n.traceparent for _, n, _ in new],
        [t.schedule for t in timings],
        ["{" + ",".join(instant.isoformat() for instant in t.planned) + "}" for t in timings],
        [t.planned_to for t in timings],
        [t.plan_ends for t in timings],
        [t.jitter_ms for t in timings],
        is_named,
    )
    return [_timer.decode(row[0]) for row in rows]


async def lock_timer(
    db: Database, connection: Connection, tenant_id: str, timer_id: UUID
) -> tuple[str, bool, int] | None:
    """Lock the timer: its status, whether it recurs, its version. None when this tenant has none of that id."""
    row = await connection.fetchrow(db.sql(_LOCK), tenant_id, timer_id)
    return None if row is None else (row["status"], row["recurs"], row["version"])


async def make_due(db: Database, connection: Connection, tenant_id: str, timer_id: UUID) -> datetime | None:
    """Let a locked timer that fires once be due now, whenever it was to fire: its due instant; None when it cannot."""
    due_at: datetime | None = await connection.fetchval(db.sql(_MAKE_DUE), tenant_id, timer_id)
    return due_at


def _kept(row: Any) -> Kept:
    return Kept(
        id=row["id"],
        version=row["version"],
        runs=row["runs"],
        now=row["now"],
        timing=Timing(
            status=row["status"],
            duration_ms=row["duration_ms"],
            fire_at=row["fire_at"],
            schedule=row["schedule"],
            planned=row["planned"],
            planned_to=row["planned_to"],
            plan_ends=row["plan_ends"],
            jitter_ms=row["jitter_ms"],
            is_held=row["is_held"],
        ),
    )
