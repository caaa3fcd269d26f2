"""What answers ask of their timers: fire again later, or end the schedule. In the transaction that records them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from minoots.domain.outcome import Directive
from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey

# The firings are locked already. Of several answers for one timer, to cancel goes first, then the longest snooze.
#
# A timer that fires once is scheduled again, and has a further firing then. A recurring one fires next at that instant:
# what would have come before is left out, what comes after it stays. A timer that has ended meanwhile stays as it is.
_STEER = """
with asked as (
    select * from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::interval[])
        as a(timer_id, occurrence, action_id, lease_id, snooze)),
-- only whose lease still holds, as with every result
held as materialized (
    select a.timer_id, a.occurrence, a.action_id, a.snooze
      from asked a join minoots.deliveries d using (timer_id, occurrence, action_id)
     where d.lease_id = a.lease_id and d.status = 'pending'
       for no key update of d),
wanted as (
    select distinct on (timer_id) timer_id, occurrence, action_id, snooze is null as is_cancelled,
           least(minoots.now() + snooze, timestamptz '8999-12-31 00:00:00+00') as at
      from held order by timer_id, snooze desc nulls first, occurrence desc),
-- what is still to be sent of a firing stays as it was when it fired
kept as (
    update minoots.firings f
       set timer_shown = minoots.timer_as_fired(t, f)
      from wanted w join minoots.timers t on t.id = w.timer_id
     where not w.is_cancelled and t.schedule is null and t.status = 'fired' and t.occurrence = w.occurrence
       and f.timer_id = t.id and f.occurrence = t.occurrence and f.timer_shown is null),
again as (
    update minoots.timers t
       set status = 'scheduled', fire_at = w.at, not_before = null, version = t.version + 1,
           -- its name may be somebody else's by now, or another's that comes back in this statement
           is_named = t.is_named and w.nth = 1 and not exists (
               select from minoots.timers o where o.tenant_id = t.tenant_id and o.unique_name = t.name and o.id <> t.id)
      from (select w.*, row_number() over (partition by s.tenant_id, s.name order by s.id) as nth
              from wanted w join minoots.timers s on s.id = w.timer_id where s.status = 'fired') w
     where t.id = w.timer_id and not w.is_cancelled
       and t.schedule is null and t.status = 'fired' and t.occurrence = w.occurrence
 returning t.id, t.tenant_id, t.traceparent, w.action_id, 'timer.rescheduled' as kind, minoots.timer_json(t) as shown),
snoozed as (
    update minoots.timers t
       set fire_at = w.at, planned = q.left_over, planned_to = greatest(t.planned_to, w.at),
           -- what leaves the plan unfired leaves maxOccurrences something: the planner looks again where it ends
           plan_ends = t.plan_ends and q.gone = 0,
           not_before = w.at + t.jitter_ms * interval '1 ms', is_held = false, skip_to = null, version = t.version + 1
      from wanted w
      join minoots.timers s on s.id = w.timer_id
     cross join lateral (
           select count(*) filter (where p <= w.at) as gone,
                  -- of so many occurrences it is one
                  case when s.plan_ends and s.schedule ? 'maxOccurrences' and bool_and(p > w.at)
                       then trim_array(coalesce(array_agg(p order by p) filter (where p > w.at), '{}'), 1)
                       else coalesce(array_agg(p order by p) filter (where p > w.at), '{}') end as left_over
             from unnest(array_remove(array[s.fire_at] || s.planned::timestamptz[], null)) p) q
     where t.id = w.timer_id and not w.is_cancelled and t.version = s.version
       and t.schedule is not null and t.status in ('scheduled', 'paused')
 returning t.id, t.tenant_id, t.traceparent, w.action_id, 'timer.rescheduled' as kind, minoots.timer_json(t) as shown),
cancelled as (
    update minoots.timers t
       set status = 'cancelled', cancelled_at = minoots.now(), cancelled_by = 'receiver',
           cancel_reason = 'asked for by the answer to action ' || w.action_id, version = t.version + 1
      from wanted w
     where t.id = w.timer_id and w.is_cancelled and t.schedule is not null and t.status in ('scheduled', 'paused')
 returning t.id, t.tenant_id, t.traceparent, w.action_id, 'timer.cancelled' as kind, minoots.timer_json(t) as shown),
changed as (
    select * from again union all select * from snoozed union all select * from cancelled),
event as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select tenant_id, id, kind, traceparent,
           json_build_object('timer', shown, 'reason', 'asked for by the answer to action ' || action_id)
      from changed where (select events from minoots.installation))
select id, kind from changed
"""


@dataclass(frozen=True, slots=True)
class Steering:
    """What the answer to the attempt under this lease asks for."""

    key: DeliveryKey
    lease_id: UUID
    directive: Directive


async def steer(db: Database, connection: Connection, asked: Sequence[Steering]) -> dict[UUID, str]:
    """Do what is asked, before the results are written; the event of each timer that changed.

    Only after the firings were locked, so that no timer ends meanwhile for a firing of these.
    """
    rows = await connection.fetch(
        db.sql(_STEER),
        [one.key.timer_id for one in asked],
        [one.key.occurrence for one in asked],
        [one.key.action_id for one in asked],
        [one.lease_id for one in asked],
        [None if one.directive.cancel_schedule else one.directive.snooze for one in asked],
    )
    return {row["id"]: row["kind"] for row in rows}
