"""Deliveries of many lanes as rows, without the timers' own way there; and lanes as somebody with psql sees them."""

import json
from typing import Any
from uuid import UUID

from tests.support.timers import Sql, bundle, webhook

_HELD = """
with timer as (
    insert into minoots.timers (tenant_id, fire_at, action_bundle, status, fired_at, occurrence)
    select $1, minoots.now(), $4::jsonb, 'fired', minoots.now(), 1 from generate_series(1, $3::int)
 returning id, tenant_id, fire_at),
firing as (
    insert into minoots.firings (tenant_id, timer_id, occurrence, nominal_at, due_at, fired_at, open_deliveries,
                                 timer_version)
    select tenant_id, id, 1, fire_at, fire_at, minoots.now(), 1, 1 from timer)
insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, next_attempt_at)
select tenant_id, id, 1, 'call', 'webhook', $2, minoots.now() - $5::float8 * interval '1 s' from timer
returning timer_id
"""


async def hold(sql: Sql, url: str, many: int, tenant: str = "demo", ago_s: float = 1.0, **policy: Any) -> list[UUID]:
    """So many fired timers of a tenant whose one delivery to this URL has been due for so long."""
    lane = "/".join(url.split("/")[:3])
    actions = json.dumps(bundle(webhook(url, timeoutMs=policy.pop("timeoutMs", 5_000)), **policy))
    return [row["timer_id"] for row in await sql.fetch(_HELD, tenant, lane, many, actions, ago_s)]


async def set_limits(
    sql: Sql, lane: str, concurrency: int | None = None, rate: float | None = None, tenant: str = "demo"
) -> None:
    """As PUT /lanes."""
    await sql.execute(
        "insert into minoots.lanes (tenant_id, lane, concurrency, rate_per_s) values ($1, $2, $3, $4) "
        "on conflict (tenant_id, lane) do update set concurrency = $3, rate_per_s = $4",
        tenant,
        lane,
        concurrency,
        rate,
    )


async def lane_of(sql: Sql, url: str, tenant: str = "demo") -> Any:
    """The lane's row; None when it has none."""
    lane = "/".join(url.split("/")[:3])
    return await sql.fetchrow("select * from minoots.lanes where tenant_id = $1 and lane = $2", tenant, lane)
