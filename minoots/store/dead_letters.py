"""Statements about what gave up: list it, count it, and open it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from minoots.domain.dead_letter import DeadLetter, Place, Wanted
from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey, key_columns

_letter = msgspec.json.Decoder(DeadLetter)

# A tenant's own, by the index deliveries_dead; $1 to $7 are what is wanted. What is not given bounds nothing, and is a
# bound of the index all the same: in a plan that is made once for all, `$7 is null or …` would be none.
_MEANT = """
      from minoots.deliveries d
     where d.tenant_id = $1 and d.dead_at is not null
       and ($2::uuid is null or d.timer_id = $2) and ($3::text is null or d.kind = $3)
       and ($4::text is null or d.lane = $4) and ($5::text is null or strpos(d.dead_reason, $5) > 0)
       and d.dead_at >= coalesce($6::timestamptz, '-infinity') and d.dead_at < coalesce($7::timestamptz, 'infinity')
"""

_SHOWN = """
select json_build_object(
           'tenantId', d.tenant_id, 'timerId', d.timer_id, 'occurrence', d.occurrence, 'actionId', d.action_id,
           'kind', d.kind, 'lane', d.lane, 'deadReason', d.dead_reason, 'deadAt', minoots.iso(d.dead_at),
           'attemptCount', d.attempt_count, 'lastAttempt', (
               select minoots.attempt_json(a) from minoots.attempts a
                where a.timer_id = d.timer_id and a.occurrence = d.occurrence and a.action_id = d.action_id
                order by a.attempt desc limit 1))::text, d.dead_at
"""

# The first comparison is for the index, the second for those that died at one instant.
_OLDER = """
       and d.dead_at <= coalesce($8::timestamptz, 'infinity')
       and ($8 is null or (d.dead_at, d.timer_id, d.occurrence, d.action_id) < ($8, $9::uuid, $10::int, $11::text))
     order by d.dead_at desc, d.timer_id desc, d.occurrence desc, d.action_id desc limit $12
"""

_YOUNGER = """
       and d.dead_at >= coalesce($8::timestamptz, '-infinity')
       and ($8 is null or (d.dead_at, d.timer_id, d.occurrence, d.action_id) > ($8, $9::uuid, $10::int, $11::text))
     order by d.dead_at, d.timer_id, d.occurrence, d.action_id limit $12
"""

_LIST = _SHOWN + _MEANT + _OLDER
_COUNT = "select count(*)" + _MEANT
_FIND = "select d.dead_at, d.timer_id, d.occurrence, d.action_id" + _MEANT + _YOUNGER

# In key order, as those who write results lock them; one that is gone was pruned.
_LOCK_FIRINGS = """
select from unnest($2::uuid[], $3::int[]) as m(timer_id, occurrence)
  join minoots.firings f using (timer_id, occurrence)
 where f.tenant_id = $1
 order by f.timer_id, f.occurrence for no key update of f
"""

_REDRIVE = """
with asked as (
    select k.timer_id, k.occurrence, k.action_id,
           greatest(minoots.now(), $5::timestamptz + (k.nth - 1) * $6::interval) as at
      from unnest($2::uuid[], $3::int[], $4::text[]) with ordinality as k(timer_id, occurrence, action_id, nth)),
-- with an action come the dead ones that joined in for it
meant as (
    select timer_id, occurrence, action_id, min(at) as at
      from (select * from asked
             union all
            select d.timer_id, d.occurrence, d.action_id, a.at
              from asked a
              join minoots.deliveries p using (timer_id, occurrence, action_id)
              join minoots.deliveries d on d.timer_id = a.timer_id and d.occurrence = a.occurrence
             where p.dead_at is not null and d.escalated_from is not null and d.position = p.position
               -- a, a~1, a~2
               and d.action_id collate "C" > p.action_id collate "C") every_one
     group by timer_id, occurrence, action_id),
-- its attempts are numbered on, its policy begins anew
opened as (
    update minoots.deliveries d
       set status = 'pending', next_attempt_at = m.at, opened_at = m.at, dead_at = null, dead_reason = null,
           delivered_at = null, lease_id = null, redrives = d.redrives + 1,
           charged_before = d.attempt_count - d.unknown_count, unknown_before = d.unknown_count, escalated_at = null,
           ack_outcome = null, ack_note = null, ack_result = null, ack_at = null, ack_deadline_at = null
      from meant m
     where d.timer_id = m.timer_id and d.occurrence = m.occurrence and d.action_id = m.action_id
       and d.tenant_id = $1 and d.status = 'dead'
       and exists (select from minoots.firings f where f.timer_id = d.timer_id and f.occurrence = d.occurrence)
 returning d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.position, minoots.delivery_json(d) as shown),
counted as (
    select timer_id, occurrence, count(*)::smallint as opened from opened group by timer_id, occurrence),
