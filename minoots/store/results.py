"""Writing how attempts ended: attempt, delivery, firing, timer and events, in one transaction a batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from minoots.domain.outcome import Delivered, Heard, Outcome, Rejected, Verdict
from minoots.store.acks import AckLease
from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey, Lease, key_columns
from minoots.store.escalations import Failing, escalate
from minoots.store.outbox import event_id_of
from minoots.store.steering import Steering, steer

# In key order, before anything else: two batches with the same firings wait for each other and never deadlock, and
# the second sees what the first counted.
#
# What comes back are the recurring timers that count their failures: no row for any other.
_LOCK_FIRINGS = """
with locked as materialized (
    select f.timer_id, f.is_scheduled is not null as recurs
      from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)
      join minoots.firings f using (timer_id, occurrence)
     order by f.timer_id, f.occurrence
       for no key update of f)
select distinct timer_id from locked l
 where case when recurs then (
           select t.schedule ? 'pauseAfterFailures' from minoots.timers t where t.id = l.timer_id) end
"""

# Two firings of one timer may end in two batches at once, and each of them counts. A statement of its own, so that the
# next one sees what the batch before it has counted.
_LOCK_COUNTING = """
select from minoots.timers where id = any($1::uuid[]) order by id for no key update
"""

_RECORD = """
with result as (
    select * from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::text[], $6::interval[], $7::text[],
                         $8::text[], $9::int[], $10::text[], $11::text[], $12::int[])
        as r(timer_id, occurrence, action_id, lease_id, status, wait, reason, outcome, status_code, error, excerpt,
             duration_ms)),
-- only whose lease still holds: a result that comes too late changes nothing
ended as (
    update minoots.deliveries d
       set status = minoots.status_heard(d.ack_outcome, r.status), lease_id = null,
           attempt_count = d.attempt_count + (r.outcome is not null)::int,
           next_attempt_at = case minoots.status_heard(d.ack_outcome, r.status)
               when 'pending' then minoots.now() + r.wait
               when 'awaiting' then greatest(
                   case when r.status = 'awaiting' then minoots.now() + r.wait end, d.ack_deadline_at)
               when 'overdue' then minoots.now() end,
           delivered_at = case when minoots.status_heard(d.ack_outcome, r.status) in ('delivered', 'confirmed')
               then minoots.now() end,
           dead_at = case when minoots.status_heard(d.ack_outcome, r.status) = 'dead' then minoots.now() end,
           dead_reason = case when minoots.status_heard(d.ack_outcome, r.status) = 'dead' then r.reason end
      from result r
     where d.timer_id = r.timer_id and d.occurrence = r.occurrence and d.action_id = r.action_id
       and d.lease_id = r.lease_id
 returning d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.position, d.status, d.attempt_count, d.leased_at,
           d.leased_by, r.outcome, r.status_code, r.error, r.excerpt, r.duration_ms,
           case when d.status = 'overdue' then minoots.overdue_reason(d) else r.reason end as reason,
           minoots.delivery_text(d) as shown),
tried as (
    insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, duration_ms, outcome,
                             status_code, error, excerpt, node)
    select tenant_id, timer_id, occurrence, action_id, attempt_count, leased_at, duration_ms, outcome, status_code,
           error, excerpt, leased_by from ended where outcome is not null
        on conflict do nothing),
counted as (
    select timer_id, occurrence, count(*)::smallint as ended, count(*) filter (where status = 'dead')::smallint as dead,
           min(action_id || ': ' || reason) filter (where status = 'dead') as reason
      from ended where status in ('delivered', 'confirmed', 'dead') group by timer_id, occurrence),
-- the firing ends with its last delivery, and fails if one of them is dead
firing as (
    update minoots.firings f
       set open_deliveries = f.open_deliveries - c.ended, dead_deliveries = f.dead_deliveries + c.dead,
           status = case when f.open_deliveries > c.ended then 'dispatching'
                         when f.dead_deliveries + c.dead > 0 then 'failed' else 'settled' end,
           settled_at = case when f.open_deliveries = c.ended then minoots.now() end
      from counted c
     where f.timer_id = c.timer_id and f.occurrence = c.occurrence and f.status = 'dispatching'
 returning f.timer_id, f.occurrence, f.status, f.is_scheduled is not null as recurs, c.reason,
           minoots.firing_text(f) as shown),
-- of a recurring timer: its firing is open no longer, for whileRunning and for its end
closed as (
    delete from minoots.open_firings o using firing f
     where f.recurs and f.status <> 'dispatching' and o.timer_id = f.timer_id and o.occurrence = f.occurrence),
-- and how many have failed in a row, where somebody wants to know; one that was redriven has been counted
series as (
    select timer_id, last_settled,
           count(*) filter (where status = 'failed' and occurrence > last_settled and not is_counted) as failed
      from (select f.*, coalesce(max(f.occurrence) filter (where f.status = 'settled')
                                     over (partition by f.timer_id), 0) as last_settled,
                   f.status = 'failed' and exists (
                       select from minoots.deliveries d
                        where d.timer_id = f.timer_id and d.occurrence = f.occurrence and d.redrives > 0) as is_counted
              from firing f where f.recurs and f.status <> 'dispatching') f
     group by timer_id, last_settled),
