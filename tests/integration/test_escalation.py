"""Escalation: a further delivery joins in beside one that keeps failing, and the firing still ends once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from minoots.domain.outcome import Answer, Retry
from minoots.orchestrator.intake import Intake
from minoots.store.database import Database
from minoots.store.results import Result, record_results
from tests.integration.test_orchestrator import PROMPT, ended
from tests.support.life import DEAD, fire_timers, make_deliveries_due, settle
from tests.support.orchestrating import orchestrating
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually


def by_path(**statuses: int) -> Callable[[web.Request, int], Awaitable[web.StreamResponse]]:
    """The same status for whatever comes to a path; 200 for others."""

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        return web.Response(status=statuses.get(request.path[1:], 200))

    return answer


def escalating(action: dict[str, Any], after: int, to: dict[str, Any]) -> dict[str, Any]:
    return action | {"escalation": {"afterAttempts": after, "escalatesTo": to}}


def paged(url: str, **more: Any) -> dict[str, Any]:
    """What is escalated to goes without an id."""
    return {"kind": "webhook", "parameters": {"url": url}} | more


async def shown(sql: Sql, timer: UUID) -> list[tuple[str, str, str | None, int]]:
    rows = await sql.fetch(
        "select action_id, status, escalated_from, attempt_count from minoots.deliveries where timer_id = $1 "
        "order by position, action_id",
        timer,
    )
    return [tuple(row) for row in rows]


async def told(sql: Sql, kind: str) -> list[dict[str, Any]]:
    rows = await sql.fetch("select data from minoots.outbox where kind = $1 order by id", kind)
    return [json.loads(row["data"]) for row in rows]


async def make_due(sql: Sql) -> None:
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() where next_attempt_at is not null")


async def test_a_delivered_escalation_does_not_save_the_firing(database: Database, sql: Sql) -> None:
    async with Receiver(by_path(call=500)) as receiver, orchestrating(database):
        call = escalating(webhook(receiver.url("/call")), 2, paged(receiver.url("/page")))
        (timer,) = await fire_timers(database, sql, bundle(call, maxAttempts=3, **PROMPT), events=True)
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
    assert await shown(sql, timer) == [("call", "dead", None, 3), ("call~1", "delivered", "call", 1)]
    paths = [r.path for r in receiver.requests]
    assert paths.count("/call") == 3
    assert paths.count("/page") == 1
    assert paths.index("/page") >= 2, "after the second attempt"
    page = next(r for r in receiver.requests if r.path == "/page")
    assert page.headers["webhook-id"] == f"{timer}_1_call~1"
    assert json.loads(page.body)["timer"]["id"] == str(timer)
    row = await sql.fetchrow("select status, failure_reason, version from minoots.timers where id = $1", timer)
    assert tuple(row) == ("failed", "action call: gave up after 3 attempts: HTTP 500", 3)
    firing = await sql.fetchrow("select status, open_deliveries, dead_deliveries from minoots.firings")
    assert tuple(firing) == ("failed", 0, 1)
    (escalated,) = await told(sql, "delivery.escalated")
    assert escalated["reason"] == "action call: 2 attempts failed: HTTP 500"
    assert (escalated["delivery"]["actionId"], escalated["delivery"]["escalatedFrom"]) == ("call~1", "call")
    assert escalated["firing"]["status"] == "dispatching"
    assert [(len(await told(sql, kind)), kind) for kind in ("timer.failed", "timer.settled")] == [
        (1, "timer.failed"), (0, "timer.settled"),
    ]  # fmt: skip


async def test_an_action_that_is_mended_settles_the_firing_with_its_escalation(database: Database, sql: Sql) -> None:
    async def once(request: web.Request, nth: int) -> web.StreamResponse:
        return web.Response(status=500 if request.path == "/call" and nth == 1 else 200)

    async with Receiver(once) as receiver, orchestrating(database):
        call = escalating(webhook(receiver.url("/call")), 1, paged(receiver.url("/page")))
        (timer,) = await fire_timers(database, sql, bundle(call, **PROMPT))
        await eventually(ended(sql), seconds=30)
    assert await shown(sql, timer) == [("call", "delivered", None, 2), ("call~1", "delivered", "call", 1)]
    assert await count(sql, "status = 'settled' and version = 3") == 1


async def test_what_gives_up_before_escalates_at_that_moment(database: Database, sql: Sql) -> None:
    async with Receiver(by_path(call=410)) as receiver, orchestrating(database):
        call = escalating(webhook(receiver.url("/call")), 5, paged(receiver.url("/page")))
        (timer,) = await fire_timers(database, sql, bundle(call, **PROMPT), events=True)
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
    assert await shown(sql, timer) == [("call", "dead", None, 1), ("call~1", "delivered", "call", 1)]
    (escalated,) = await told(sql, "delivery.escalated")
    assert escalated["reason"] == "action call: HTTP 410: the receiver is gone for good"


@pytest.mark.parametrize("deep", [1, 4])
async def test_what_escalates_to_what_escalates(deep: int, database: Database, sql: Sql) -> None:
    """Each level has its own parameters and its own count of attempts, by the bundle's policy."""
    async with Receiver(by_path(**{f"level{n}": 500 for n in range(deep)})) as receiver, orchestrating(database):
        last = paged(receiver.url(f"/level{deep}"))
        for level in reversed(range(1, deep)):
            last = escalating(paged(receiver.url(f"/level{level}")), 1, last)
        (timer,) = await fire_timers(
            database, sql, bundle(escalating(webhook(receiver.url("/level0"), "a"), 1, last), maxAttempts=2, **PROMPT)
        )
        await eventually(ended(sql), seconds=30)
    rows = await shown(sql, timer)
    assert [row[0] for row in rows] == ["a", *(f"a~{n}" for n in range(1, deep + 1))]
    assert [row[1] for row in rows] == ["dead"] * deep + ["delivered"]
    assert [row[2] for row in rows] == [None, "a", *(f"a~{n}" for n in range(1, deep))]
    paths = [r.path for r in receiver.requests]
    assert [paths.count(f"/level{n}") for n in range(deep + 1)] == [2] * deep + [1]
    assert await count(sql, "status = 'failed' and open_deliveries = 0 and dead_deliveries = " + str(deep), "firings")


