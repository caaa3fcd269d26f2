"""Statements about acknowledgement: what a receiver says, and what nobody said in time.

Whoever writes here has the firing locked first, as those who record results do: then none waits for another in a ring.
What ends a delivery, or sends it again, is written by `record_results`, under a lease that is taken here for it.

A delivery that is acknowledged while its attempt is under way is `awaiting` at once and keeps the lease: whoever holds
it records the attempt, and then what was said holds. When nobody does, the lease ends like any deadline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from minoots.domain.ack import Acknowledgement, AckState, AckStep
from minoots.domain.firing import Delivery
from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey, key_columns

_delivery = msgspec.json.Decoder(Delivery)

_LOCK_FIRING = """
select tenant_id from minoots.firings
 where timer_id = $1 and occurrence = $2 and ($3::text is null or tenant_id = $3)
   for no key update
"""

_FIND = """
select d.status, d.ack_timeout_ms is not null as is_expected, d.leased_at is not null as was_sent,
       d.lease_id is not null as is_under_way, d.ack_outcome,
       $4::jsonb is null or d.ack_result is not distinct from $4::jsonb as is_same
  from minoots.deliveries d
 where d.timer_id = $1 and d.occurrence = $2 and d.action_id = $3
   for no key update
"""

# `working` gives the receiver as long as it asks for, else as long as it had at first; never less than it has.
_WRITE = """
with extension as (
    select coalesce($8::bigint, ack_timeout_ms) * interval '1 ms' as span from minoots.deliveries
     where timer_id = $1 and occurrence = $2 and action_id = $3),
written as (
    update minoots.deliveries d
       set status = $4::text, lease_id = coalesce($9::uuid, d.lease_id),
           ack_outcome = $5::text, ack_note = $6::text, ack_result = $7::jsonb, ack_at = minoots.now(),
           ack_deadline_at = case when d.lease_id is not null and $5::text = 'working' then minoots.now() + e.span end,
           next_attempt_at = case
               when $4::text = 'overdue' then minoots.now()
               when d.lease_id is not null or $4::text = 'pending' then d.next_attempt_at
               when $9::uuid is not null then coalesce(d.next_attempt_at, minoots.now())
               when d.status = 'awaiting' then greatest(d.next_attempt_at, minoots.now() + e.span)
               else minoots.now() + e.span end
      from extension e
     where d.timer_id = $1 and d.occurrence = $2 and d.action_id = $3
 returning d.timer_id, d.occurrence, minoots.delivery_json(d) as shown,
           case when $10::text = 'delivery.overdue' then minoots.overdue_reason(d) end as reason)
insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
select t.tenant_id, t.id, $10::text, t.traceparent,
       json_build_object('timer', minoots.timer_json(t), 'firing', minoots.firing_json(f), 'delivery', w.shown,
                         'reason', w.reason)
  from written w join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = w.timer_id
 where $10::text is not null and (select events from minoots.installation)
"""

_GET = """
select minoots.delivery_json(d)::text,
       (select coalesce(json_agg(minoots.attempt_json(a) order by a.attempt), '[]')::text from minoots.attempts a
         where a.timer_id = d.timer_id and a.occurrence = d.occurrence and a.action_id = d.action_id)
  from minoots.deliveries d where d.timer_id = $1 and d.occurrence = $2 and d.action_id = $3
"""

# Whose deadline has passed; who said failed; and who was heard while an attempt was under way that nobody recorded.
_FIND_DUE = """
select d.timer_id, d.occurrence, d.action_id
  from minoots.deliveries d join minoots.firings f using (timer_id, occurrence)
 where d.status in ('awaiting', 'overdue') and d.next_attempt_at <= minoots.now()
 order by d.next_attempt_at limit $1
   for no key update of f skip locked
"""

# Of those with a lease only who failed: the others are as good as recorded.
_MARK_OVERDUE = """
with late as (
    update minoots.deliveries d set status = 'overdue'
      from unnest($1::uuid[], $2::int[], $3::text[]) as k(timer_id, occurrence, action_id)
     where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id
       and d.status = 'awaiting' and d.next_attempt_at <= minoots.now()
       and (d.lease_id is null or d.ack_outcome = 'failed')
 returning d.timer_id, d.occurrence, d.position, minoots.overdue_reason(d) as reason, minoots.delivery_json(d) as shown)
insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
select t.tenant_id, t.id, 'delivery.overdue', t.traceparent,
       json_build_object('timer', minoots.timer_json(t), 'firing', minoots.firing_json(f), 'delivery', l.shown,
                         'reason', l.reason)
  from late l join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = l.timer_id
 where (select events from minoots.installation) order by l.timer_id, l.position
"""

_TAKE = """
with taken as (
    select d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.status, d.attempt_count, k.lease_id,
           d.lease_id as former, d.leased_at, d.leased_by, minoots.overdue_reason(d) as reason
      from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[]) as k(timer_id, occurrence, action_id, lease_id)
      join minoots.deliveries d using (timer_id, occurrence, action_id)
     where d.status in ('awaiting', 'overdue') and d.next_attempt_at <= minoots.now()
       for no key update of d),
-- nobody recorded how it was answered; but it was sent, for its receiver has it: it counts
lost as (
    insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, outcome, error, node)
    select tenant_id, timer_id, occurrence, action_id, attempt_count + 1, leased_at, 'unknown',
           'nobody recorded how this attempt ended', leased_by
      from taken where former is not null
        on conflict do nothing),
-- one that was taken and not confirmed says so
noted as (
    update minoots.attempts a set error = k.reason from taken k
     where k.status = 'overdue' and k.former is null and a.timer_id = k.timer_id and a.occurrence = k.occurrence
       and a.action_id = k.action_id and a.attempt = k.attempt_count and a.error is null),
-- that somebody works on it holds until the deadline; that somebody failed stays there to be seen
held as (
    update minoots.deliveries d
       set lease_id = k.lease_id, leased_at = coalesce(d.leased_at, minoots.now()), holds_place = false,
           attempt_count = d.attempt_count + (k.former is not null)::int,
           (ack_outcome, ack_note, ack_result, ack_at) = (
               select d.ack_outcome, d.ack_note, d.ack_result, d.ack_at
                where k.status = 'awaiting' or d.ack_outcome = 'failed'),
           ack_deadline_at = case when k.status = 'awaiting' then d.ack_deadline_at end
      from taken k
     where d.timer_id = k.timer_id and d.occurrence = k.occurrence and d.action_id = k.action_id
 returning d.*, k.reason, k.former)
select h.timer_id, h.occurrence, h.action_id, h.lease_id, h.former is not null and h.gate is not null as held_place,
       h.attempt_count - h.unknown_count - coalesce(h.charged_before, 0) as charged,
       case when h.escalated_at is null
            then (minoots.action_of(b.bundle, null, h.action_id, h.position) -> 'escalation' ->> 'afterAttempts')::int
        end as escalates_after,
       h.status, h.ack_outcome, h.reason, (b.bundle -> 'retryPolicy')::text as retry_policy,
       minoots.now() - coalesce(h.opened_at, f.fired_at) as age
  from held h join minoots.firings f using (timer_id, occurrence) left join minoots.timers t on t.id = h.timer_id
 cross join lateral (select coalesce(f.timer_shown::jsonb -> 'actionBundle', t.action_bundle) as bundle) b
"""

_POSTPONE = """
update minoots.deliveries d set next_attempt_at = minoots.now() + interval '1 minute'
 where (d.timer_id, d.occurrence, d.action_id) in (
     select timer_id, occurrence, action_id from minoots.deliveries
      where status in ('awaiting', 'overdue') and next_attempt_at <= minoots.now()
      order by next_attempt_at limit 1 for no key update skip locked)
returning d.timer_id, d.occurrence, d.action_id
"""

_SECONDS_TO_NEXT = """
select extract(epoch from next_attempt_at - minoots.now())::float8 from minoots.deliveries
 where status in ('awaiting', 'overdue') order by next_attempt_at limit 1
