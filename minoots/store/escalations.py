"""Escalation: the delivery that joins in beside one that keeps failing, in the transaction that records the failure."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey

# What of a bundle escalates now: the firings are locked by the caller, so that nobody else opens or ends any of it.
_ESCALATE = """
with failing as (
    select d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.position,
           concat('action ', d.action_id, ': ', case when not k.is_dying then k.charged || case k.charged
                  when 1 then ' attempt failed: ' else ' attempts failed: ' end end, k.reason) as reason,
           split_part(d.action_id, '~', 1) || '~'
               || (coalesce(nullif(split_part(d.action_id, '~', 2), '')::int, 0) + 1) as next_id,
           a.action -> 'escalation' -> 'escalatesTo' as next, b.binding,
           (b.bundle ->> 'concurrency')::smallint as concurrency
      from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::int[], $6::boolean[], $7::text[])
               as k(timer_id, occurrence, action_id, lease_id, charged, is_dying, reason)
      join minoots.deliveries d using (timer_id, occurrence, action_id)
      join minoots.firings f using (timer_id, occurrence) join minoots.timers t on t.id = d.timer_id
     cross join lateral (select coalesce(f.timer_shown::jsonb -> 'actionBundle', t.action_bundle) as bundle,
                                coalesce(f.timer_shown::jsonb -> 'agentBinding', t.agent_binding) as binding) b
     cross join lateral (select minoots.action_of(b.bundle, null, d.action_id, d.position) as action) a
     where d.status in ('pending', 'awaiting', 'overdue') and d.lease_id is not distinct from k.lease_id
       and d.escalated_at is null and f.status = 'dispatching'
       -- acknowledged meanwhile, it is not failing
       and coalesce(d.ack_outcome, 'failed') = 'failed'
       and (k.is_dying or k.charged >= (a.action -> 'escalation' ->> 'afterAttempts')::int)
       and jsonb_typeof(a.action -> 'escalation' -> 'escalatesTo') = 'object'),
-- one from before a redrive is opened again; one that is open already goes on
joining as (
    select g.*, x.status as former from failing g
      left join minoots.deliveries x
        on x.timer_id = g.timer_id and x.occurrence = g.occurrence and x.action_id = g.next_id),
-- the firing's deliveries may be more now than may be under way at once: from now on they are counted
counted as (
    select j.timer_id, j.occurrence, coalesce(min(j.concurrency), 1::smallint) as places,
           count(*) filter (where j.former is null) as new,
           (count(*) filter (where j.former is null or j.former not in ('pending', 'awaiting', 'overdue')))::smallint
               as opened,
           (count(*) filter (where j.former = 'dead'))::smallint as revived
      from joining j group by j.timer_id, j.occurrence),
gated as (
    select c.timer_id, c.occurrence, case when (
               select count(*) from minoots.deliveries d
                where d.timer_id = c.timer_id and d.occurrence = c.occurrence) + c.new > c.places
           then c.places end as gate
      from counted c),
noted as (
    update minoots.deliveries d
       set gate = coalesce(d.gate, g.gate),
           escalated_at = case when j.action_id is not null then minoots.now() else d.escalated_at end
      from gated g
      join minoots.deliveries s using (timer_id, occurrence)
      left join joining j
        on j.timer_id = s.timer_id and j.occurrence = s.occurrence and j.action_id = s.action_id
     where d.timer_id = s.timer_id and d.occurrence = s.occurrence and d.action_id = s.action_id
       and (j.action_id is not null or (g.gate is not null and d.gate is null and d.dead_at is null
                                        and d.delivered_at is null))),
joined as (
    insert into minoots.deliveries as d (tenant_id, timer_id, occurrence, action_id, position, kind, lane, gate,
                                    next_attempt_at, escalated_from, opened_at)
    select j.tenant_id, j.timer_id, j.occurrence, j.next_id, j.position, j.next ->> 'kind',
           minoots.lane_of(j.next ->> 'kind',
                           case when j.next ->> 'kind' = 'agent_prompt' and not j.next -> 'parameters' ? 'target'
                                then coalesce(j.binding, j.next -> 'parameters') else j.next -> 'parameters' end),
           g.gate, minoots.now(), j.action_id, minoots.now()
      from joining j join gated g using (timer_id, occurrence)
        on conflict (timer_id, occurrence, action_id) do update
       set status = 'pending', next_attempt_at = minoots.now(), delivered_at = null, dead_at = null, dead_reason = null,
           lease_id = null, redrives = d.redrives + 1, opened_at = minoots.now(),
           charged_before = d.attempt_count - d.unknown_count, unknown_before = d.unknown_count, escalated_at = null,
           ack_outcome = null, ack_note = null, ack_result = null, ack_at = null, ack_deadline_at = null,
           gate = coalesce(d.gate, excluded.gate)
     where d.status in ('delivered', 'confirmed', 'dead')
 returning d.timer_id, d.occurrence, d.action_id, minoots.delivery_json(d) as shown),
firing as (
    update minoots.firings f
       set open_deliveries = f.open_deliveries + c.opened, dead_deliveries = f.dead_deliveries - c.revived
      from counted c where f.timer_id = c.timer_id and f.occurrence = c.occurrence
 returning f.timer_id, f.occurrence, minoots.firing_json(f) as shown),
event as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select t.tenant_id, t.id, 'delivery.escalated', t.traceparent,
           json_build_object('timer', minoots.timer_json(t), 'firing', f.shown, 'delivery', n.shown, 'reason',
                             j.reason)
      from joined n
      join joining j on j.timer_id = n.timer_id and j.occurrence = n.occurrence and j.next_id = n.action_id
      join firing f on f.timer_id = n.timer_id and f.occurrence = n.occurrence
      join minoots.timers t on t.id = n.timer_id
     where (select events from minoots.installation) order by j.timer_id, j.position, j.action_id)
select count(*) from joined
"""


@dataclass(frozen=True, slots=True)
class Failing:
    """A delivery whose attempt failed: under which lease (None: under none), how many attempts its policy has counted
    with this one, and whether it gives up now."""

    key: DeliveryKey
    lease_id: UUID | None
    charged: int
    is_dying: bool
    reason: str | None


async def escalate(db: Database, connection: Connection, failing: Sequence[Failing]) -> int:
    """Open what these deliveries escalate to by now, once each; how many were opened.

    The open transaction has locked their firings, and writes after this what becomes of the deliveries themselves:
    a firing that has opened another one has not ended.
    """
    count: int = await connection.fetchval(
        db.sql(_ESCALATE),
        [f.key.timer_id for f in failing],
        [f.key.occurrence for f in failing],
        [f.key.action_id for f in failing],
        [f.lease_id for f in failing],
        [f.charged for f in failing],
        [f.is_dying for f in failing],
        [f.reason for f in failing],
    )
    return count