async def test_one_escalates_in_the_batch_in_which_its_sibling_ends(database: Database, sql: Sql) -> None:
    """Both answers come at the same moment; the count of open deliveries stays right."""
    async with Receiver(by_path(bad=410)) as receiver, orchestrating(database):
        bad = escalating(webhook(receiver.url("/bad"), "bad"), 1, paged(receiver.url("/page")))
        actions = bundle(webhook(receiver.url("/good"), "good"), bad, concurrency=2, **PROMPT)
        timers = await fire_timers(database, sql, actions, many=40)
        await eventually(ended(sql, 40), seconds=30)
    for timer in timers:
        assert await shown(sql, timer) == [
            ("good", "delivered", None, 1), ("bad", "dead", None, 1), ("bad~1", "delivered", "bad", 1),
        ]  # fmt: skip
    assert await count(sql, "status = 'failed' and version = 3") == 40
    assert await count(sql, "open_deliveries = 0 and dead_deliveries = 1", "firings") == 40
    assert await count(sql, "outcome = 'delivered'", "attempts") == 80


async def test_an_escalation_takes_a_place_of_the_bundle(database: Database, sql: Sql) -> None:
    """With a concurrency of one, what keeps failing and what it escalates to are never under way at once."""
    under_way = most = 0

    async def overlap(request: web.Request, _: int) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.03)
        under_way -= 1
        return web.Response(status=500 if request.path == "/call" else 200)

    async with Receiver(overlap) as receiver, orchestrating(database, "one"), orchestrating(database, "two"):
        page = escalating(paged(receiver.url("/call")), 1, paged(receiver.url("/page")))
        call = escalating(webhook(receiver.url("/call")), 1, page)
        await fire_timers(database, sql, bundle(call, maxAttempts=4, backoffInitialMs=0))
        await eventually(ended(sql), seconds=30)
    assert most == 1
    assert await count(sql, "status = 'failed'") == 1
    assert len(receiver.requests) == 9