"""


@dataclass(frozen=True, slots=True)
class AckLease:
    """The right to write what an acknowledgement means, in the transaction that took it. As `Lease` has its fields."""

    key: DeliveryKey
    lease_id: UUID
    gate: int | None = None
    charged_count: int = 0
    escalates_after: int | None = None


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """A delivery whose time to be acknowledged has ended: `awaiting` when it was heard after all, `overdue` else.

    `retry_policy` is JSON text, `reason` says what was missed.
    """

    lease: AckLease
    status: str
    ack_outcome: str | None
    reason: str
    retry_policy: str | None
    age: timedelta


async def lock_firing(db: Database, connection: Connection, key: DeliveryKey, tenant_id: str | None) -> bool:
    """Lock the delivery's firing; False when there is none, or not of this tenant."""
    row = await connection.fetchrow(db.sql(_LOCK_FIRING), key.timer_id, key.occurrence, tenant_id)
    return row is not None


async def find_state(db: Database, connection: Connection, key: DeliveryKey, said: Acknowledgement) -> AckState | None:
    """How the delivery stands, locked; None when the firing has no such one."""
    row = await connection.fetchrow(db.sql(_FIND), *key, said.result)
    return None if row is None else AckState(*row)


async def write_ack(
    db: Database, connection: Connection, key: DeliveryKey, said: Acknowledgement, step: AckStep, lease_id: UUID | None
) -> None:
    """Keep what was said, and make the step; with a lease, for `record_results` to end the delivery under it."""
    status, kind = _STEPS[step]
    await connection.execute(
        db.sql(_WRITE), *key, status, said.outcome, said.note, said.result, said.extend_ms, lease_id, kind
    )


# What the delivery is then, and the event that tells of it. That a receiver has it is known by its answer, or by this.
_STEPS: dict[AckStep, tuple[str, str | None]] = {
    "keep": ("awaiting", None),
    "note": ("pending", None),
    "confirm": ("awaiting", None),
    "fail": ("overdue", "delivery.overdue"),
    "extend": ("awaiting", None),
    "await": ("awaiting", "delivery.delivered"),
}


async def get_delivery(db: Database, connection: Connection, key: DeliveryKey) -> Delivery:
    """The delivery with its attempts; it is there, for this transaction has it locked."""
    row = await connection.fetchrow(db.sql(_GET), *key)
    assert row is not None, "the delivery is locked"
    shown: dict[str, Any] = msgspec.json.decode(row[0], type=dict[str, msgspec.Raw])
    return _delivery.decode(msgspec.json.encode(shown | {"attempts": msgspec.Raw(row[1].encode())}))


async def find_due(db: Database, connection: Connection, limit: int) -> list[DeliveryKey]:
    """Deliveries whose time to be acknowledged has ended, the longest due first; their firings are locked."""
    return [DeliveryKey(*row) for row in await connection.fetch(db.sql(_FIND_DUE), limit)]


async def mark_overdue(db: Database, connection: Connection, keys: Sequence[DeliveryKey]) -> None:
    """Say of those that were not heard, or failed, that they are overdue, with their events."""
    await connection.execute(db.sql(_MARK_OVERDUE), *key_columns(keys))


async def take(
    db: Database, connection: Connection, keys: Sequence[DeliveryKey], lease_ids: Sequence[UUID]
) -> list[Unconfirmed]:
    """Take these for `record_results`; those that somebody has moved on meanwhile are left out."""
    rows = await connection.fetch(db.sql(_TAKE), *key_columns(keys), list(lease_ids))
    return [
        Unconfirmed(
            # What `record_results` counts is an attempt more than there were; this one is counted already.
            AckLease(DeliveryKey(*row[:3]), row[3], 1 if row[4] else None, row[5] - 1, row[6]),
            *row[7:],
        )
        for row in rows
    ]


async def postpone_first(db: Database, connection: Connection) -> DeliveryKey | None:
    """Put the delivery that is overdue the longest off by a minute: it cannot be moved on as it is."""
    row = await connection.fetchrow(db.sql(_POSTPONE))
    return None if row is None else DeliveryKey(*row)


async def seconds_to_next(db: Database, connection: Connection) -> float | None:
    """Seconds until the next deadline, negative when one has passed; None when nobody is awaited."""
    seconds: float | None = await connection.fetchval(db.sql(_SECONDS_TO_NEXT))
    return seconds
