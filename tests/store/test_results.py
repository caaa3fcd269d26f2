"""Firings of recurring timers that end in several batches at once: each is counted, and no two batches deadlock."""

import asyncio
import json
from uuid import UUID

import asyncpg
import pytest

from minoots.domain.outcome import Answer, Rejected
from minoots.orchestrator.intake import Intake
from minoots.store.database import Database
from minoots.store.deliveries import Lease
from minoots.store.results import Result, record_results
from tests.support.life import DEAD, make_deliveries_due, settle
from tests.support.timers import Sql, bundle, webhook
from tests.support.waiting import eventually

FAILED = Rejected("HTTP 410", Answer(status_code=410, duration_ms=1))


async def make_open(database: Database, sql: Sql, most: int, timers: int, firings: int) -> list[list[Lease]]:
    """Timers that pause after `most` failures, by id: the leases of so many open firings of each, by occurrence."""
    schedule = json.dumps({"every": "1h", "pauseAfterFailures": most})
    actions = json.dumps(bundle(webhook("http://127.0.0.1:9/")))
    for _ in range(timers):
        made = await sql.fetchval(
            "select minoots.schedule_timer('demo', schedule => $1, action_bundle => $2)", schedule, actions
        )
        for _ in range(firings):
            await sql.execute("select minoots.fire_timer('demo', $1)", made)
    await settle(database)
    await make_deliveries_due(sql)
    by_timer: dict[UUID, list[Lease]] = {}
    for lease in sorted(await Intake(database, "here", 5_000).take_due(100), key=lambda lease: lease.key):
        by_timer.setdefault(lease.key.timer_id, []).append(lease)
    return [by_timer[timer_id] for timer_id in sorted(by_timer)]


async def record(database: Database, *leases: Lease) -> int:
    """All of them have given up, in a batch of their own."""
    async with database.transaction() as connection:
        return (await record_results(database, connection, [Result(lease, FAILED, DEAD) for lease in leases]))[0]


async def is_waiting(sql: Sql) -> bool:
    """Whether somebody waits for a lock of another."""
    return await sql.fetchval(
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')"
    )


async def standing(sql: Sql) -> list[tuple[str, int]]:
    rows = await sql.fetch("select status, failures from minoots.timers order by id")
    return [(row["status"], row["failures"]) for row in rows]


async def test_failures_that_two_batches_record_at_once_are_both_counted(database: Database, sql: Sql) -> None:
    [[one, other]] = await make_open(database, sql, most=2, timers=1, firings=2)
    async with database.transaction() as connection:
        await record_results(database, connection, [Result(one, FAILED, DEAD)])
        second = asyncio.create_task(record(database, other))
        await eventually(lambda: is_waiting(sql))
    assert await second == 1
    assert await standing(sql) == [("paused", 2)]
    paused = await sql.fetch("select data from minoots.outbox where kind = 'timer.paused'")
    assert [json.loads(row["data"])["reason"] for row in paused] == ["2 firings in a row have failed"]


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_timers_that_count_are_locked_in_the_order_of_their_ids(
    is_reversed: bool, database: Database, sql: Sql, database_url: str
) -> None:
    """While one has to wait for the first, it holds none of the others."""
    leases = [lease for [lease] in await make_open(database, sql, most=5, timers=4, firings=1)]
    first, *others = [lease.key.timer_id for lease in leases]
    holder = await asyncpg.connect(database_url)
    async with holder.transaction():
        await holder.execute("select from minoots.timers where id = $1 for no key update", first)
        batch = asyncio.create_task(record(database, *(leases[::-1] if is_reversed else leases)))
        await eventually(lambda: is_waiting(sql))
        async with sql.transaction():
            free = await sql.fetch(
                "select id from minoots.timers where id = any($1) for no key update skip locked", others
            )
        await holder.execute("update minoots.timers set failures = 2 where id = $1", first)
    await holder.close()
    assert await batch == 4
    assert {row["id"] for row in free} == set(others)
    assert await standing(sql) == [("scheduled", 3), *[("scheduled", 1)] * 3]


async def test_only_those_that_count_are_locked(database: Database, sql: Sql) -> None:
    """A timer that counts nothing costs its results no further statement, and they wait for nobody who holds it."""
    await sql.execute(
        "select minoots.schedule_timer('demo', schedule => '{\"every\": \"1h\"}', action_bundle => $1)",
        json.dumps(bundle(webhook("http://127.0.0.1:9/"))),
    )
    await settle(database)
    await sql.execute("select minoots.fire_timer('demo', id) from minoots.timers")
    await settle(database)
    await make_deliveries_due(sql)
    [lease] = await Intake(database, "here", 5_000).take_due(100)
    async with sql.transaction():
        await sql.execute("select from minoots.timers for no key update")
        assert await record(database, lease) == 1
    assert await standing(sql) == [("scheduled", 0)]