async def test_a_recurring_timer_escalates_by_what_its_firing_fired_with(database: Database, sql: Sql) -> None:
    async with Receiver(by_path(call=410)) as receiver:
        call = escalating(webhook(receiver.url("/call")), 1, paged(receiver.url("/page")))
        timer = await sql.fetchval(
            "select minoots.schedule_timer('demo', schedule => '{\"every\": \"1h\"}', action_bundle => $1)",
            json.dumps(bundle(call)),
        )
        await settle(database)
        await sql.execute("select minoots.fire_timer('demo', $1)", timer)
        await settle(database)
        await sql.execute("select minoots.update_timer('demo', $1, action_bundle => $2)", timer,
                          json.dumps(bundle(webhook("http://127.0.0.1:9/"))))  # fmt: skip
        await make_deliveries_due(sql)
        async with orchestrating(database):
            await eventually(lambda: _is(sql, "status = 'failed'", "firings", 1), seconds=30)
    assert [r.path for r in receiver.requests] == ["/call", "/page"]
    assert await count(sql, "true", "open_firings") == 0


async def _is(sql: Sql, condition: str, table: str, many: int) -> bool:
    return await count(sql, condition, table) == many


async def test_sixteen_actions_three_at_once_under_two_orchestrators_settle_once(database: Database, sql: Sql) -> None:
    """Some fail once, two give up and escalate: each attempt is one request, and each firing ends once."""
    under_way: dict[str, int] = {}
    most: dict[str, int] = {}

    async def answer(request: web.Request, nth: int) -> web.StreamResponse:
        timer = request.headers["x-minoots-timer-id"]
        under_way[timer] = under_way.get(timer, 0) + 1
        most[timer] = max(most.get(timer, 0), under_way[timer])
        await asyncio.sleep(0.005)
        under_way[timer] -= 1
        number = request.path[1:]
        if number in ("3", "12"):
            return web.Response(status=500)
        return web.Response(status=500 if nth == 1 and number in ("0", "7", "15") else 200)

    async with Receiver(answer) as receiver:
        actions = [webhook(receiver.url(f"/{number}"), f"a{number}") for number in range(16)]
        for number in (3, 12):
            actions[number] = escalating(actions[number], 1, paged(receiver.url("/page")))
        made = bundle(*actions, concurrency=3, maxAttempts=2, **PROMPT)
        timers = await fire_timers(database, sql, made, many=8, events=True)
        await make_due(sql)
        # Neither has room for all that may be under way, so that both take part.
        async with orchestrating(database, "one", 8), orchestrating(database, "two", 8):
            await eventually(ended(sql, 8), seconds=60)
        requests = len(receiver.requests)
    assert max(most.values()) == 3
    # 16 actions, 3 of them twice and 2 of them for good twice, and 2 escalations.
    assert requests == 8 * (16 + 3 + 2 + 2)
    assert await count(sql, "true", "attempts") == requests
    assert await count(sql, "status = 'failed' and version = 3") == 8, "fired once, failed once"
    assert await count(sql, "status = 'failed' and open_deliveries = 0 and dead_deliveries = 2", "firings") == 8
    assert await count(sql, "status = 'delivered'", "deliveries") == 8 * 16
    assert await count(sql, "kind in ('timer.failed', 'timer.settled')", "outbox") == 8
    assert await count(sql, "kind = 'delivery.escalated'", "outbox") == 16
    assert len({row["node"] for row in await sql.fetch("select distinct node from minoots.attempts")}) == 2
    assert len(timers) == 8


async def test_what_is_confirmed_before_its_answer_is_lost_does_not_escalate(database: Database, sql: Sql) -> None:
    call = escalating(
        webhook("http://127.0.0.1:9/", acknowledgementTimeoutMs=60_000), 1, paged("http://127.0.0.1:9/page")
    )
    (timer,) = await fire_timers(database, sql, bundle(call))
    (lease,) = await Intake(database, "here", 5_000).take_due(10)
    await sql.execute("update minoots.deliveries set ack_outcome = 'done', ack_at = minoots.now()")
    async with database.transaction() as connection:
        lost = Result(lease, Retry("HTTP 500", Answer(1, 500)), DEAD)
        assert (await record_results(database, connection, [lost]))[0] == 1
    assert await shown(sql, timer) == [("call", "confirmed", None, 1)]
    assert await count(sql, "status = 'settled'") == 1
