"""The orchestrator's statements: find deliveries to take, lease them, renew, and make places free."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

from minoots.store.database import Connection, Database

# Whose time has come: 2 s after a firing nobody leased, the end of a lease, the instant of a retry.
_FIND_DUE = """
select timer_id, occurrence, action_id, position, gate from minoots.deliveries
 where next_attempt_at <= minoots.now() and status = 'pending'
 order by next_attempt_at limit $1
   for no key update skip locked
"""

# What a message tells of: only what was never leased, for everything else has an instant of its own.
_FIND_FIRED = """
select d.timer_id, d.occurrence, d.action_id, d.position, d.gate
  from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)
  join minoots.deliveries d using (timer_id, occurrence)
 where d.leased_at is null and d.next_attempt_at is not null and d.status = 'pending'
 order by d.timer_id, d.occurrence, d.position
   for no key update of d skip locked
"""

_LOCK_FIRINGS = """
select f.timer_id, f.occurrence from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)
  join minoots.firings f using (timer_id, occurrence)
   for no key update of f skip locked
"""

# After the firings are locked, so that nobody else takes or frees a place meanwhile.
_COUNT_LEASED = """
select d.timer_id, d.occurrence, count(*) as leased
  from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)
  join minoots.deliveries d using (timer_id, occurrence)
 where d.lease_id is not null and d.next_attempt_at > minoots.now()
 group by d.timer_id, d.occurrence
"""

_SET_NEXT = """
update minoots.deliveries d set next_attempt_at = case when $4 then minoots.now() end
  from unnest($1::uuid[], $2::int[], $3::text[]) as k(timer_id, occurrence, action_id)
 where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id
   and d.status = 'pending' and d.lease_id is null
"""

_LEASE = """
with taken as (
    select d.timer_id, d.occurrence, d.action_id, k.lease_id, d.lease_id as former, d.leased_at, d.leased_by,
           coalesce(b.bundle -> 'actions' -> d.position::int -> 'parameters', b.binding) as parameters,
           b.bundle -> 'retryPolicy' as retry_policy
      from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[]) as k(timer_id, occurrence, action_id, lease_id)
      join minoots.deliveries d using (timer_id, occurrence, action_id)
      join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = d.timer_id
      -- a recurring timer may have changed since: its firing keeps what it fired with
      cross join lateral (select coalesce(f.timer_shown::jsonb -> 'actionBundle', t.action_bundle) as bundle,
                                 coalesce(f.timer_shown::jsonb -> 'agentBinding', t.agent_binding) as binding) b),
-- a lease that ended without a record is an attempt whose outcome nobody knows
lost as (
    insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, outcome, error, node)
    select d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.attempt_count + 1, k.leased_at, 'unknown',
           'nobody recorded how this attempt ended', k.leased_by
      from taken k join minoots.deliveries d using (timer_id, occurrence, action_id)
     where k.former is not null
        on conflict do nothing),
leased as (
    update minoots.deliveries d
       set lease_id = k.lease_id, leased_by = $5, leased_at = minoots.now(),
           attempt_count = d.attempt_count + (k.former is not null)::int,
           unknown_count = d.unknown_count + (k.former is not null)::int,
           next_attempt_at = minoots.now()
               + (case when k.parameters ->> 'timeoutMs' ~ '^[0-9]{1,6}$' then (k.parameters ->> 'timeoutMs')::int
                       else $6 end + $7) * interval '1 ms'
      from taken k
     where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id
       and d.status = 'pending'
 returning d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.kind, d.lane, d.gate, d.lease_id, d.attempt_count,
           d.unknown_count, k.parameters, k.retry_policy)
select l.tenant_id, l.timer_id, l.occurrence, l.action_id, l.kind, l.lane, l.gate, l.lease_id, l.attempt_count,
       l.unknown_count, l.parameters::text, l.retry_policy::text,
       minoots.now() - f.fired_at as age, minoots.timer_as_fired(t, f)::text as timer,
       minoots.firing_as_fired(f)::text as firing, f.event_id, minoots.iso(f.fired_at) as fired_at, t.traceparent
  from leased l join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = l.timer_id
"""

# A delivery whose timer or firing somebody removed: nobody could ever run it.
_ABANDON = """
update minoots.deliveries d
   set status = 'dead', dead_at = minoots.now(), dead_reason = 'its timer is gone', next_attempt_at = null,
       lease_id = null
  from unnest($1::uuid[], $2::int[], $3::text[]) as k(timer_id, occurrence, action_id)
 where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id and d.status = 'pending'
"""

_POSTPONE = """
update minoots.deliveries d set next_attempt_at = minoots.now() + interval '1 minute'
 where (d.timer_id, d.occurrence, d.action_id) in (
     select timer_id, occurrence, action_id from minoots.deliveries
      where next_attempt_at <= minoots.now() and status = 'pending'
      order by next_attempt_at limit 1 for no key update skip locked)
