"""The orchestrator's statements: find deliveries to take, lease them, renew, and make places free."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from minoots.store.database import Connection, Database
from minoots.store.lanes import LaneKey

# Whose time has come: 2 s after a firing nobody leased, the end of a lease, the instant of a retry. Of each lane no
# more than it has room for, from its mark on: what was claimed before that is not walked again.
_FIND_DUE = """
select d.timer_id, d.occurrence, d.action_id, d.position, d.gate, k.tenant_id, k.lane, d.next_attempt_at, d.was_leased
  from unnest($1::text[], $2::text[], $3::timestamptz[], $4::int[]) as k(tenant_id, lane, mark, room)
 cross join lateral (
       select timer_id, occurrence, action_id, position, gate, next_attempt_at, lease_id is not null as was_leased
         from minoots.deliveries x
        where x.tenant_id = k.tenant_id and x.lane = k.lane and x.next_attempt_at >= k.mark
          and x.next_attempt_at <= minoots.now() and x.next_attempt_at is not null and x.status = 'pending'
        order by x.next_attempt_at limit k.room
          for no key update skip locked) d
"""

# What a message tells of: only what was never leased, for everything else has an instant of its own.
_FIND_FIRED = """
select d.timer_id, d.occurrence, d.action_id, d.position, d.gate, d.tenant_id, d.lane, d.next_attempt_at
  from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)
 cross join lateral (
       select * from minoots.deliveries x
        where x.timer_id = m.timer_id and x.occurrence = m.occurrence
          and x.leased_at is null and x.next_attempt_at is not null
          -- said so that no partial index fits: a plan made while the table was empty would walk all of one
          and x.status || '' = 'pending'
          for no key update skip locked) d
 order by d.timer_id, d.occurrence, d.position
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

# A lease that ended without a record is an attempt whose outcome nobody knows.
_LOSE = """
insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, outcome, error, node)
select d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.attempt_count + 1, d.leased_at, 'unknown',
       'nobody recorded how this attempt ended', d.leased_by
  from unnest($1::uuid[], $2::int[], $3::text[]) as k(timer_id, occurrence, action_id)
  join minoots.deliveries d using (timer_id, occurrence, action_id)
 where d.status = 'pending' and d.lease_id is not null
    on conflict do nothing
"""

_LEASE = """
update minoots.deliveries d
   set lease_id = k.lease_id, leased_by = $7, leased_at = minoots.now(), holds_place = k.holds_place,
       ack_timeout_ms = minoots.ack_timeout_of(d.kind, k.parameters, k.binding),
       -- what was said of the attempt before says nothing about this one
       ack_outcome = null, ack_note = null, ack_result = null, ack_at = null, ack_deadline_at = null,
       attempt_count = d.attempt_count + (d.lease_id is not null)::int,
       unknown_count = d.unknown_count + (d.lease_id is not null)::int,
       next_attempt_at = minoots.now()
           + (case when k.parameters ->> 'timeoutMs' ~ '^[0-9]{1,6}$' then (k.parameters ->> 'timeoutMs')::int
                   else $8 end + $9) * interval '1 ms'
  from (select k.*, f.fired_at, f.event_id, t.traceparent, b.binding,
               coalesce(a.action -> 'parameters', b.binding) as parameters, b.bundle -> 'retryPolicy' as retry_policy,
               (a.action -> 'escalation' ->> 'afterAttempts')::int as escalates_after,
               -- mostly nothing has changed since it fired, and to put that back costs as much as all the rest
               case when t.version = f.timer_version and t.status = 'fired' and f.timer_shown is null
                    then minoots.timer_text(t) else minoots.timer_as_fired(t, f)::text end as timer,
               case when f.status = 'dispatching' then minoots.firing_text(f)
                    else minoots.firing_as_fired(f)::text end as firing
          from unnest($1::uuid[], $2::int[], $3::text[], $4::int[], $5::uuid[], $6::boolean[])
                   as k(timer_id, occurrence, action_id, position, lease_id, holds_place)
          join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = k.timer_id
          -- a recurring timer may have changed since: its firing keeps what it fired with
         cross join lateral (select coalesce(f.timer_shown::jsonb -> 'actionBundle', t.action_bundle) as bundle,
                                    coalesce(f.timer_shown::jsonb -> 'agentBinding', t.agent_binding) as binding) b
          -- what stands in for an action has its name and ~
         cross join lateral (
               select case when strpos(k.action_id, '~') = 0 then b.bundle -> 'actions' -> k.position
                           else minoots.action_of(b.bundle, null, k.action_id, k.position) end as action) a
        -- each of these once, however often it is used above and below
        offset 0) k
 where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id and d.status = 'pending'
returning d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.kind, d.lane, d.gate, d.lease_id, d.attempt_count,
          d.unknown_count - coalesce(d.unknown_before, 0) as unknown_count, k.parameters::text, k.retry_policy::text,
          minoots.now() - coalesce(d.opened_at, k.fired_at) as age, k.timer, k.firing, k.event_id,
          minoots.iso(k.fired_at) as fired_at, k.traceparent, d.redrives,
          d.attempt_count - d.unknown_count - coalesce(d.charged_before, 0) as charged_count,
          case when d.escalated_at is null then k.escalates_after end as escalates_after, d.ack_timeout_ms
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
      where tenant_id = $1 and lane = $2 and next_attempt_at <= minoots.now() and status = 'pending'
        and next_attempt_at is not null
      order by next_attempt_at limit 1 for no key update skip locked)
returning d.timer_id, d.occurrence, d.action_id
"""

