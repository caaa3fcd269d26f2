"""Lanes at the doors: list a tenant's, and set the limits of one."""

from typing import Any

import msgspec

from minoots.domain.lane import Lane
from minoots.store.database import Connection, Database

_lane = msgspec.json.Decoder(Lane)

# What waits is counted up to 100,000, so that a page never costs more than that for each of its lanes.
_SHOWN = """
select (jsonb_build_object('state', 'closed', 'concurrency', null, 'ratePerS', null, 'failures', 0, 'openedAt', null,
                           'nextProbeAt', null, 'reason', null)
        || case when l.lane is null then '{}' else minoots.lane_json(l)::jsonb end
        || jsonb_build_object('tenantId', $1::text, 'lane', n.lane, 'waiting', w.many, 'underWay', u.many))::text
  from named n
  left join minoots.lanes l on l.tenant_id = $1 and l.lane = n.lane
 cross join lateral (
       select count(*) as many from (
           select from minoots.deliveries d
            where d.tenant_id = $1 and d.lane = n.lane and d.next_attempt_at <= minoots.now() and d.status = 'pending'
            limit 100000) x) w
 cross join lateral (
       select count(*) filter (where x.lease_id is not null) as many from (
           select d.lease_id from minoots.deliveries d
            where d.tenant_id = $1 and d.lane = n.lane and d.next_attempt_at > minoots.now() and d.status = 'pending'
            limit 100000) x) u
 order by n.lane
"""

_GET = "with named as (select $2::text as lane)" + _SHOWN

# The lanes with something to come, from one to the next by the index, and those with a row.
_BUSY = """
with recursive busy as (
    (select d.lane from minoots.deliveries d
      where d.tenant_id = $1 and d.lane > $2 and d.next_attempt_at is not null and d.status = 'pending'
      order by d.lane limit 1)
     union all
    select n.lane from busy b cross join lateral (
        select d.lane from minoots.deliveries d
         where d.tenant_id = $1 and d.lane > b.lane and d.next_attempt_at is not null and d.status = 'pending'
         order by d.lane limit 1) n),
named as (
    select k.lane from (
        (select lane from busy limit $3) union
        (select lane from minoots.lanes where tenant_id = $1 and lane > $2 order by lane limit $3)) k
     order by k.lane limit $3)
"""

_LIST = _BUSY + _SHOWN

_SET = """
insert into minoots.lanes as l (tenant_id, lane, concurrency, rate_per_s, limits_set_by)
values ($1, $2, $3, $4, $5)
    on conflict (tenant_id, lane) do update
   set concurrency = excluded.concurrency, rate_per_s = excluded.rate_per_s, limits_set_by = excluded.limits_set_by,
       allowed_at = null, updated_at = minoots.now()
"""


async def list_lanes(db: Database, connection: Connection, tenant_id: str, after: str, limit: int) -> list[Lane]:
    """A tenant's lanes that have limits, failures or deliveries to come, by name, from behind `after` on."""
    rows: list[Any] = await connection.fetch(db.sql(_LIST), tenant_id, after, limit)
    return [_lane.decode(row[0]) for row in rows]


async def set_limits(
    db: Database, connection: Connection, tenant_id: str, lane: str, concurrency: int | None, rate_per_s: float | None,
    requested_by: str | None
) -> None:  # fmt: skip
    """Set both limits of a lane; None takes one away."""
    await connection.execute(db.sql(_SET), tenant_id, lane, concurrency, rate_per_s, requested_by)


async def get_lane(db: Database, connection: Connection, tenant_id: str, lane: str) -> Lane:
    """One lane, whether it has a row or not."""
    return _lane.decode(await connection.fetchval(db.sql(_GET), tenant_id, lane))
