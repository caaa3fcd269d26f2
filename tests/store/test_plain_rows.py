"""Plain statements on the tables: a row inserted by SQL is as lawful as one made by a request."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import RFC_4122

import asyncpg
import pytest

from minoots.store.database import Database
from tests.support.life import fire
from tests.support.timers import Sql, bundle, count, insert_timers, webhook


async def test_the_least_insert_fires_and_delivers_as_any_other(sql: Sql, database: Database) -> None:
    insert = "insert into minoots.timers (tenant_id, name, fire_at{}) values ('demo', 'x', {}{})"
    await sql.execute(insert.format("", "minoots.now() - interval '1 day'", ""))
    actions = json.dumps(bundle(webhook("http://127.0.0.1:1/")))
    await sql.execute(insert.format(", action_bundle", "minoots.now()", ", $1"), actions)
    assert (await fire(database)).fired == 2
    assert await count(sql, "status = 'fired'") == 2
    assert await count(sql, "status = 'settled'", "firings") == 1
    assert await count(sql, "status = 'pending' and lane = 'http://127.0.0.1:1'", "deliveries") == 1
    assert await count(sql, "kind = 'timer.fired'", "outbox") == 2
    assert await count(sql, "true", "outbox") == 2, "that it was scheduled is told by the function alone"


async def test_due_follows_the_instant_and_the_status_by_itself(sql: Sql) -> None:
    insert = "insert into minoots.timers (tenant_id, name, fire_at) values ('demo', 'x', $1) returning id"
    future = datetime(2030, 1, 1, tzinfo=UTC)
    timer_id = await sql.fetchval(insert, future)

    async def due(change: str = "name = name") -> datetime | None:
        return await sql.fetchval(f"update minoots.timers set {change} where id = $1 returning due_at", timer_id)

    assert await due() == future
    assert await due("fire_at = '2031-01-01 00:00Z'") == datetime(2031, 1, 1, tzinfo=UTC)
    assert await due("fire_at = '2001-01-01 00:00Z'") == await sql.fetchval("select created_at from minoots.timers")
    assert await due("status = 'paused'") is None
    assert await due("status = 'scheduled', fire_at = '2032-01-01 00:00Z'") == datetime(2032, 1, 1, tzinfo=UTC)
    assert await due("status = 'cancelled', cancelled_at = minoots.now()") is None
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await due("due_at = minoots.now()")


COLUMNS = {"tenant_id": "'demo'", "name": "'x'", "fire_at": "minoots.now() + interval '1 h'"}


@pytest.mark.parametrize(
    ("columns", "constraint"),
    [
        ({"tenant_id": "'a b'"}, "timers_tenant_id"),
        ({"tenant_id": "''"}, "timers_tenant_id"),
        ({"name": "''"}, "timers_name"),
        ({"name": "repeat('x', 201)"}, "timers_name"),
        ({"requested_by": "''"}, "timers_requested_by"),
        ({"status": "'armed'"}, "timers_status"),
        ({"duration_ms": "0"}, "timers_duration"),
        ({"fire_at": "'9000-01-01 00:00Z'"}, "timers_instants"),
        ({"fire_at": "'infinity'"}, "timers_instants"),
        ({"fire_at": "'1969-12-31 23:59Z'"}, "timers_instants"),
        ({"created_at": "'10000-01-01 00:00Z'"}, "timers_instants"),
        ({"created_at": "'-infinity'"}, "timers_instants"),
        ({"status": "'fired'"}, "timers_fired"),
        ({"status": "'settled'", "settled_at": "minoots.now()"}, "timers_fired"),
        ({"settled_at": "minoots.now()"}, "timers_settled"),
        ({"status": "'failed'", "failure_reason": "'x'"}, "timers_settled"),
        ({"status": "'cancelled'"}, "timers_cancelled"),
        ({"cancelled_at": "minoots.now()"}, "timers_cancelled"),
        ({"status": "'failed'", "settled_at": "minoots.now()"}, "timers_failure_reason"),
        ({"failure_reason": "'x'"}, "timers_failure_reason"),
        ({"cancel_reason": "repeat('x', 1001)"}, "timers_cancel_reason"),
        ({"cancelled_by": "repeat('x', 201)"}, "timers_cancelled_by"),
        ({"metadata": "'[]'"}, "timers_metadata"),
        ({"metadata": "'null'"}, "timers_metadata"),
        ({"metadata": "jsonb_build_object('a', repeat('x', 65536))"}, "timers_metadata_size"),
        ({"labels": "'[]'"}, "timers_labels"),
        ({"labels": "'null'"}, "timers_labels"),
        ({"labels": """'{"a":1}'"""}, "timers_labels"),
        ({"action_bundle": "'{}'"}, "timers_action_bundle"),
        ({"action_bundle": "'null'"}, "timers_action_bundle"),
        ({"agent_binding": "'{}'"}, "timers_agent_binding"),
        ({"agent_binding": "'null'"}, "timers_agent_binding"),
        ({"occurrence": "-1"}, "timers_occurrence"),
        ({"version": "0"}, "timers_version"),
        ({"traceparent": "'00-x'"}, "timers_traceparent"),
    ],
)
async def test_a_plain_insert_is_as_lawful_as_a_request(
    columns: dict[str, str], constraint: str, untouched: Sql
) -> None:
    given = COLUMNS | columns
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await untouched.execute(f"insert into minoots.timers ({', '.join(given)}) values ({', '.join(given.values())})")
    assert refused.value.constraint_name == constraint


@pytest.mark.parametrize("missing", ["fire_at", "tenant_id"])
async def test_without_tenant_or_instant_there_is_no_timer(missing: str, untouched: Sql) -> None:
    given = {name: value for name, value in COLUMNS.items() if name != missing}
    with pytest.raises((asyncpg.NotNullViolationError, asyncpg.CheckViolationError)):
        await untouched.execute(f"insert into minoots.timers ({', '.join(given)}) values ({', '.join(given.values())})")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("agent_binding", {"adapter": "mcp", "target": "http://h", "payloadTemplate": "x" * 262_144}),
        ("action_bundle", bundle({"id": "a", "kind": "command", "parameters": {"a": "x" * 262_144}})),
    ],
)
async def test_a_large_agent_binding_or_bundle_is_refused(column: str, value: Any, untouched: Sql) -> None:
    insert = f"insert into minoots.timers (tenant_id, fire_at, {column}) values ('demo', minoots.now(), $1)"
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await untouched.execute(insert, json.dumps(value))
    assert refused.value.constraint_name == f"timers_{column}_size"


async def test_deleting_a_timer_takes_what_belongs_to_it(sql: Sql, database: Database) -> None:
    gone, _ = await insert_timers(sql, 2, actions=bundle(webhook("http://h/")))
    await fire(database)
    await sql.execute("delete from minoots.timers where id = $1", gone)
    assert [await count(sql, "true", table) for table in ("timers", "firings", "deliveries")] == [1, 1, 1]


async def test_ids_made_by_sql_sort_by_the_time_they_were_made(sql: Sql) -> None:
    for _ in range(3):
        await insert_timers(sql, 1)
    rows = await sql.fetch("select id, created_at from minoots.timers order by created_at, id")
    assert len(rows) == 3
    for row in rows:
        assert row["id"].version == 7
        assert row["id"].variant == RFC_4122
        assert abs(int.from_bytes(row["id"].bytes[:6]) - row["created_at"].timestamp() * 1000) <= 1