# A row that somebody has locked is passed by, so that no other's lease lapses for it.
_RENEW = """
with held as materialized (
    select d.timer_id, d.occurrence, d.action_id, k.span
      from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::interval[])
               as k(timer_id, occurrence, action_id, lease_id, span)
      join minoots.deliveries d using (timer_id, occurrence, action_id)
     where d.lease_id = k.lease_id
       for no key update of d skip locked)
update minoots.deliveries d set next_attempt_at = greatest(d.next_attempt_at, minoots.now() + h.span)
  from held h
 where d.timer_id = h.timer_id and d.occurrence = h.occurrence and d.action_id = h.action_id
"""


class DeliveryKey(NamedTuple):
    """Which delivery."""

    timer_id: UUID
    occurrence: int
    action_id: str

    @property
    def webhook_id(self) -> str:
        """What names it outside: the same in every attempt."""
        return f"{self.timer_id}_{self.occurrence}_{self.action_id}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that this transaction has locked. `gate`: how many of its firing may be under way at once.

    `was_leased`: its last lease ended without a record.
    """

    key: DeliveryKey
    position: int
    gate: int | None
    lane: LaneKey
    next_at: datetime
    was_leased: bool = False


class Lease(msgspec.Struct, frozen=True):
    """The right to run one attempt and to write how it ended; with everything the attempt sends.

    `parameters`, `retry_policy`, `timer` and `firing` are JSON text. `age` is the delivery's, since it was opened; so
    are `unknown_count` and `charged_count`, the attempts before this one that its policy counts. `escalates_after`: at
    how many of them another one joins in; None when that is done, or never to be. `ack_timeout_ms`: how long the
    receiver may take to acknowledge; None when it need not.
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
    redrives: int
    charged_count: int
    escalates_after: int | None
    ack_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """How many deliveries of a lane to take, from the mark on: none of this lane is due before it."""

    lane: LaneKey
    mark: datetime
    room: int


async def find_due(db: Database, connection: Connection, quotas: Sequence[Quota]) -> list[Candidate]:
    """Lock deliveries whose `next_attempt_at` has passed, of each lane the longest due first."""
    rows = await connection.fetch(
        db.sql(_FIND_DUE),
        [q.lane.tenant_id for q in quotas],
        [q.lane.lane for q in quotas],
        [q.mark for q in quotas],
        [q.room for q in quotas],
    )
    return [_candidate(row) for row in rows]


async def find_fired(db: Database, connection: Connection, firings: Collection[tuple[UUID, int]]) -> list[Candidate]:
    """Lock the deliveries of these firings that were never leased, in the bundle's order."""
    rows = await connection.fetch(db.sql(_FIND_FIRED), [f[0] for f in firings], [f[1] for f in firings])
    return [_candidate(row) for row in rows]


def _candidate(row: Any) -> Candidate:
    return Candidate(DeliveryKey(*row[:3]), row[3], row[4], LaneKey(row[5], row[6]), *row[7:])


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
    await connection.execute(db.sql(_SET_NEXT), *key_columns(keys), is_due)


async def lease(
    db: Database, connection: Connection, found: Sequence[Candidate], lease_ids: Sequence[UUID], node: str, *,
    timeout_ms: int, margin_ms: int, hold_places: Sequence[bool]
) -> list[Lease]:  # fmt: skip
    """Lease what this transaction has locked, for the action's time-out (else `timeout_ms`) and a margin.

    `hold_places`: which of them are counted against limits that were set for their lanes. The order is not kept.
    """
    if lost := [candidate.key for candidate in found if candidate.was_leased]:
        await connection.execute(db.sql(_LOSE), *key_columns(lost))
    rows = await connection.fetch(
        db.sql(_LEASE),
        *key_columns([candidate.key for candidate in found]),
        [candidate.position for candidate in found],
        list(lease_ids),
        hold_places,
        node,
        timeout_ms,
        margin_ms,
    )
    return [Lease(row[0], DeliveryKey(*row[1:4]), *row[4:]) for row in rows]


async def abandon(db: Database, connection: Connection, keys: Sequence[DeliveryKey]) -> None:
    """End deliveries whose timer or firing is gone."""
    await connection.execute(db.sql(_ABANDON), *key_columns(keys))


async def postpone_first(db: Database, connection: Connection, lane: LaneKey) -> DeliveryKey | None:
    """Put the lane's delivery that is due the longest off by a minute: it cannot be leased as it is."""
    row = await connection.fetchrow(db.sql(_POSTPONE), lane.tenant_id, lane.lane)
    return None if row is None else DeliveryKey(*row)


async def renew(db: Database, connection: Connection, leases: Sequence[tuple[Lease, timedelta]]) -> None:
    """Move the end of leases that are still held to at least so far from now."""
    await connection.execute(
        db.sql(_RENEW),
        *key_columns([held.key for held, _ in leases]),
        [held.lease_id for held, _ in leases],
        [span for _, span in leases],
    )


def key_columns(keys: Sequence[DeliveryKey]) -> tuple[list[UUID], list[int], list[str]]:
    """As the arrays that a statement takes."""
    return [k.timer_id for k in keys], [k.occurrence for k in keys], [k.action_id for k in keys]