judged as (
    update minoots.timers t
       set (failures, status, version) = (
               select n.failures, case when n.is_over then 'paused' else t.status end, t.version + n.is_over::int
                 from (select c.failures, c.failures >= (t.schedule ->> 'pauseAfterFailures')::int
                         from (select case when s.last_settled > 0 then 0 else t.failures end + s.failed) c(failures)
                      ) n(failures, is_over))
      from series s
     where t.id = s.timer_id and t.status = 'scheduled' and t.schedule ->> 'pauseAfterFailures' ~ '^[0-9]{1,4}$'
 returning t.id, t.tenant_id, t.traceparent, t.status, t.failures, minoots.timer_json(t) as shown),
-- and a one-shot timer with its firing; the action that gave up may have done so in an earlier batch
timer as (
    update minoots.timers t
       set status = f.status, settled_at = minoots.now(), version = t.version + 1,
           failure_reason = case when f.status = 'failed'
               then left('action ' || coalesce(f.reason, (
                   select d.action_id || ': ' || d.dead_reason from minoots.deliveries d
                    where d.timer_id = f.timer_id and d.occurrence = f.occurrence and d.status = 'dead'
                    order by d.position limit 1), 'gave up'), 1000) end
      from firing f
     where t.id = f.timer_id and t.occurrence = f.occurrence and f.status <> 'dispatching' and t.status = 'fired'
 returning t.id, t.tenant_id, t.traceparent, t.status, t.failure_reason, minoots.timer_text(t) as shown,
           f.shown as firing),
event as (
    insert into minoots.outbox (tenant_id, timer_id, event_id, kind, traceparent, data)
    select tenant_id, timer_id, :event_id, kind, traceparent, data
      from (select e.tenant_id, e.timer_id, t.traceparent, 0 as step, e.position,
                   'delivery.' || case e.status when 'pending' then 'retrying' when 'awaiting' then 'delivered'
                                                else e.status end as kind,
                   concat('{"timer" : ', minoots.timer_text(t), ', "firing" : ', minoots.firing_text(f),
                          ', "delivery" : ', e.shown,
                          ', "reason" : ', coalesce(to_json(coalesce(e.reason, e.error)), 'null'), '}')::json as data
              from ended e join minoots.timers t on t.id = e.timer_id
              join minoots.firings f on f.timer_id = e.timer_id and f.occurrence = e.occurrence
             union all
            select tenant_id, id, traceparent, 1, 0, 'timer.' || status,
                   concat('{"timer" : ', shown, ', "firing" : ', firing,
                          ', "reason" : ', coalesce(to_json(failure_reason), 'null'), '}')::json
              from timer
             union all
            select t.tenant_id, t.id, t.traceparent, 1, f.occurrence, 'timer.' || f.status,
                   concat('{"timer" : ', minoots.timer_text(t), ', "firing" : ', f.shown,
                          ', "reason" : ', coalesce(to_json(f.reason), 'null'), '}')::json
              from firing f join minoots.timers t on t.id = f.timer_id where f.recurs and f.status <> 'dispatching'
             union all
            select tenant_id, id, traceparent, 2, 0, 'timer.paused',
                   json_build_object('timer', shown, 'reason', failures || ' firings in a row have failed')
              from judged where status = 'paused') told
     where (select events from minoots.installation)
     order by step, timer_id, position)
select timer_id, occurrence, action_id, status from ended
""".replace(":event_id", event_id_of("row_number() over ()"))

# Deliveries of which somebody has locked a row: their own, the firing's, the timer's. It waits for none of them. What
# is gone is not locked.
_FIND_LOCKED = """
with wanted as materialized (
    select * from unnest($1::uuid[], $2::int[], $3::text[]) as m(timer_id, occurrence, action_id)),
free_delivery as materialized (
    select d.timer_id, d.occurrence, d.action_id
      from wanted join minoots.deliveries d using (timer_id, occurrence, action_id)
       for no key update of d skip locked),
free_firing as materialized (
    select f.timer_id, f.occurrence from minoots.firings f
     where (f.timer_id, f.occurrence) in (select timer_id, occurrence from wanted)
       for no key update of f skip locked),
free_timer as materialized (
    select t.id from minoots.timers t where t.id = any($1::uuid[]) for no key update skip locked)
select d.timer_id, d.occurrence, d.action_id
  from wanted join minoots.deliveries d using (timer_id, occurrence, action_id)
  left join minoots.firings f using (timer_id, occurrence) left join minoots.timers t on t.id = d.timer_id
 where not exists (select from free_delivery x where (x.timer_id, x.occurrence, x.action_id)
                                                   = (d.timer_id, d.occurrence, d.action_id))
    or f.timer_id is not null and not exists (
        select from free_firing x where (x.timer_id, x.occurrence) = (f.timer_id, f.occurrence))
    or t.id is not null and not exists (select from free_timer x where x.id = t.id)
