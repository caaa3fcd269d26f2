"""Fired is not done: receivers confirm their work in time, or it goes on by the retry policy."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from minoots.embedded.ports import free_port
from minoots.orchestrator.overdue import Overdue
from minoots.settings import Address
from minoots.store.database import Database
from tests.integration.test_orchestrator import PROMPT, attempts_of, delivery_of, ended, timer_of
from tests.support.acknowledging import Answered, Doors, serving, until_open
from tests.support.life import fire_timers
from tests.support.orchestrating import orchestrating
from tests.support.processes import RoleProcess
from tests.support.receiver import Received, Receiver
from tests.support.timers import Sql, bundle, switch_events_off, webhook
from tests.support.waiting import eventually

LONG_MS = 600_000


@pytest.fixture
async def doors(database: Database) -> AsyncIterator[Doors]:
    async with serving(database) as opened:
        yield opened


def awaiting(receiver: Receiver, timeout_ms: int = LONG_MS, path: str = "/hook", **parameters: Any) -> dict[str, Any]:
    return webhook(receiver.url(path), acknowledgementTimeoutMs=timeout_ms, **parameters)


def is_status(sql: Sql, timer_id: UUID, status: str, action_id: str = "call") -> Callable[[], Awaitable[bool]]:
    async def is_it() -> bool:
        return (await delivery_of(sql, timer_id, action_id))["status"] == status

    return is_it


async def arrived(receiver: Receiver, many: int = 1) -> Received:
    """The latest of so many requests."""

    async def has_come() -> bool:
        return len(receiver.requests) >= many

    await eventually(has_come, seconds=30)
    return receiver.requests[-1]


async def events(sql: Sql, family: str = "delivery.") -> list[tuple[str, Any]]:
    rows = await sql.fetch("select kind, data from minoots.outbox where starts_with(kind, $1) order by id", family)
    return [(row["kind"].removeprefix(family), json.loads(row["data"])) for row in rows]


async def make_due(sql: Sql) -> None:
    """Deliveries, retries and deadlines come at once."""
    await sql.execute(
        "update minoots.deliveries set next_attempt_at = minoots.now() where next_attempt_at is not null "
        "and lease_id is null"
    )


# The states


async def test_done_confirms_the_delivery_and_settles_the_firing(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver)), events=True)
        await make_due(sql)
        got = await arrived(receiver)
        assert got.headers["x-minoots-ack-url"] == f"{doors.url}/timers/{timer}/firings/1/deliveries/call/ack"
        await eventually(is_status(sql, timer, "awaiting"))
        shown = (await doors.firing(timer))["deliveries"][0]
        assert shown["ack"] is None
        assert shown["deliveredAt"] is None
        assert shown["nextAttemptAt"] is not None, "the deadline"
        assert shown["attempts"][0]["outcome"] == "delivered"
        assert (await timer_of(sql, timer))["status"] == "fired", "not done yet"

        status, answer = await doors.ack(got, "done", note="brewed", result={"cups": 3, "warm": [True, None]})
        assert status == 200
        assert answer["status"] == "confirmed"
        assert answer["attempts"][0]["outcome"] == "delivered"
        ack = answer["ack"]
        assert (ack["outcome"], ack["note"], ack["result"]) == ("done", "brewed", {"cups": 3, "warm": [True, None]})
        assert ack["at"].endswith("Z")
        # Settled by the acknowledgement itself.
        assert (await timer_of(sql, timer))["status"] == "settled"
        firing = await doors.firing(timer)
        assert firing["status"] == "settled"
        assert firing["deliveries"] == [answer]
        assert len(receiver.requests) == 1
    told = await events(sql)
    assert [kind for kind, _ in told] == ["delivered", "confirmed"]
    assert [data["delivery"]["status"] for _, data in told] == ["awaiting", "confirmed"]
    assert told[1][1]["delivery"]["ack"] == ack
    assert [kind for kind, _ in await events(sql, "timer.")][-1] == "settled"


async def test_working_gives_more_time_as_often_as_it_is_said(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver, 6_000), maxAttempts=1))
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        first = (await delivery_of(sql, timer))["next_attempt_at"]
        deadlines = []
        for minutes in (10, 20, 30):
            status, answer = await doors.ack(got, "working", note=f"{minutes} minutes", extendMs=minutes * 60_000)
            assert status == 200
            assert (answer["status"], answer["ack"]["outcome"]) == ("awaiting", "working")
            deadlines.append(answer["nextAttemptAt"])
        assert deadlines == sorted(set(deadlines))
        # Less than it has already takes nothing away, and without a number it is as much as at first.
        for more in ({"extendMs": 1}, {}):
            status, answer = await doors.ack(got, "working", **more)
            assert (status, answer["nextAttemptAt"]) == (200, deadlines[-1])

        async def is_past_the_first() -> bool:
            return await sql.fetchval("select minoots.now() > $1::timestamptz + interval '1 s'", first)

        await eventually(is_past_the_first, seconds=30)
        assert (await doors.ack(got, "done"))[1]["status"] == "confirmed"
        assert (await timer_of(sql, timer))["status"] == "settled"
        assert len(receiver.requests) == 1


async def test_not_confirmed_is_overdue_then_tried_again_then_dead(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        late = bundle(awaiting(receiver, 150), maxAttempts=3, **PROMPT)
        (timer,) = await fire_timers(database, sql, late, events=True)
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
    assert len(receiver.requests) == 3
    assert len({(r.headers["webhook-id"], r.headers["x-minoots-ack-token"], r.body) for r in receiver.requests}) == 1
    delivery = await delivery_of(sql, timer)
    assert (delivery["status"], delivery["attempt_count"], delivery["unknown_count"]) == ("dead", 3, 0)
    assert delivery["dead_reason"] == "gave up after 3 attempts: not acknowledged within 0.15 s"
    for attempt in await attempts_of(sql, timer):
        assert (attempt["outcome"], attempt["error"]) == ("delivered", "not acknowledged within 0.15 s")
    told = await events(sql)
    assert [kind for kind, _ in told] == ["delivered", "overdue", "retrying"] * 2 + ["delivered", "overdue", "dead"]
    assert [data["delivery"]["status"] for _, data in told[:3]] == ["awaiting", "overdue", "pending"]
    assert {data["reason"] for kind, data in told if kind in ("overdue", "retrying")} == {
        "not acknowledged within 0.15 s"
    }
    row = await timer_of(sql, timer)
    assert (row["status"], row["failure_reason"]) == ("failed", f"action call: {delivery['dead_reason']}")


async def test_failed_is_overdue_at_once_and_the_next_attempt_may_be_done(
    database: Database, sql: Sql, doors: Doors
) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), **PROMPT), events=True)
        await make_due(sql)
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        status, answer = await doors.ack(got, "failed", note="no beans", result={"left": 0})
        assert (status, answer["status"], answer["ack"]["note"]) == (200, "overdue", "no beans")
        again = await arrived(receiver, 2)
        await eventually(is_status(sql, timer, "awaiting"))
        shown = (await doors.firing(timer))["deliveries"][0]
        assert shown["ack"] is None, "what was said of the first attempt says nothing of the second"
        assert shown["attempts"][0]["error"] == "acknowledged as failed: no beans"
        assert (await doors.ack(again, "done"))[1]["status"] == "confirmed"
        assert (await timer_of(sql, timer))["status"] == "settled"
    assert [kind for kind, _ in await events(sql)] == ["delivered", "overdue", "retrying", "delivered", "confirmed"]
    assert (await events(sql))[1][1]["reason"] == "acknowledged as failed: no beans"


async def test_failed_with_no_attempt_left_is_dead_and_what_was_said_stays(
    database: Database, sql: Sql, doors: Doors
) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), maxAttempts=1))
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        assert (await doors.ack(got, "failed", note="no beans"))[0] == 200
        await eventually(ended(sql), seconds=30)
        shown = (await doors.firing(timer))["deliveries"][0]
        assert shown["deadReason"] == "gave up after 1 attempt: acknowledged as failed: no beans"
        assert (shown["status"], shown["ack"]["outcome"]) == ("dead", "failed")
        assert (await doors.ack(got, "failed"))[0] == 200, "the answer was lost, say: a repetition"
        status, problem = await doors.ack(got, "done")
        assert (status, problem["deliveryStatus"]) == (409, "dead")


async def test_a_redriven_delivery_may_be_done_under_the_same_token(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), maxAttempts=1))
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        assert (await doors.ack(got, "failed"))[0] == 200
        await eventually(ended(sql), seconds=30)
        assert (await timer_of(sql, timer))["status"] == "failed"
        asked = {"deliveries": [{"timerId": str(timer), "occurrence": 1, "actionId": "call"}]}
        key = {"x_api_key": "mnt_example", "x_tenant_id": "demo"}
        assert (await doors.post(f"{doors.url}/dead-letters/redrive", asked, **key))[0] == 200
        again = await arrived(receiver, 2)
        assert again.headers["x-minoots-ack-token"] == got.headers["x-minoots-ack-token"]
        await eventually(is_status(sql, timer, "awaiting"))
        status, answer = await doors.ack(got, "done")
        assert (status, answer["status"], answer["redrives"]) == (200, "confirmed", 1)
        await eventually(ended(sql), seconds=30)
        assert (await timer_of(sql, timer))["status"] == "settled"


async def test_overdue_escalates_as_other_failures_do(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        page = {"kind": "webhook", "parameters": {"url": receiver.url("/page"), "acknowledgementTimeoutMs": LONG_MS}}
        call = awaiting(receiver, 100) | {"escalation": {"afterAttempts": 2, "escalatesTo": page}}
        (timer,) = await fire_timers(database, sql, bundle(call, maxAttempts=2, **PROMPT))

        async def is_paged() -> Received | None:
            return next((r for r in receiver.requests if r.path == "/page"), None)

        paged = await eventually(is_paged, seconds=30)
        await eventually(is_status(sql, timer, "awaiting", "call~1"))
        assert paged.headers["x-minoots-ack-url"].endswith("/deliveries/call~1/ack")
        assert (await doors.ack(paged, "done"))[1]["status"] == "confirmed"
        await eventually(ended(sql), seconds=30)
    assert (await delivery_of(sql, timer))["status"] == "dead"
    assert sum(r.path == "/hook" for r in receiver.requests) == 2


async def test_a_webhook_without_a_time_to_acknowledge_gets_no_token(
    database: Database, sql: Sql, doors: Doors
) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url())))
        await eventually(ended(sql), seconds=30)
        assert not [name for name in receiver.requests[0].headers if name.startswith("x-minoots-ack")]
        path = f"{doors.url}/timers/{timer}/firings/1/deliveries/call/ack"
        status, problem = await doors.post(path, {"outcome": "done"}, x_api_key="mnt_example", x_tenant_id="demo")
        assert (status, problem["type"]) == (409, "urn:minoots:problem:acknowledgement-conflict")
        assert "acknowledgementTimeoutMs" in problem["detail"]


# Heard before the attempt is recorded


@pytest.mark.parametrize("fate", ["taken", "answered with 500", "cut off"])
async def test_done_before_the_answer_is_the_end_whatever_the_answer(
    fate: str, database: Database, sql: Sql, doors: Doors
) -> None:
    said: list[Answered] = []

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        got = Received(request.path, "POST", {k.lower(): v for k, v in request.headers.items()}, b"", 0)
        said.append(await doors.ack(got, "done", result=[1]))
        if fate == "cut off":
            assert request.transport is not None
            request.transport.abort()
        return web.Response(status=200 if fate == "taken" else 500)

    async with Receiver(answer) as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), **PROMPT), events=True)
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
        assert len(receiver.requests) == 1
    assert [(status, answer["ack"]["outcome"]) for status, answer in said] == [(200, "done")]
    delivery = await delivery_of(sql, timer)
    assert (delivery["status"], delivery["attempt_count"]) == ("confirmed", 1)
    assert json.loads(delivery["ack_result"]) == [1]
    assert (await timer_of(sql, timer))["status"] == "settled"
    (attempt,) = await attempts_of(sql, timer)
    assert attempt["outcome"] == ("delivered" if fate == "taken" else "retry")
    assert [kind for kind, _ in await events(sql)] == ["confirmed"]


async def test_failed_before_the_answer_is_tried_again(database: Database, sql: Sql, doors: Doors) -> None:
    async def answer(request: web.Request, nth: int) -> web.StreamResponse:
        got = Received(request.path, "POST", {k.lower(): v for k, v in request.headers.items()}, b"", 0)
        assert (await doors.ack(got, "failed" if nth == 1 else "done"))[0] == 200
        return web.Response()

    async with Receiver(answer) as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), **PROMPT), events=True)
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
    assert [kind for kind, _ in await events(sql)] == ["overdue", "retrying", "confirmed"]
    assert (await timer_of(sql, timer))["status"] == "settled"
    assert len(receiver.requests) == 2


async def test_working_holds_off_the_retry_of_an_answer_that_was_lost(
    database: Database, sql: Sql, doors: Doors
) -> None:
    """The receiver has it, and says so before and after its answer timed out: nothing is sent again."""

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        got = Received(request.path, "POST", {k.lower(): v for k, v in request.headers.items()}, b"", 0)
        if request.path == "/before":
            assert (await doors.ack(got, "working", extendMs=LONG_MS))[0] == 200
        await asyncio.sleep(3)
        return web.Response()

    async with Receiver(answer) as receiver, orchestrating(database, public_url=doors.url):
        policy = {"backoffInitialMs": LONG_MS, "backoffMaxMs": LONG_MS}
        before, after = [
            (await fire_timers(database, sql, bundle(awaiting(receiver, path=path, timeoutMs=300), **policy)))[0]
            for path in ("/before", "/after")
        ]
        await eventually(lambda: _is_recorded(sql, before), seconds=30)
        await eventually(lambda: _is_recorded(sql, after), seconds=30)
        assert (await delivery_of(sql, before))["status"] == "awaiting"
        assert (await delivery_of(sql, after))["status"] == "pending"
        got = next(r for r in receiver.requests if r.path == "/after")
        status, shown = await doors.ack(got, "working")
        assert (status, shown["status"]) == (200, "awaiting")
        for one in receiver.requests:
            assert (await doors.ack(one, "done"))[1]["status"] == "confirmed"
        assert len(receiver.requests) == 2
    assert (await attempts_of(sql, after))[0]["outcome"] == "retry"


async def _is_recorded(sql: Sql, timer_id: UUID) -> bool:
    return len(await attempts_of(sql, timer_id)) == 1


async def test_done_between_two_attempts_ends_the_delivery(database: Database, sql: Sql, doors: Doors) -> None:
    async def answer(_: web.Request, nth: int) -> web.StreamResponse:
        return web.Response(status=503)

    async with Receiver(answer) as receiver, orchestrating(database, public_url=doors.url):
        policy = {"backoffInitialMs": LONG_MS, "backoffMaxMs": LONG_MS}
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver), **policy))
        got = await arrived(receiver)
        await eventually(lambda: _is_recorded(sql, timer))
        status, shown = await doors.ack(got, "done")
        assert (status, shown["status"], shown["nextAttemptAt"]) == (200, "confirmed", None)
        assert (await timer_of(sql, timer))["status"] == "settled"


# Repetitions, contradictions, strangers


async def test_a_repetition_is_answered_and_a_contradiction_refused(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver)))
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        status, first = await doors.ack(got, "done", note="one", result={"n": 1.5, "b": 2})
        assert status == 200
        assert await doors.ack(got, "done", result={"b": 2, "n": 1.50}) == (200, first)
        assert await doors.ack(got, "done") == (200, first)
        for contradiction in ({"outcome": "failed"}, {"outcome": "working"}, {"outcome": "done", "result": {"n": 2}}):
            status, problem = await doors.ack(got, **contradiction)
            assert (status, problem["type"]) == (409, "urn:minoots:problem:acknowledgement-conflict")
            assert problem["deliveryStatus"] == "confirmed"
        assert (await doors.firing(timer))["deliveries"] == [first]


async def test_who_may_acknowledge(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        both = bundle(awaiting(receiver, path="/a") | {"id": "a"}, awaiting(receiver, path="/b") | {"id": "b"})
        (timer,) = await fire_timers(database, sql, both)
        await arrived(receiver, 2)
        await eventually(is_status(sql, timer, "awaiting", "a"))
        await eventually(is_status(sql, timer, "awaiting", "b"))
        a, b = sorted(receiver.requests, key=lambda r: r.path)
        url, token = a.headers["x-minoots-ack-url"], a.headers["x-minoots-ack-token"]
        other = b.headers["x-minoots-ack-token"]
        assert token != other
        done = {"outcome": "done"}
        nowhere = url.replace(str(timer), "01990000-0000-7000-8000-000000000000")
        absent = url.replace("deliveries/a", "deliveries/c")
        # Another's token, none, and a wrong one say nothing of what there is.
        for place in (url, nowhere, absent, url.replace("/firings/1/", "/firings/0/")):
            wrongs = [{"x_minoots_ack_token": wrong} for wrong in (other, "", token[:-1], "é" * 43)]
            for headers in ({}, {"authorization": f"Bearer {other}"}, *wrongs):
                status, problem = await doors.post(place, done, **headers)
                assert (status, problem["type"]) == (401, "urn:minoots:problem:unauthenticated"), headers
        # A wrong token is wrong, whatever key comes with it.
        assert (await doors.post(url, done, x_minoots_ack_token=other, x_api_key="mnt_example"))[0] == 401
        # A key of another tenant sees nothing; with the right tenant there is what there is.
        key = {"x_api_key": "mnt_example"}
        assert (await doors.post(url, done, **key, x_tenant_id="other"))[0] == 404
        assert (await doors.post(nowhere, done, **key, x_tenant_id="demo"))[0] == 404
        assert (await doors.post(absent, done, **key, x_tenant_id="demo"))[0] == 404
        assert (await doors.post(url, done, **key))[0] == 400
        assert (await doors.post(url, done, **key, x_tenant_id="demo"))[0] == 200
        # The token as a bearer.
        bearer = f"Bearer {other}"
        assert (await doors.post(b.headers["x-minoots-ack-url"], done, authorization=bearer))[0] == 200
        await eventually(ended(sql))


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/outcome"),
        ({"outcome": "perhaps"}, 422, "/outcome"),
        ({"outcome": "done", "extendMs": 1000}, 422, "/extendMs"),
        ({"outcome": "working", "extendMs": 0}, 422, "/extendMs"),
        ({"outcome": "working", "extendMs": 31_536_000_001}, 422, "/extendMs"),
        ({"outcome": "done", "note": "x" * 1001}, 422, "/note"),
        ({"outcome": "done", "note": "a\0"}, 422, "/note"),
        ({"outcome": "done", "result": "x" * 16_384}, 422, "/result"),
        ({"outcome": "done", "result": [1e308] * 60}, 422, "/result"),
        ({"outcome": "done", "more": 1}, 422, "/more"),
    ],
)
async def test_what_cannot_be_said(
    body: dict[str, Any], status: int, pointer: str, database: Database, sql: Sql, doors: Doors
) -> None:
    async with Receiver() as receiver, orchestrating(database, public_url=doors.url):
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver)))
        got = await arrived(receiver)
        await eventually(is_status(sql, timer, "awaiting"))
        token = got.headers["x-minoots-ack-token"]
        found, problem = await doors.post(got.headers["x-minoots-ack-url"], body, x_minoots_ack_token=token)
        assert (found, problem.get("pointer")) == (status, pointer), problem
        assert (await delivery_of(sql, timer))["ack_outcome"] is None
        assert (await doors.ack(got, "done", result="x" * 16_000))[0] == 200


async def test_nothing_can_be_acknowledged_that_was_not_sent(database: Database, sql: Sql, doors: Doors) -> None:
    async with Receiver() as receiver:
        (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver)))
        path = f"{doors.url}/timers/{timer}/firings/1/deliveries/call/ack"
        status, problem = await doors.post(path, {"outcome": "done"}, x_api_key="mnt_example", x_tenant_id="demo")
        assert (status, problem["deliveryStatus"]) == (409, "pending")


# Crashes


@pytest.mark.parametrize("outcome", ["done", "working"])
async def test_an_acknowledged_delivery_whose_orchestrator_was_killed_is_not_sent_again(
    outcome: str, database: Database, sql: Sql, database_url: str, doors: Doors
) -> None:
    """Killed when the receiver has answered and nothing is recorded; acknowledged before the lease ends."""
    environ = {
        "MINOOTS_DATABASE_URL": database_url,
        "MINOOTS_LEASE_MARGIN_MS": "3000",
        "MINOOTS_PUBLIC_URL": doors.url,
    }
    await switch_events_off(sql)
    async with Receiver() as receiver:
        async with RoleProcess(["orchestrator"], environ, crash_at="before-record") as victim:
            (timer,) = await fire_timers(database, sql, bundle(awaiting(receiver, timeoutMs=500), **PROMPT))
            assert await victim.wait(60) == -9
        got = await arrived(receiver)
        status, shown = await doors.ack(got, outcome, **({"extendMs": LONG_MS} if outcome == "working" else {}))
        assert (status, shown["status"], shown["attemptCount"]) == (200, "awaiting", 0)
        async with orchestrating(database, public_url=doors.url):
            if outcome == "working":

                async def has_more_time() -> bool:
                    delivery = await delivery_of(sql, timer)
                    return delivery["lease_id"] is None and delivery["status"] == "awaiting"

                await eventually(has_more_time, seconds=30)
                assert (await doors.ack(got, "done"))[1]["status"] == "confirmed"
            await eventually(ended(sql), seconds=30)
        assert len(receiver.requests) == 1, "nothing was sent again"
    assert (await delivery_of(sql, timer))["status"] == "confirmed"
    assert (await timer_of(sql, timer))["status"] == "settled"
    assert [row["outcome"] for row in await attempts_of(sql, timer)] == ["unknown"]


async def test_an_orchestrator_killed_as_it_moves_on_what_is_overdue_has_moved_nothing(
    database: Database, sql: Sql, database_url: str
) -> None:
    await fire_timers(database, sql, bundle(webhook("http://127.0.0.1:9/"), maxAttempts=1), events=True)
    await sql.execute(
        "update minoots.deliveries set status = 'awaiting', leased_at = minoots.now(), attempt_count = 1, "
        "ack_timeout_ms = 1, next_attempt_at = minoots.now()"
    )
    environ = {"MINOOTS_DATABASE_URL": database_url}
    async with RoleProcess(["orchestrator"], environ, crash_at="before-overdue-commit") as victim:
        assert await victim.wait(60) == -9
    assert await sql.fetchval("select status from minoots.deliveries") == "awaiting"
    async with orchestrating(database):
        await eventually(ended(sql), seconds=30)
    assert [kind for kind, _ in await events(sql)] == ["overdue", "dead"]


async def test_an_acknowledgement_and_a_record_at_the_same_moment_settle_once(
    database: Database, sql: Sql, doors: Doors
) -> None:
    """The receiver acknowledges as it answers: whoever comes first, each delivery ends once."""

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        got = Received(request.path, "POST", {k.lower(): v for k, v in request.headers.items()}, b"", 0)
        said.append(asyncio.create_task(doors.ack(got, "done")))
        return web.Response()

    said: list[asyncio.Task[Answered]] = []
    async with (
        Receiver(answer) as receiver,
        orchestrating(database, "one", public_url=doors.url),
        orchestrating(database, "two", public_url=doors.url),
    ):
        offered = [awaiting(receiver) | {"id": f"a{n}"} for n in range(4)]
        await fire_timers(database, sql, bundle(*offered, concurrency=4), many=25, events=True)
        await make_due(sql)
        await eventually(lambda: _all_said(said, 100), seconds=60)
        await eventually(ended(sql, 25), seconds=60)
    assert len(receiver.requests) == 100
    assert await sql.fetchval("select count(*) from minoots.timers where status = 'settled' and version = 3") == 25
    assert await sql.fetchval("select count(*) from minoots.outbox where kind = 'delivery.confirmed'") == 100
    assert await sql.fetchval("select count(*) from minoots.attempts where outcome = 'delivered'") == 100


async def _all_said(said: list[asyncio.Task[Answered]], many: int) -> bool:
    return len(said) == many and all(task.done() and task.result()[0] == 200 for task in said)


@pytest.mark.parametrize("action_id", ["call", "agent"])
async def test_everything_by_processes_of_their_own(action_id: str, database_url: str, sql: Sql) -> None:
    """As in production: api, kernel and orchestrator, and an agent that knows nothing but what it was sent."""
    port = free_port()
    environ = {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_API_ADDRESS": f"127.0.0.1:{port}"}
    await switch_events_off(sql)
    async with (
        Receiver() as receiver,
        RoleProcess(["api"], environ),
        RoleProcess(["kernel"], environ),
        RoleProcess(["orchestrator"], environ),
    ):
        binding = {"adapter": "custom", "target": receiver.url(), "acknowledgementTimeoutMs": LONG_MS}
        timer = await sql.fetchval(
            "select minoots.schedule_timer('demo', 'x', fire_in => interval '10 ms', action_bundle => $1, "
            "agent_binding => $2)",
            json.dumps(bundle(awaiting(receiver))) if action_id == "call" else None,
            json.dumps(binding) if action_id == "agent" else None,
        )
        got = await arrived(receiver)
        path = f"/timers/{timer}/firings/1/deliveries/{action_id}/ack"
        assert got.headers["x-minoots-ack-url"] == f"http://127.0.0.1:{port}{path}"
        async with asyncio.timeout(60):
            await until_open(Address("127.0.0.1", port))
        async with aiohttp.ClientSession() as http:
            token = {"x-minoots-ack-token": got.headers["x-minoots-ack-token"]}
            async with http.post(got.headers["x-minoots-ack-url"], json={"outcome": "done"}, headers=token) as answer:
                assert answer.status == 200
        await eventually(ended(sql), seconds=30)
    assert (await delivery_of(sql, timer, action_id))["status"] == "confirmed"


async def test_one_that_cannot_be_moved_on_holds_up_no_other(database: Database, sql: Sql) -> None:
    actions = bundle(webhook("http://127.0.0.1:9/"), maxAttempts=1)
    timers = await fire_timers(database, sql, actions, many=5)
    await sql.execute(
        "update minoots.deliveries set status = 'awaiting', leased_at = minoots.now(), attempt_count = 1, "
        "ack_timeout_ms = 1, next_attempt_at = minoots.now() - array_position($1, timer_id) * interval '1 s'",
        timers,
    )
    # Its version cannot grow any more, so that its firing cannot end.
    await sql.execute("update minoots.timers set version = 9223372036854775807 where id = $1", timers[2])
    sweep = Overdue(database, random.Random(1))
    async with asyncio.timeout(60):
        while await sweep.run_once():
            pass
    rows = await sql.fetch("select timer_id, status, next_attempt_at > minoots.now() as later from minoots.deliveries")
    found = {row["timer_id"]: row for row in rows}
    assert [found[timer]["status"] for timer in timers] == ["dead", "dead", "awaiting", "dead", "dead"]
    assert found[timers[2]]["later"]


async def test_two_sweeps_share_what_is_overdue(database: Database, sql: Sql) -> None:
    """Each moves on what the other has not locked, and none is moved twice."""
    actions = bundle(webhook("http://127.0.0.1:9/"), maxAttempts=2, backoffInitialMs=LONG_MS)
    await fire_timers(database, sql, actions, many=250, events=True)
    await sql.execute(
        "update minoots.deliveries set status = 'awaiting', leased_at = minoots.now(), attempt_count = 1, "
        "ack_timeout_ms = 1, next_attempt_at = minoots.now()"
    )
    sweeps = [Overdue(database, random.Random(seed)) for seed in range(3)]
    moved = 0
    async with asyncio.timeout(60):
        while moved < 250:
            moved += sum(await asyncio.gather(*(sweep.run_once() for sweep in sweeps)))
    assert moved == 250
    assert await sql.fetchval("select count(*) from minoots.outbox where kind = 'delivery.overdue'") == 250
    assert await sql.fetchval("select count(*) from minoots.outbox where kind = 'delivery.retrying'") == 250
    assert await sql.fetchval("select count(*) from minoots.deliveries where status = 'pending'") == 250
    assert not await sweeps[0].run_once()