-- a firing that had failed goes on; one that goes on has more to wait for
firing as (
    update minoots.firings f
       set open_deliveries = f.open_deliveries + c.opened,
           dead_deliveries = greatest(f.dead_deliveries - c.opened, 0)::smallint,
           status = 'dispatching', settled_at = null
      from counted c
     where f.timer_id = c.timer_id and f.occurrence = c.occurrence
 returning f.tenant_id, f.timer_id, f.occurrence, f.is_scheduled is not null as recurs,
           minoots.firing_json(f) as shown),
running as (
    insert into minoots.open_firings (tenant_id, timer_id, occurrence)
    select tenant_id, timer_id, occurrence from firing where recurs
        on conflict do nothing),
timer as (
    update minoots.timers t
       set status = 'fired', settled_at = null, failure_reason = null, version = t.version + 1
      from firing f
     where t.id = f.timer_id and t.occurrence = f.occurrence and not f.recurs and t.status = 'failed'
 returning t.id, minoots.timer_json(t) as shown),
event as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select t.tenant_id, t.id, 'delivery.retrying', t.traceparent,
           json_build_object('timer', coalesce(c.shown, minoots.timer_json(t)), 'firing', f.shown, 'delivery', o.shown,
                             'reason', 'redriven')
      from opened o join firing f using (timer_id, occurrence)
      join minoots.timers t on t.id = o.timer_id left join timer c on c.id = o.timer_id
     where (select events from minoots.installation)
     order by o.timer_id, o.occurrence, o.position, o.action_id)
select from opened
"""

_STATUSES = """
select t.id is not null as is_timer, f.timer_id is not null as is_fired, d.status
  from unnest($2::uuid[], $3::int[], $4::text[]) with ordinality as k(timer_id, occurrence, action_id, nth)
  left join minoots.timers t on t.id = k.timer_id and t.tenant_id = $1
  left join minoots.firings f on f.timer_id = t.id and f.occurrence = k.occurrence
  left join minoots.deliveries d
    on d.timer_id = f.timer_id and d.occurrence = f.occurrence and d.action_id = k.action_id
 order by k.nth
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What there is of a delivery that was named. `status` is None when the firing has no such delivery."""

    is_timer: bool
    is_fired: bool
    status: str | None


async def list_dead(
    db: Database, connection: Connection, tenant_id: str, wanted: Wanted, after: Place | None, limit: int
) -> list[tuple[DeadLetter, datetime]]:
    """Dead letters, the newest first, after a place; each with its exact instant."""
    rows: list[Any] = await connection.fetch(db.sql(_LIST), *_meant(tenant_id, wanted), *_place(after), limit)
    return [(_letter.decode(row[0]), row[1]) for row in rows]


async def count_dead(db: Database, connection: Connection, tenant_id: str, wanted: Wanted) -> int:
    """How many there are."""
    count: int = await connection.fetchval(db.sql(_COUNT), *_meant(tenant_id, wanted))
    return count


async def find_dead(
    db: Database, connection: Connection, tenant_id: str, wanted: Wanted, after: Place | None, limit: int
) -> list[Place]:
    """The next to be opened again, the oldest first; not locked."""
    rows: list[Any] = await connection.fetch(db.sql(_FIND), *_meant(tenant_id, wanted), *_place(after), limit)
    return [Place(*row) for row in rows]


async def redrive(
    db: Database,
    connection: Connection,
    tenant_id: str,
    keys: Sequence[DeliveryKey],
    first_at: datetime,
    apart_s: float,
) -> int:
    """Open those of these deliveries that are dead, the first one due at `first_at`, each next one `apart_s` later.

    Nothing is due before now. How many were opened, with the dead escalations that belong to them.
    """
    columns = key_columns(keys)
    await connection.execute(db.sql(_LOCK_FIRINGS), tenant_id, *columns[:2])
    rows = await connection.fetch(db.sql(_REDRIVE), tenant_id, *columns, first_at, timedelta(seconds=apart_s))
    return len(rows)


async def read_standings(
    db: Database, connection: Connection, tenant_id: str, keys: Sequence[DeliveryKey]
) -> list[Standing]:
    """What there is of each of them, in their order."""
    rows: list[Any] = await connection.fetch(db.sql(_STATUSES), tenant_id, *key_columns(keys))
    return [Standing(*row) for row in rows]


def _meant(tenant_id: str, wanted: Wanted) -> tuple[str, UUID | None, *tuple[Any, ...]]:
    return tenant_id, wanted.timer_id, wanted.kind, wanted.lane, wanted.reason, wanted.since, wanted.until


def _place(after: Place | None) -> tuple[Any, ...]:
    return (None,) * 4 if after is None else (after.dead_at, after.timer_id, after.occurrence, after.action_id)