"""

# Places that results made free go to those that wait for one, in the bundle's order: `nth` counts those that wait.
_FILL_PLACES = """
with firing as (
    select distinct timer_id, occurrence from unnest($1::uuid[], $2::int[]) as m(timer_id, occurrence)),
waiting as (
    select d.timer_id, d.occurrence, d.action_id, d.status = 'pending' and d.next_attempt_at is null as waits,
           max(d.gate) over bundle - count(*) filter (
               where d.lease_id is not null and d.next_attempt_at > minoots.now()) over bundle as places,
           count(*) filter (where d.status = 'pending' and d.next_attempt_at is null)
               over (bundle order by d.position, d.action_id) as nth
      from firing join minoots.deliveries d using (timer_id, occurrence)
    window bundle as (partition by d.timer_id, d.occurrence))
update minoots.deliveries d set next_attempt_at = minoots.now()
  from waiting w
 where w.waits and w.nth <= w.places
   and d.timer_id = w.timer_id and d.occurrence = w.occurrence and d.action_id = w.action_id
   and d.status = 'pending' and d.next_attempt_at is null
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How the attempt under a lease ended, and what follows; with Heard it was no attempt."""

    lease: Lease | AckLease
    outcome: Outcome | Heard
    verdict: Verdict


async def record_results(db: Database, connection: Connection, results: Sequence[Result]) -> tuple[int, int]:
    """Write a batch in the open transaction: how many were still ours, and how many others became due by it."""
    keys = [r.lease.key for r in results]
    timer_ids, occurrences = [k.timer_id for k in keys], [k.occurrence for k in keys]
    counting = await connection.fetch(db.sql(_LOCK_FIRINGS), timer_ids, occurrences)
    if counting:
        await connection.execute(db.sql(_LOCK_COUNTING), [row["timer_id"] for row in counting])
    failing = [f for f in map(_failing, results) if f is not None]
    # First, so that a firing that goes on is not ended by what follows.
    escalated = await escalate(db, connection, failing) if failing else 0
    steering = [s for s in map(_steering, results) if s is not None]
    if steering:
        await steer(db, connection, steering)
    rows = await connection.fetch(
        db.sql(_RECORD),
        timer_ids,
        occurrences,
        [k.action_id for k in keys],
        [r.lease.lease_id for r in results],
        [r.verdict.status for r in results],
        [r.verdict.wait for r in results],
        [r.verdict.reason for r in results],
        [_word(r.outcome) for r in results],
        [r.outcome.answer.status_code for r in results],
        [None if isinstance(r.outcome, Delivered) else r.outcome.error for r in results],
        [r.outcome.answer.excerpt for r in results],
        [r.outcome.answer.duration_ms for r in results],
    )
    # What an acknowledgement ends may have been next in its bundle: whether the bundle has places, its firing knows.
    gated = [k for r, k in zip(results, keys, strict=True) if isinstance(r.lease, AckLease) or r.lease.gate is not None]
    filled = 0
    if gated:
        tag = await connection.execute(db.sql(_FILL_PLACES), [k.timer_id for k in gated], [k.occurrence for k in gated])
        filled = int(tag.rsplit(" ", 1)[-1])
    return len(rows), filled + escalated


async def find_locked(db: Database, connection: Connection, keys: Sequence[DeliveryKey]) -> set[DeliveryKey]:
    """Of which of these deliveries somebody else has locked a row: the delivery's, the firing's or the timer's."""
    rows = await connection.fetch(db.sql(_FIND_LOCKED), *key_columns(keys))
    return {DeliveryKey(*row) for row in rows}


def _steering(result: Result) -> Steering | None:
    """What the answer asks of the timer: None for nearly all."""
    outcome = result.outcome
    if not isinstance(outcome, Delivered) or outcome.directive is None or isinstance(result.lease, AckLease):
        return None
    return Steering(result.lease.key, result.lease.lease_id, outcome.directive)


def _failing(result: Result) -> Failing | None:
    """What may escalate by this result: None for nearly all."""
    lease, verdict = result.lease, result.verdict
    if lease.escalates_after is None or verdict.status not in ("pending", "dead"):
        return None
    charged, is_dying = lease.charged_count + 1, verdict.status == "dead"
    if charged < lease.escalates_after and not is_dying:
        return None
    error = None if isinstance(result.outcome, Delivered) else result.outcome.error
    return Failing(lease.key, lease.lease_id, charged, is_dying, verdict.reason or error)


def is_row_locked(error: BaseException) -> bool:
    """Whether a batch was not written because somebody holds one of its rows for longer than we wait."""
    return isinstance(error.__cause__, asyncpg.LockNotAvailableError)


def _word(outcome: Outcome | Heard) -> str | None:
    if isinstance(outcome, Heard):
        return None
    if isinstance(outcome, Delivered):
        return "delivered"
    return "rejected" if isinstance(outcome, Rejected) else "retry"