returning d.timer_id, d.occurrence, d.action_id
"""

_RENEW = """
update minoots.deliveries d set next_attempt_at = greatest(d.next_attempt_at, minoots.now() + k.span)
  from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::interval[])
       as k(timer_id, occurrence, action_id, lease_id, span)
 where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id and d.lease_id = k.lease_id
"""

_SECONDS_TO_NEXT = """
select extract(epoch from next_attempt_at - minoots.now())::float8 from minoots.deliveries
 where next_attempt_at is not null order by next_attempt_at limit 1
"""


class DeliveryKey(NamedTuple):
    """Which delivery."""

    timer_id: UUID
    occurrence: int
    action_id: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that this transaction has locked. `gate`: how many of its firing may be under way at once."""

    key: DeliveryKey
    position: int
    gate: int | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one attempt and to write how it ended; with everything the attempt sends.

    `parameters`, `retry_policy`, `timer` and `firing` are JSON text. `age` is the firing's.
    """

    tenant_id: str
    key: DeliveryKey
    kind: str
    lane: str
    gate: int | None
    lease_id: UUID
    attempt_count: int
    unknown_count: int
    parameters: str | None
    retry_policy: str | None
    age: timedelta
    timer: str
    firing: str
    event_id: UUID
    fired_at: str
    traceparent: str | None


async def find_due(db: Database, connection: Connection, limit: int) -> list[Candidate]:
    """Lock deliveries whose `next_attempt_at` has passed, the longest due first."""
    rows = await connection.fetch(db.sql(_FIND_DUE), limit)
    return [Candidate(DeliveryKey(*row[:3]), row[3], row[4]) for row in rows]


async def find_fired(db: Database, connection: Connection, firings: Collection[tuple[UUID, int]]) -> list[Candidate]:
    """Lock the deliveries of these firings that were never leased, in the bundle's order."""
    rows = await connection.fetch(db.sql(_FIND_FIRED), [f[0] for f in firings], [f[1] for f in firings])
    return [Candidate(DeliveryKey(*row[:3]), row[3], row[4]) for row in rows]


async def lock_places(
    db: Database, connection: Connection, firings: Collection[tuple[UUID, int]]
) -> dict[tuple[UUID, int], int]:
    """Lock these firings and count their leased deliveries; those that somebody else holds are left out."""
    locked = await connection.fetch(db.sql(_LOCK_FIRINGS), [f[0] for f in firings], [f[1] for f in firings])
    places = {(row[0], row[1]): 0 for row in locked}
    for row in await connection.fetch(db.sql(_COUNT_LEASED), [k[0] for k in places], [k[1] for k in places]):
        places[(row[0], row[1])] = row[2]
    return places


async def set_next(db: Database, connection: Connection, keys: Sequence[DeliveryKey], *, is_due: bool) -> None:
    """Make unleased deliveries due now, or let them wait for a place (no instant at all)."""
    await connection.execute(db.sql(_SET_NEXT), *_columns(keys), is_due)


async def lease(
    db: Database, connection: Connection, keys: Sequence[DeliveryKey], lease_ids: Sequence[UUID], node: str, *,
    timeout_ms: int, margin_ms: int
) -> list[Lease]:  # fmt: skip
    """Lease what this transaction has locked, for the action's time-out (else `timeout_ms`) and a margin."""
    rows = await connection.fetch(db.sql(_LEASE), *_columns(keys), list(lease_ids), node, timeout_ms, margin_ms)
    return [Lease(row[0], DeliveryKey(*row[1:4]), *row[4:]) for row in rows]


async def abandon(db: Database, connection: Connection, keys: Sequence[DeliveryKey]) -> None:
    """End deliveries whose timer or firing is gone."""
    await connection.execute(db.sql(_ABANDON), *_columns(keys))


async def postpone_first(db: Database, connection: Connection) -> DeliveryKey | None:
    """Put the delivery that is due the longest off by a minute: it cannot be leased as it is."""
    row = await connection.fetchrow(db.sql(_POSTPONE))
    return None if row is None else DeliveryKey(*row)


async def renew(db: Database, connection: Connection, leases: Sequence[tuple[Lease, timedelta]]) -> None:
    """Move the end of leases that are still held to at least so far from now."""
    await connection.execute(
        db.sql(_RENEW),
        *_columns([held.key for held, _ in leases]),
        [held.lease_id for held, _ in leases],
        [span for _, span in leases],
    )


async def seconds_to_next(db: Database, connection: Connection) -> float | None:
    """Seconds until the next delivery is due, negative when one is; None when none waits."""
    seconds: float | None = await connection.fetchval(db.sql(_SECONDS_TO_NEXT))
    return seconds


def _columns(keys: Sequence[DeliveryKey]) -> tuple[list[UUID], list[int], list[str]]:
    return [k.timer_id for k in keys], [k.occurrence for k in keys], [k.action_id for k in keys]
