"""The orchestrator runs every action by its bundle and policy, records how it went, and settles a firing once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from aiohttp import web

from minoots.clock import SystemClock
from minoots.domain.outcome import Answer, Delivered, Rejected, Verdict
from minoots.embedded.nats import EmbeddedNats
from minoots.kernel.firing import Kernel
from minoots.orchestrator.capacity import AHEAD
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.recording import Recorder
from minoots.store.database import Database
from minoots.store.deliveries import Lease
from minoots.store.results import Result, record_results
from tests.support.life import fire, fire_timers
from tests.support.orchestrating import orchestrating
from tests.support.processes import RoleProcess
from tests.support.receiver import Received, Receiver
from tests.support.timers import Sql, bundle, count, insert_timers, open_transaction, switch_events_off, webhook
from tests.support.waiting import eventually

PROMPT = {"backoffInitialMs": 20, "backoffMaxMs": 40}


def ended(sql: Sql, many: int = 1) -> Callable[[], Awaitable[bool]]:
    async def are_ended() -> bool:
        return await count(sql, "status in ('settled', 'failed')") == many

    return are_ended


async def attempts_of(sql: Sql, timer_id: UUID, action_id: str = "call") -> list[Any]:
    return list(
        await sql.fetch(
            "select * from minoots.attempts where timer_id = $1 and action_id = $2 order by attempt",
            timer_id,
            action_id,
        )
    )


async def delivery_of(sql: Sql, timer_id: UUID, action_id: str = "call") -> Any:
    return await sql.fetchrow(
        "select * from minoots.deliveries where timer_id = $1 and action_id = $2", timer_id, action_id
    )


async def timer_of(sql: Sql, timer_id: UUID) -> Any:
    return await sql.fetchrow("select * from minoots.timers where id = $1", timer_id)


def answers(*statuses: int, text: str = "") -> Callable[[web.Request, int], Awaitable[web.StreamResponse]]:
    """These statuses one after the other for each webhook-id, the last one for ever."""

    async def answer(_: web.Request, nth: int) -> web.StreamResponse:
        return web.Response(status=statuses[min(nth, len(statuses)) - 1], text=text)

    return answer


# Settling


async def test_two_actions_ending_at_the_same_moment_settle_their_firing_once(database: Database, sql: Sql) -> None:
    """Each of two orchestrators records one action of every firing, side by side, in batches of other orders."""
    both = bundle(webhook("http://127.0.0.1:9/a", "a"), webhook("http://127.0.0.1:9/b", "b"), concurrency=2)
    timers = await fire_timers(database, sql, both, many=120, events=True)
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
    await sql.execute("delete from minoots.outbox")
    leases: list[Lease] = []
    while taken := await Intake(database, "both", 60_000).take_due(200):
        leases += taken
    assert len(leases) == 240
    first = [lease for lease in leases if lease.key.action_id == "a"]
    second = {lease.key.timer_id: lease for lease in leases if lease.key.action_id == "b"}

    async def record(batch: Sequence[Lease], database: Database) -> None:
        recorded = asyncio.Event()
        recorder = Recorder(database, lambda results, _: recorded.set() if len(results) == len(batch) else None)
        for lease in batch:
            recorder.put(Result(lease, Delivered(Answer(1, 200, "ok")), Verdict("delivered")))
        running = asyncio.create_task(recorder.run())
        await recorded.wait()
        running.cancel()

    for start in range(0, 120, 6):
        ones = first[start : start + 6]
        others = [second[lease.key.timer_id] for lease in reversed(ones)]
        await asyncio.gather(record(ones, database), record(others, database))
    assert await count(sql, "status = 'settled' and version = 3") == 120, "fired once, settled once"
    assert await count(sql, "status = 'settled' and open_deliveries = 0", "firings") == 120
    told = await sql.fetch(
        "select kind, count(*) as many, count(distinct timer_id) as timers from minoots.outbox group by kind"
    )
    assert {(row["kind"], row["many"], row["timers"]) for row in told} == {
        ("timer.settled", 120, 120),
        ("delivery.delivered", 240, 120),
    }
    assert len(timers) == 120


async def test_two_orchestrator_processes_share_the_actions_of_a_firing(
    database_url: str, nats: EmbeddedNats, database: Database, sql: Sql
) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url, "MINOOTS_CAPACITY": "16"}

    async def together(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.Response()

    async with (
        Receiver(together) as receiver,
        RoleProcess(["orchestrator"], environ),
        RoleProcess(["orchestrator"], environ),
    ):
        both = bundle(webhook(receiver.url("/a"), "a"), webhook(receiver.url("/b"), "b"), concurrency=2)
        await fire_timers(database, sql, both, many=150)
        await eventually(ended(sql, 150), seconds=20)
        assert len(receiver.requests) == 300
    assert await count(sql, "status = 'settled' and version = 3") == 150
    assert await count(sql, "status = 'settled' and settled_at is not null", "firings") == 150
    assert await count(sql, "outcome = 'delivered'", "attempts") == 300
    nodes = await sql.fetch("select node, count(*) as many from minoots.attempts group by node")
    assert len(nodes) == 2, "both had their part in it"


@pytest.mark.parametrize("concurrency", [None, 1, 2])
async def test_a_bundle_runs_in_its_order_and_no_more_at_once_than_it_says(
    concurrency: int | None, database: Database, sql: Sql
) -> None:
    under_way: dict[str, int] = {}
    most: dict[str, int] = {}

    async def overlap(request: web.Request, _: int) -> web.StreamResponse:
        timer = request.headers["x-minoots-timer-id"]
        under_way[timer] = under_way.get(timer, 0) + 1
        most[timer] = max(most.get(timer, 0), under_way[timer])
        await asyncio.sleep(0.05)
        under_way[timer] -= 1
        return web.Response()

    ids = ["first", "second", "third", "fourth"]
    async with Receiver(overlap) as receiver:
        actions = bundle(*(webhook(receiver.url(f"/{name}"), name) for name in ids), concurrency=concurrency)
        timers = await fire_timers(database, sql, actions, many=3)
        async with orchestrating(database, "one"), orchestrating(database, "two"):
            await eventually(ended(sql, 3))
    assert set(most.values()) == {concurrency or 1}
    for timer in timers:
        order = [r.path[1:] for r in receiver.requests if r.headers["x-minoots-timer-id"] == str(timer)]
        assert sorted(order) == sorted(ids), "each exactly once"
        # What may start at the same moment may arrive in any order.
        places = concurrency or 1
        assert [sorted(order[n : n + places]) for n in range(0, 4, places)] == [
            sorted(ids[n : n + places]) for n in range(0, 4, places)
        ]


async def test_waiting_for_a_retry_holds_no_place_of_the_bundle(database: Database, sql: Sql) -> None:
    async def answer(request: web.Request, nth: int) -> web.StreamResponse:
        return web.Response(status=503 if request.path == "/first" and nth == 1 else 200)

    async with Receiver(answer) as receiver, orchestrating(database):
        first, second = webhook(receiver.url("/first"), "first"), webhook(receiver.url("/second"), "second")
        pair = bundle(first, second, backoffInitialMs=60_000)
        (timer,) = await fire_timers(database, sql, pair)
        await eventually(lambda: _has_come(receiver, "/second"))
        assert (await delivery_of(sql, timer, "first"))["status"] == "pending"
        await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() where action_id = 'first'")
        await eventually(ended(sql))
    assert [r.path for r in receiver.requests] == ["/first", "/second", "/first"]


async def _has_come(receiver: Receiver, path: str, many: int = 1) -> bool:
    return sum(r.path == path for r in receiver.requests) >= many


# The retry policy


async def test_an_endpoint_that_fails_twice_gets_it_the_third_time(database: Database, sql: Sql) -> None:
    async with Receiver(answers(503, 500, 200)) as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), **PROMPT), events=True)
        await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
        await eventually(ended(sql))
    attempts = await attempts_of(sql, timer)
    assert [(a["attempt"], a["outcome"], a["status_code"], a["error"]) for a in attempts] == [
        (1, "retry", 503, "HTTP 503"),
        (2, "retry", 500, "HTTP 500"),
        (3, "delivered", 200, None),
    ]
    assert all(a["duration_ms"] >= 0 and a["node"] == "here" for a in attempts)
    assert (await timer_of(sql, timer))["status"] == "settled"
    assert len({r.body for r in receiver.requests}) == 1, "every attempt sends the same"
    assert {r.headers["webhook-id"] for r in receiver.requests} == {f"{timer}_1_call"}
    told = [row["kind"] for row in await sql.fetch("select kind from minoots.outbox order by id")]
    assert told == ["timer.fired", "delivery.retrying", "delivery.retrying", "delivery.delivered", "timer.settled"]


async def test_a_retry_waits_no_longer_than_the_policy_says(database: Database, sql: Sql) -> None:
    policy = {"backoffInitialMs": 3_600_000, "backoffMaxMs": 7_200_000}
    async with Receiver(answers(500)) as receiver, orchestrating(database):
        await fire_timers(database, sql, bundle(webhook(receiver.url()), **policy), many=40)
        await eventually(lambda: _has_come(receiver, "/hook", 40))
        await eventually(lambda: _counts(sql, "outcome = 'retry'", "attempts", 40))
    waits = await sql.fetch(
        "select extract(epoch from next_attempt_at - minoots.now())::float8 as s from minoots.deliveries"
    )
    drawn = sorted(row["s"] for row in waits)
    assert -10 < drawn[0] < 1_800, "full jitter: from zero"
    assert 1_800 < drawn[-1] <= 3_600, "to the bound of the first wait"


async def _counts(sql: Sql, condition: str, table: str, many: int) -> bool:
    return await count(sql, condition, table) == many


async def test_when_the_attempts_are_used_up_the_timer_has_failed(database: Database, sql: Sql) -> None:
    async with Receiver(answers(500, text="no\x00t now\x1b[31m")) as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), maxAttempts=3, **PROMPT))
        await eventually(ended(sql))
    assert len(receiver.requests) == 3
    row = await timer_of(sql, timer)
    assert (row["status"], row["failure_reason"]) == ("failed", "action call: gave up after 3 attempts: HTTP 500")
    letter = await sql.fetchrow("select * from minoots.dead_letters")
    assert (letter["timer_id"], letter["action_id"], letter["attempt_count"]) == (timer, "call", 3)
    assert letter["dead_reason"] == "gave up after 3 attempts: HTTP 500"
    assert (letter["last_status_code"], letter["last_error"]) == (500, "HTTP 500")
    assert (await attempts_of(sql, timer))[0]["excerpt"] == "no\\x00t now\\x1b[31m", "control characters are escaped"
    assert await count(sql, "status = 'failed' and dead_deliveries = 1", "firings") == 1


async def test_a_receiver_that_is_gone_for_good_gets_one_attempt(database: Database, sql: Sql) -> None:
    async with Receiver(answers(410)) as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), **PROMPT))
        await eventually(ended(sql))
    assert len(receiver.requests) == 1
    assert [a["outcome"] for a in await attempts_of(sql, timer)] == ["rejected"]
    assert (await delivery_of(sql, timer))["status"] == "dead"
    assert "410" in (await timer_of(sql, timer))["failure_reason"]


async def test_an_answer_that_takes_too_long_is_tried_again(database: Database, sql: Sql) -> None:
    async def slow_once(_: web.Request, nth: int) -> web.StreamResponse:
        await asyncio.sleep(5 if nth == 1 else 0)
        return web.Response()

    async with Receiver(slow_once) as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url(), timeoutMs=200), **PROMPT))
        await eventually(ended(sql))
    first, second = await attempts_of(sql, timer)
    assert (first["outcome"], first["status_code"]) == ("retry", None)
    assert first["error"] == "no complete answer within 0.2 s"
    assert 200 <= first["duration_ms"] < 2_000
    assert second["outcome"] == "delivered"


async def test_a_closed_port_is_told_and_tried_again(database: Database, sql: Sql) -> None:
    async with Receiver() as receiver:
        closed = receiver.url()
    async with orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(closed), maxAttempts=2, **PROMPT))
        await eventually(ended(sql))
    assert [a["error"] for a in await attempts_of(sql, timer)] == ["cannot connect: Connection refused"] * 2


async def test_a_redirect_is_not_followed(database: Database, sql: Sql) -> None:
    async def elsewhere(request: web.Request, _: int) -> web.StreamResponse:
        return web.Response(status=307, headers={"location": "/secret"})

    async with Receiver(elsewhere) as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), maxAttempts=1))
        await eventually(ended(sql))
    assert [r.path for r in receiver.requests] == ["/hook"]
    (attempt,) = await attempts_of(sql, timer)
    assert (attempt["status_code"], attempt["outcome"]) == (307, "retry")
    assert attempt["error"] == "HTTP 307: redirects are not followed"


async def test_a_firing_with_one_dead_action_has_failed_and_the_others_are_delivered(
    database: Database, sql: Sql
) -> None:
    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        return web.Response(status=410 if request.path == "/bad" else 200)

    async with Receiver(answer) as receiver, orchestrating(database):
        actions = bundle(
            webhook(receiver.url("/good"), "good"),
            webhook(receiver.url("/bad"), "bad"),
            webhook(receiver.url("/fine"), "fine"),
        )
        (timer,) = await fire_timers(database, sql, actions)
        await eventually(ended(sql))
    assert [r.path for r in receiver.requests] == ["/good", "/bad", "/fine"]
    assert (await timer_of(sql, timer))["failure_reason"] == "action bad: HTTP 410: the receiver is gone for good"


# Leases


async def test_a_lease_that_ends_without_a_record_shows_as_unknown(database: Database, sql: Sql) -> None:
    async with Receiver() as receiver:
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url())))
        (lost,) = await Intake(database, "lost", 5_000).take_due(10)
        await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
        async with orchestrating(database):
            await eventually(ended(sql))
        attempts = await attempts_of(sql, timer)
        assert [(a["attempt"], a["outcome"], a["node"]) for a in attempts] == [
            (1, "unknown", "lost"),
            (2, "delivered", "here"),
        ]
        assert (await delivery_of(sql, timer))["unknown_count"] == 1

        # The result that the lost one brings after all changes nothing.
        before = await _everything(sql)
        async with database.transaction() as connection:
            dead = Result(lost, Rejected("too late", Answer()), Verdict("dead", reason="too late"))
            assert await record_results(database, connection, [dead]) == (0, 0)
        assert await _everything(sql) == before


async def _everything(sql: Sql) -> list[Any]:
    tables = ("timers", "firings", "deliveries", "attempts", "outbox")
    return [await sql.fetch(f"select * from minoots.{table} order by 1, 2") for table in tables]


async def test_an_attempt_that_nobody_recorded_uses_up_none_of_the_policy(database: Database, sql: Sql) -> None:
    async with Receiver(answers(500)) as receiver:
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), maxAttempts=2, **PROMPT))
        for _ in range(3):
            await Intake(database, "lost", 5_000).take_due(10)
            await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
        async with orchestrating(database):
            await eventually(ended(sql))
    outcomes = [a["outcome"] for a in await attempts_of(sql, timer)]
    assert outcomes == ["unknown", "unknown", "unknown", "retry", "retry"]
    assert (await delivery_of(sql, timer))["dead_reason"] == "gave up after 2 attempts: HTTP 500"


async def test_twenty_attempts_without_a_record_are_the_end(database: Database, sql: Sql) -> None:
    async with Receiver() as receiver:
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url())))
        await sql.execute("update minoots.deliveries set unknown_count = 20, attempt_count = 20")
        async with orchestrating(database):
            await eventually(ended(sql))
        assert receiver.requests == [], "it is not called once more"
    delivery = await delivery_of(sql, timer)
    assert (delivery["status"], delivery["dead_reason"]) == ("dead", "20 attempts ended without a record")
    assert (await timer_of(sql, timer))["status"] == "failed"


async def test_a_lease_is_kept_while_its_action_runs(database: Database, sql: Sql) -> None:
    """Another orchestrator takes nothing of what is under way, even when it takes longer than the lease was long."""

    async def slow(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(5.2)
        return web.Response()

    async with Receiver(slow) as receiver:
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url(), timeoutMs=8_000)))
        async with orchestrating(database, "one", margin_ms=500):
            await eventually(lambda: _has_come(receiver, "/hook"))
            await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() + interval '4.5 s'")
            async with orchestrating(database, "two"):
                await eventually(ended(sql))
    assert [(a["outcome"], a["node"]) for a in await attempts_of(sql, timer)] == [("delivered", "one")]
    assert len(receiver.requests) == 1


async def test_a_message_leases_only_what_was_never_leased(database: Database, sql: Sql) -> None:
    async with Receiver(answers(500)) as receiver:
        actions = bundle(webhook(receiver.url()), backoffInitialMs=0)
        (timer,) = await fire_timers(database, sql, actions, events=True)
        async with orchestrating(database, looping=False) as orchestrator:
            assert await orchestrator.take_fired([(timer, 1)]) == 1
            assert await orchestrator.take_fired([(timer, 1)]) == 0, "it is under way"
            await eventually(lambda: _counts(sql, "outcome = 'retry'", "attempts", 1))
            assert await orchestrator.take_fired([(timer, 1)]) == 0, "its retry has an instant of its own"
            assert await orchestrator.take_fired([(uuid4(), 1)]) == 0, "and of others it knows nothing"
            assert await orchestrator.take_due() == 1


async def test_what_a_message_tells_of_and_there_is_no_room_for_is_due_at_once(database: Database, sql: Sql) -> None:
    async def hang(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with Receiver(hang) as receiver:
        timers = await fire_timers(database, sql, bundle(webhook(receiver.url())), many=5, events=True)
        assert not await count(sql, "next_attempt_at <= minoots.now()", "deliveries")
        async with orchestrating(database, capacity=2, looping=False) as orchestrator:
            assert await orchestrator.take_fired([(timer, 1) for timer in timers]) == 2
            assert await count(sql, "next_attempt_at <= minoots.now() and lease_id is null", "deliveries") == 3
            assert await orchestrator.take_due() == 0, "there is no room"


# Capacity


async def test_a_hanging_endpoint_delays_nobody_else(database: Database, sql: Sql) -> None:
    async def hang(request: web.Request, _: int) -> web.StreamResponse:
        if request.path == "/hangs":
            await asyncio.sleep(60)
        return web.Response()

    async with Receiver(hang) as receiver, orchestrating(database, capacity=40):
        await fire_timers(database, sql, bundle(webhook(receiver.url("/hangs"))), many=30)
        await eventually(lambda: _has_come(receiver, "/hangs", 30))
        began = asyncio.get_running_loop().time()
        await fire_timers(database, sql, bundle(webhook(receiver.url("/quick"))), many=100)
        await eventually(ended(sql, 100))
        assert max(r.at for r in receiver.requests) - began < 3


async def test_no_more_is_under_way_than_the_capacity(database: Database, sql: Sql) -> None:
    under_way = most = 0

    async def overlap(_: web.Request, __: int) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.02)
        under_way -= 1
        return web.Response()

    async with Receiver(overlap) as receiver, orchestrating(database, capacity=7):
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=80)
        await eventually(ended(sql, 80))
    assert most == 7
    assert len(receiver.requests) == 80


async def test_both_ways_of_taking_work_share_the_capacity(database: Database, sql: Sql) -> None:
    async def hang(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    async with Receiver(hang) as receiver:
        fired = await fire_timers(database, sql, bundle(webhook(receiver.url())), many=20, events=True)
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=20)
        async with orchestrating(database, capacity=10, looping=False) as orchestrator:
            taken = await asyncio.gather(
                orchestrator.take_due(), orchestrator.take_fired([(timer, 1) for timer in fired])
            )
            assert sum(taken) == 10
            assert await count(sql, "lease_id is not null", "deliveries") == 10


@contextlib.asynccontextmanager
async def unwritable(database_url: str, condition: str = "true", table: str = "firings") -> AsyncIterator[None]:
    """While somebody holds these rows, no result of theirs can be written."""
    async with open_transaction(database_url) as somebody:
        await somebody.execute(f"select from minoots.{table} where {condition} for update")
        yield


async def test_an_answer_frees_the_place_before_it_is_written(database: Database, sql: Sql, database_url: str) -> None:
    async with Receiver() as receiver:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=6)
        held = "timer_id in (select timer_id from minoots.deliveries limit 4)"
        async with unwritable(database_url, held), orchestrating(database, capacity=2):
            await eventually(lambda: _has_come(receiver, "/hook", 6))
            assert await count(sql, "status = 'settled'") <= 2


async def test_what_is_not_written_yet_is_bounded(database: Database, sql: Sql, database_url: str) -> None:
    async with (
        Receiver() as receiver,
        orchestrating(database, capacity=4, lane_capacity=1, looping=False) as orchestrator,
    ):
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=40)
        async with unwritable(database_url):
            for _ in range(20):
                await orchestrator.take_due()
                await asyncio.sleep(0.05)
            assert len(receiver.requests) == AHEAD + 1, "so many run ahead, and one has the lane's place"
        await eventually(lambda: _counts(sql, "status = 'settled'", "timers", AHEAD + 1))


@pytest.mark.parametrize("table", ["timers", "firings", "deliveries"])
async def test_a_tenant_whose_results_cannot_be_written_holds_up_no_other(
    table: str, database: Database, sql: Sql, database_url: str
) -> None:
    begun = asyncio.Event()

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        if request.path == "/locked":
            await begun.wait()
        return web.Response()

    async with Receiver(answer) as receiver, orchestrating(database, capacity=32, lane_capacity=24):
        await fire_timers(database, sql, bundle(webhook(receiver.url("/locked"))), many=200)
        await eventually(lambda: _has_come(receiver, "/locked", 24))
        async with unwritable(database_url, table=table):
            begun.set()
            others = await insert_timers(sql, 20, actions=bundle(webhook(receiver.url("/other"))))
            await sql.execute("update minoots.timers set tenant_id = 'other' where id = any($1)", others)
            await fire(database)
            await eventually(
                lambda: _counts(sql, "tenant_id = 'other' and status = 'settled'", "timers", 20), seconds=8
            )
            assert not await count(sql, "tenant_id <> 'other' and status = 'settled'")
        await eventually(lambda: _counts(sql, "status = 'settled'", "timers", 220), seconds=30)
    assert len(receiver.requests) == 220, "each once"


async def test_what_failed_keeps_its_place_until_it_is_written(database: Database, sql: Sql, database_url: str) -> None:
    async with Receiver(answers(500)) as receiver, orchestrating(database, capacity=2, looping=False) as orchestrator:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=10)
        async with unwritable(database_url):
            for _ in range(10):
                await orchestrator.take_due()
                await asyncio.sleep(0.05)
            assert len(receiver.requests) == 2, "and what it says of its lane is known before others go there"


# What is sent


async def one_request(database: Database, sql: Sql, **parameters: Any) -> Received:
    """The request that a webhook with these parameters makes."""
    async with Receiver() as receiver, orchestrating(database):
        await fire_timers(database, sql, bundle(webhook(receiver.url("/a?b=c"), "call", **parameters)))
        await eventually(ended(sql))
    (request,) = receiver.requests
    return request


async def test_without_a_body_the_receiver_gets_the_timer_and_the_event(database: Database, sql: Sql) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with Receiver() as receiver, orchestrating(database):
        actions = json.dumps(bundle(webhook(receiver.url())))
        timer = await sql.fetchval(
            "select minoots.schedule_timer('demo', 'tea', 'me', fire_in => '1 ms', metadata => '{\"a\": [1, \"ü\"]}',"
            ' labels => \'{"team": "x"}\', action_bundle => $1::jsonb, traceparent => $2)',
            actions,
            trace,
        )
        await asyncio.sleep(0.01)
        await Kernel(database, SystemClock(), 10).run_once()
        outbox = await sql.fetchrow("select event_id, data from minoots.outbox where kind = 'timer.fired'")
        await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
        await eventually(ended(sql))
        (request,) = receiver.requests
    assert request.method == "POST"
    assert request.headers["x-minoots-timer-id"] == str(timer)
    assert request.headers["x-minoots-tenant-id"] == "demo"
    assert request.headers["webhook-id"] == f"{timer}_1_call"
    assert request.headers["traceparent"] == trace
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("minoots/")
    body = json.loads(request.body)
    published = json.loads(outbox["data"])
    assert set(body) == {"timer", "event"}
    assert body["timer"] == published["timer"], "the timer as it was when it fired"
    assert body["timer"]["metadata"] == {"a": [1, "ü"]}
    assert body["timer"]["status"] == "fired"
    assert body["event"]["id"] == str(outbox["event_id"])
    assert body["event"]["type"] == "minoots.timer.fired"
    assert body["event"]["subject"] == str(timer)
    assert body["event"]["source"] == "/minoots/tenants/demo"
    assert body["event"]["specversion"] == "1.0"
    assert body["event"]["data"]["firing"] == published["firing"]


async def test_a_body_of_its_own_goes_out_as_it_is(database: Database, sql: Sql) -> None:
    request = await one_request(
        database,
        sql,
        body={"deep": {"list": [1, 2.50, None, "ü"]}},
        method="PUT",
        headers={"X-Mine": "yes", "Accept": "a/b"},
    )
    assert (request.method, request.path) == ("PUT", "/a")
    assert json.loads(request.body) == {"deep": {"list": [1, 2.5, None, "ü"]}}
    assert request.headers["content-type"] == "application/json"
    assert (request.headers["x-mine"], request.headers["accept"]) == ("yes", "a/b")


async def test_a_body_that_is_text_goes_out_as_text(database: Database, sql: Sql) -> None:
    request = await one_request(database, sql, body='line "one"\nü')
    assert request.body == 'line "one"\nü'.encode()
    assert request.headers["content-type"] == "text/plain; charset=utf-8"


async def test_a_header_of_its_own_says_what_the_body_is(database: Database, sql: Sql) -> None:
    request = await one_request(database, sql, body="<a/>", headers={"Content-Type": "text/xml"})
    assert request.headers["content-type"] == "text/xml"


async def test_a_get_has_no_body(database: Database, sql: Sql) -> None:
    request = await one_request(database, sql, method="GET")
    assert (request.method, request.body) == ("GET", b"")
    assert "content-type" not in request.headers


async def test_with_events_off_a_delivery_goes_out_at_once(database_url: str, sql: Sql) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url}
    await switch_events_off(sql)
    async with Receiver() as receiver, RoleProcess(["kernel"], environ), RoleProcess(["orchestrator"], environ):
        offset = await _database_time(sql) - asyncio.get_running_loop().time()
        await insert_timers(sql, 20, after_s=0.5, actions=bundle(webhook(receiver.url())))
        await eventually(ended(sql, 20))
        due = (await sql.fetchval("select extract(epoch from max(due_at))::float8 from minoots.firings")) - offset
        assert max(r.at for r in receiver.requests) - due < 1
    assert not await count(sql, "true", "outbox")


async def _database_time(sql: Sql) -> float:
    return await sql.fetchval("select extract(epoch from minoots.now())::float8")


# What cannot be run


async def test_what_a_bad_action_says_holds_up_no_other(database: Database, sql: Sql) -> None:
    """Parameters of the other kinds are free JSON: nothing that is read from them may break the batch they are in."""
    async with Receiver() as receiver, orchestrating(database):
        await switch_events_off(sql)
        for timeout in ("soon", 99_999_999_999, -5, 1e300, {"a": 1}):
            odd = {"id": "odd", "kind": "command", "parameters": {"timeoutMs": timeout}}
            await insert_timers(sql, 1, actions=bundle(odd))
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=3)
        await eventually(ended(sql, 8))
    assert len(receiver.requests) == 3
    assert await count(sql, "status = 'settled'") == 3
    assert await count(sql, "failure_reason like 'action odd: this version cannot run%'") == 5


async def test_a_row_that_somebody_has_locked_holds_up_no_other(
    database: Database, database_url: str, sql: Sql
) -> None:
    async with Receiver() as receiver, orchestrating(database):
        timers = await fire_timers(database, sql, bundle(webhook(receiver.url())), many=40, events=True)
        holder = await asyncpg.connect(database_url)
        try:
            async with holder.transaction():
                await holder.execute("select from minoots.timers where id = $1 for update", timers[17])
                await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
                await eventually(ended(sql, 39), seconds=9)
        finally:
            await holder.close()
        await eventually(ended(sql, 40))
    assert len(receiver.requests) == 40


# The end of a process


async def test_sigterm_records_what_is_under_way(database_url: str, database: Database, sql: Sql) -> None:
    release = asyncio.Event()

    async def wait(_: web.Request, __: int) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    async with Receiver(wait) as receiver:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=30)
        async with RoleProcess(
            ["orchestrator"], {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_CAPACITY": "30"}
        ) as process:
            await eventually(lambda: _has_come(receiver, "/hook", 30))
            stopping = asyncio.create_task(process.stop(10))
            await asyncio.sleep(0.3)
            assert not stopping.done(), "it waits for the answers"
            release.set()
            assert await stopping == 0
    assert await count(sql, "status = 'settled'") == 30
    assert await count(sql, "outcome = 'delivered'", "attempts") == 30


async def test_sigterm_in_full_work_leaves_no_attempt_without_a_record(
    database_url: str, database: Database, sql: Sql
) -> None:
    """Whatever it leased before it was told to end, it also ran and recorded."""
    environ = {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_CAPACITY": "32"}
    async with Receiver() as receiver:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=3_000)
        for nth in range(1, 6):
            async with RoleProcess(["orchestrator"], environ) as process:
                await eventually(lambda: _has_come(receiver, "/hook", nth * 300), every=0.001)  # noqa: B023 - awaited here
                assert await process.stop() == 0
            assert not await count(sql, "lease_id is not null", "deliveries")
        assert await count(sql, "true", "attempts") == len(receiver.requests)


async def test_sigterm_does_not_wait_for_an_endpoint_that_hangs(
    database_url: str, database: Database, sql: Sql
) -> None:
    """Not even with every place taken: what hangs is left to its lease."""

    async def hang(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(120)
        return web.Response()

    async with Receiver(hang) as receiver:
        await fire_timers(database, sql, bundle(webhook(receiver.url(), timeoutMs=120_000)), many=10)
        async with RoleProcess(
            ["orchestrator"], {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_CAPACITY": "5"}
        ) as process:
            await eventually(lambda: _has_come(receiver, "/hook", 5))
            assert await process.stop(14) == 0
    assert await count(sql, "lease_id is not null", "deliveries") == 5


async def test_a_short_lease_lasts_longer_than_its_action(database: Database, sql: Sql) -> None:
    (timer,) = await fire_timers(database, sql, bundle(webhook("http://127.0.0.1:9/", timeoutMs=3_000)))
    (lease,) = await Intake(database, "node", 1_000).take_due(1)
    assert lease.key.timer_id == timer
    row = await sql.fetchrow("select next_attempt_at - leased_at as long from minoots.deliveries")
    assert row["long"] == timedelta(seconds=4)
