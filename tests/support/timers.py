"""Timers as somebody with psql makes them, many at once, and what has become of them."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

Sql = asyncpg.Connection  # what a person with psql has; tests are not type-checked

_INSERT = """
insert into minoots.timers (tenant_id, name, fire_at, action_bundle)
select 'demo', 'timer-' || g, minoots.now() + ($2::float8 + (g - 1) * $3::float8) * interval '1 s', $4::jsonb
  from generate_series(1, $1::int) g
returning id
"""


@contextlib.asynccontextmanager
async def open_transaction(database_url: str) -> AsyncIterator[Sql]:
    """A transaction of somebody else's, which commits when the block ends."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


def webhook(url: str, action_id: str = "call", **parameters: Any) -> dict[str, Any]:
    """One webhook action."""
    return {"id": action_id, "kind": "webhook", "parameters": {"url": url, **parameters}}


def bundle(*actions: Mapping[str, Any], concurrency: int | None = None, **retry_policy: Any) -> dict[str, Any]:
    """An action bundle with a retry policy as far as one is given."""
    made: dict[str, Any] = {"actions": list(actions)}
    if concurrency is not None:
        made["concurrency"] = concurrency
    if retry_policy:
        made["retryPolicy"] = retry_policy
    return made


async def insert_timers(
    sql: Sql, many: int, after_s: float = 0, apart_s: float = 0, actions: Mapping[str, Any] | None = None
) -> list[UUID]:
    """`many` timers by one plain insert: the first due `after_s` from now, each next one `apart_s` later."""
    rows = await sql.fetch(_INSERT, many, after_s, apart_s, None if actions is None else json.dumps(actions))
    return [row["id"] for row in rows]


async def count(sql: Sql, condition: str, table: str = "timers") -> int:
    """How many rows of a table meet a condition."""
    return await sql.fetchval(f"select count(*) from minoots.{table} where {condition}")


async def fired_exactly_once(sql: Sql, timers: Sequence[UUID]) -> None:
    """Fails unless each of these timers has one firing, and none of them is early."""
    rows = await sql.fetch(
        "select count(f.timer_id) as firings, bool_or(f.fired_at < f.due_at) as is_early, t.status "
        "from unnest($1::uuid[]) as m(id) join minoots.timers t using (id) "
        "left join minoots.firings f on f.timer_id = t.id group by t.id, t.status",
        timers,
    )
    assert len(rows) == len(timers)
    assert {row["firings"] for row in rows} == {1}, "every timer fires exactly once"
    assert not any(row["is_early"] for row in rows)


async def switch_events_off(sql: Sql) -> None:
    """As `minoots events off`."""
    await sql.execute("update minoots.installation set events = false")
