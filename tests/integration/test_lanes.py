"""Lanes at work, with real receivers: a dead one opens and closes, limits hold, and nobody waits for another's."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from minoots.store.database import Database
from tests.support.laned import hold, lane_of, set_limits
from tests.support.orchestrating import orchestrating
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.timers import Sql, count
from tests.support.waiting import eventually

# Tries again soon, and for as long as a test may take.
PATIENT = {"backoffInitialMs": 200, "backoffMaxMs": 400, "maxAttempts": 1000}


def delivered(sql: Sql, many: int) -> Callable[[], Awaitable[bool]]:
    async def are_delivered() -> bool:
        return await count(sql, "status = 'delivered'", "deliveries") >= many

    return are_delivered


async def has_state(sql: Sql, url: str, state: str, tenant: str = "demo") -> bool:
    row = await lane_of(sql, url, tenant)
    return row is not None and row["state"] == state


async def test_a_dead_destination_opens_is_tried_by_one_and_closes_when_it_works(database: Database, sql: Sql) -> None:
    works = False

    async def answer(_: web.Request, __: int) -> web.StreamResponse:
        return web.Response(status=200 if works else 503)

    async with Receiver(answer) as receiver, orchestrating(database):
        await hold(sql, receiver.url(), 200, **PATIENT)
        await eventually(lambda: has_state(sql, receiver.url(), "open"), seconds=30)
        row = await lane_of(sql, receiver.url())
        assert (row["reason"], row["openings"] >= 1) == ("HTTP 503", True)
        await asyncio.sleep(0.3)
        sent = len(receiver.requests)
        tried = await sql.fetchval("select count(*) from minoots.deliveries where attempt_count = 0")
        assert tried >= 100, "what waits for the lane is not charged"

        await eventually(lambda: _reopened(sql), seconds=30)
        assert len(receiver.requests) - sent <= 10, "one probe at a time"
        works = True
        await sql.execute("update minoots.lanes set probe_at = minoots.now() where state = 'open'")
        await eventually(delivered(sql, 200), seconds=60)
    row = await lane_of(sql, receiver.url())
    assert (row["state"], row["failures"], row["opened_at"]) == ("closed", 0, None)
    told = [
        row["kind"] for row in await sql.fetch("select kind from minoots.outbox where kind like 'lane.%' order by id")
    ]
    assert told[:3] == ["lane.opened", "lane.half_opened", "lane.opened"]
    assert told[-2:] == ["lane.half_opened", "lane.closed"]


async def _reopened(sql: Sql) -> bool:
    return await count(sql, "kind = 'lane.opened'", "outbox") >= 2


async def test_an_open_lane_is_open_after_a_restart_and_for_every_orchestrator(
    database: Database, database_url: str, sql: Sql
) -> None:
    async with Receiver() as receiver:
        await hold(sql, receiver.url(), 30)
        lane = receiver.url().removesuffix("/hook")
        await sql.execute(
            "insert into minoots.lanes (tenant_id, lane, state, failures, openings, opened_at, probe_at, reason) "
            "values ('demo', $1, 'open', 10, 3, minoots.now(), minoots.now() + interval '1 h', 'HTTP 500')",
            lane,
        )
        environ = {"MINOOTS_DATABASE_URL": database_url}
        async with RoleProcess(["orchestrator"], environ), RoleProcess(["orchestrator"], environ), Receiver() as other:
            await hold(sql, other.url(), 30)
            await eventually(delivered(sql, 30), seconds=30)
            assert receiver.requests == []
            await sql.execute("update minoots.lanes set probe_at = minoots.now()")
            await eventually(delivered(sql, 60), seconds=30)
    assert await has_state(sql, f"{lane}/", "closed")


async def test_no_more_are_at_a_receiver_at_once_than_its_limit_over_all_orchestrators(
    database: Database, sql: Sql
) -> None:
    here = most = 0

    async def note(_: web.Request, __: int) -> web.StreamResponse:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0.01)
        here -= 1
        return web.Response()

    async with Receiver(note) as receiver:
        await set_limits(sql, receiver.url().removesuffix("/hook"), concurrency=3)
        await hold(sql, receiver.url(), 150)
        async with orchestrating(database, "one"), orchestrating(database, "two"):
            await eventually(delivered(sql, 150), seconds=60)
    assert most == 3
    assert len(receiver.requests) == 150


async def test_a_receiver_sees_no_more_a_second_than_its_rate_over_all_orchestrators(
    database: Database, sql: Sql
) -> None:
    async with Receiver() as receiver:
        await set_limits(sql, receiver.url().removesuffix("/hook"), rate=40)
        await hold(sql, receiver.url(), 100)
        began = time.monotonic()
        async with orchestrating(database, "one"), orchestrating(database, "two"):
            await eventually(delivered(sql, 100), seconds=60)
        took = time.monotonic() - began
    at = sorted(request.at for request in receiver.requests)
    windows = [sum(start <= other < start + 1 for other in at) for start in at]
    # A tenth of a second's worth at once, and what a busy machine let pile up on the way.
    assert max(windows) <= 40 + 4 + 8
    assert took >= (100 - 4) / 40 * 0.95


async def test_a_tenant_whose_destinations_hang_delays_no_other(database: Database, sql: Sql) -> None:
    """Tenant a holds 5,000 deliveries for destinations that do not answer; those of b arrive as if it were alone."""

    async def hang(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    hanging = [Receiver(hang) for _ in range(10)]
    async with Receiver() as good:
        for receiver in hanging:
            await receiver.__aenter__()
        try:
            for receiver in hanging:
                await hold(sql, receiver.url(), 500, tenant="a", timeoutMs=30_000)
            async with orchestrating(database, capacity=64):
                await eventually(lambda: _hang(hanging, 64), seconds=30)
                began = time.monotonic()
                for _ in range(10):
                    await hold(sql, good.url(), 20, tenant="b", ago_s=0)
                    await asyncio.sleep(0.05)
                await eventually(delivered(sql, 200), seconds=20)
                took = time.monotonic() - began
        finally:
            for receiver in hanging:
                await receiver.__aexit__()
    assert took < 10, "none of them waited for a time-out of the others"
    assert await count(sql, "tenant_id = 'a' and attempt_count > 0", "deliveries") <= 64, "waiting is not charged"
    under_way = await sql.fetch(
        "select distinct lane from minoots.deliveries where tenant_id = 'a' and leased_at is not null"
    )
    assert len(under_way) == 10, "its destinations take turns"


async def _hang(receivers: list[Receiver], many: int) -> bool:
    return sum(len(receiver.requests) for receiver in receivers) >= many


async def test_a_healthy_lane_leaves_no_row(database: Database, sql: Sql) -> None:
    async with Receiver() as receiver, orchestrating(database):
        await hold(sql, receiver.url(), 50)
        await eventually(delivered(sql, 50), seconds=30)
    assert await count(sql, "true", "lanes") == 0


async def test_a_success_forgets_the_failures_before_it(database: Database, sql: Sql) -> None:
    async def every_third(_: web.Request, nth: int) -> web.StreamResponse:
        return web.Response(status=200 if nth > 2 else 500)

    async with Receiver(every_third) as receiver, orchestrating(database):
        await hold(sql, receiver.url(), 3, backoffInitialMs=20, backoffMaxMs=40)
        await eventually(delivered(sql, 3), seconds=30)
        row: Any = await lane_of(sql, receiver.url())
    assert (row["state"], row["failures"]) == ("closed", 0)
