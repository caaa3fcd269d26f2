"""Redrive: what gave up is opened again, by name or by filter, and goes on as the same delivery."""

import asyncio
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web

from minoots.clock import SystemClock
from minoots.domain.dead_letter import RedriveFilter, RedriveKey, RedriveRequest, Wanted, read_cursor
from minoots.domain.outcome import Answer, Delivered, Retry
from minoots.domain.retention import Retention
from minoots.errors import DeliveryNotFound, DeliveryStateConflict, FiringNotFound, InvalidTimer, TimerNotFound
from minoots.kernel.prune import EndedPruner
from minoots.orchestrator.intake import Intake
from minoots.service.dead_letters import DeadLetters
from minoots.store.database import Database
from tests.integration.test_escalation import by_path, escalating, make_due, paged, shown, told
from tests.integration.test_orchestrator import PROMPT, attempts_of, ended
from tests.support import ended as lives
from tests.support.life import DEAD, DELIVERED, attempt, fire_timers, make_deliveries_due, settle
from tests.support.orchestrating import orchestrating
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually


def named(timer: UUID, action_id: str = "call", occurrence: int = 1) -> RedriveRequest:
    return RedriveRequest(deliveries=[RedriveKey(timer_id=timer, occurrence=occurrence, action_id=action_id)])


async def redrive(database: Database, asked: RedriveRequest, tenant: str = "demo") -> tuple[int, int]:
    done = await DeadLetters(database).redrive(tenant, asked)
    return done.matched, done.redriven


async def all_dead(database: Database, tenant: str = "demo", page: int = 500, **wanted: Any) -> list[Any]:
    """Page by page."""
    found, after = [], None
    while True:
        part = await DeadLetters(database).list_dead(tenant, Wanted(**wanted), after, page)
        found += part.items
        if part.next_cursor is None:
            return found
        after = read_cursor(part.next_cursor)


async def test_a_redriven_delivery_goes_on_as_the_same_one(database: Database, sql: Sql) -> None:
    mended = False

    async def answer(_: web.Request, __: int) -> web.StreamResponse:
        return web.Response(status=200 if mended else 500)

    async with Receiver(answer) as receiver, orchestrating(database):
        (timer,) = await fire_timers(
            database, sql, bundle(webhook(receiver.url()), maxAttempts=2, **PROMPT), events=True
        )
        await make_due(sql)
        await eventually(ended(sql), seconds=30)
        assert (await sql.fetchrow("select status, version from minoots.timers"))["version"] == 3
        # It fails again: the attempts are numbered on, the budget is a new one.
        assert await redrive(database, named(timer)) == (1, 1)
        await eventually(lambda: _failed_again(sql, 4), seconds=30)
        mended = True
        assert await redrive(database, named(timer)) == (1, 1)
        await eventually(lambda: _has(sql, "status = 'settled'"), seconds=30)
    attempts = await attempts_of(sql, timer)
    assert [(a["attempt"], a["outcome"]) for a in attempts] == [
        (1, "retry"), (2, "retry"), (3, "retry"), (4, "retry"), (5, "delivered"),
    ]  # fmt: skip
    assert {r.headers["webhook-id"] for r in receiver.requests} == {f"{timer}_1_call"}
    assert len({r.body for r in receiver.requests}) == 1, "the same body"
    assert [r.headers.get("x-minoots-redrive") for r in receiver.requests] == [None, None, "1", "1", "2"]
    row = await sql.fetchrow("select status, failure_reason, version from minoots.timers")
    assert tuple(row) == ("settled", None, 7), "fired, failed, redriven, failed, redriven, settled"
    delivery = await sql.fetchrow("select status, redrives, attempt_count, dead_at from minoots.deliveries")
    assert tuple(delivery) == ("delivered", 2, 5, None)
    opened = [event for event in await told(sql, "delivery.retrying") if event["reason"] == "redriven"]
    assert [(e["timer"]["status"], e["timer"]["version"], e["firing"]["status"]) for e in opened] == [
        ("fired", 4, "dispatching"), ("fired", 6, "dispatching"),
    ]  # fmt: skip
    assert [e["delivery"]["redrives"] for e in opened] == [1, 2]
    assert [e["timer"]["failureReason"] for e in opened] == [None, None]


async def _failed_again(sql: Sql, attempts: int) -> bool:
    return await count(sql, "status = 'failed'") == 1 and await count(sql, "true", "attempts") == attempts


async def _has(sql: Sql, condition: str, table: str = "timers") -> bool:
    return await count(sql, condition, table) > 0


async def test_beside_open_deliveries_it_only_adds_to_the_count(database: Database, sql: Sql) -> None:
    pair = bundle(webhook("http://127.0.0.1:9/", "a"), webhook("http://127.0.0.1:9/", "b"), concurrency=2)
    (timer,) = await fire_timers(database, sql, pair)
    await sql.execute("update minoots.deliveries set next_attempt_at = null where action_id = 'b'")
    assert await attempt(database, Retry("HTTP 500", Answer(1, 500)), DEAD) == 1
    before = await sql.fetchrow("select status, version from minoots.timers")
    assert await redrive(database, named(timer, "a")) == (1, 1)
    assert await sql.fetchrow("select status, version from minoots.timers") == before, "the timer is as it was"
    firing = await sql.fetchrow("select status, open_deliveries, dead_deliveries from minoots.firings")
    assert tuple(firing) == ("dispatching", 2, 0)
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
    assert await attempt(database, Delivered(Answer(1, 200)), DELIVERED) == 2
    assert await count(sql, "status = 'settled'") == 1


async def test_an_action_and_its_escalation_are_opened_together(database: Database, sql: Sql) -> None:
    mended = False

    async def answer(_: web.Request, __: int) -> web.StreamResponse:
        return web.Response(status=200 if mended else 410)

    async with Receiver(answer) as receiver, orchestrating(database):
        page = escalating(paged(receiver.url("/page")), 1, paged(receiver.url("/boss")))
        call = escalating(webhook(receiver.url("/call")), 1, page)
        (timer,) = await fire_timers(database, sql, bundle(call, **PROMPT))
        await eventually(ended(sql), seconds=30)
        assert [row[1] for row in await shown(sql, timer)] == ["dead"] * 3
        mended = True
        assert await redrive(database, named(timer)) == (1, 3)
        await eventually(lambda: _has(sql, "status = 'settled'"), seconds=30)
    assert [row[:2] for row in await shown(sql, timer)] == [
        ("call", "delivered"), ("call~1", "delivered"), ("call~2", "delivered"),
    ]  # fmt: skip
    firing = await sql.fetchrow("select status, open_deliveries, dead_deliveries from minoots.firings")
    assert tuple(firing) == ("settled", 0, 0)


async def test_an_escalation_that_was_delivered_is_opened_again_when_it_fails_again(
    database: Database, sql: Sql
) -> None:
    async with Receiver(by_path(call=500)) as receiver, orchestrating(database):
        call = escalating(webhook(receiver.url("/call")), 2, paged(receiver.url("/page")))
        (timer,) = await fire_timers(database, sql, bundle(call, maxAttempts=2, **PROMPT))
        await eventually(ended(sql), seconds=30)
        assert await redrive(database, named(timer)) == (1, 1)
        await eventually(lambda: _failed_again(sql, 6), seconds=30)
    assert [r.path for r in receiver.requests].count("/page") == 2
    assert [row[:2] for row in await shown(sql, timer)] == [("call", "dead"), ("call~1", "delivered")]
    assert await count(sql, "redrives = 1", "deliveries") == 2
    firing = await sql.fetchrow("select status, open_deliveries, dead_deliveries from minoots.firings")
    assert tuple(firing) == ("failed", 0, 1)


async def test_by_filter_with_a_dry_run_and_a_pace(database: Database, sql: Sql) -> None:
    await lives.fail(sql, database, 25)
    (other,) = await lives.fail(sql, database)
    await sql.execute("update minoots.deliveries set lane = 'http://other' where timer_id = $1", other)
    lane = RedriveFilter(lane="http://127.0.0.1:9")
    assert await redrive(database, RedriveRequest(filter=lane, dry_run=True)) == (25, 0)
    assert await count(sql, "status = 'dead'", "deliveries") == 26
    assert await redrive(database, RedriveRequest(filter=lane), tenant="else") == (0, 0)
    assert await redrive(database, RedriveRequest(filter=lane, per_second=5)) == (25, 25)
    spread = await sql.fetch(
        "select extract(epoch from next_attempt_at - min(next_attempt_at) over ())::float8 as s "
        "from minoots.deliveries where status = 'pending' order by next_attempt_at"
    )
    # From when the call came: what is written after its instant is due at once.
    apart = [later["s"] - sooner["s"] for sooner, later in pairwise(spread)]
    assert max(apart) == pytest.approx(0.2, abs=0.001)
    assert apart[-12:] == pytest.approx([0.2] * 12, abs=0.001)
    assert await count(sql, "status = 'fired'") == 25
    assert [letter.lane for letter in await all_dead(database)] == ["http://other"]
    assert await redrive(database, RedriveRequest(filter=RedriveFilter(reason="HTTP 404"))) == (0, 0)
    assert await redrive(database, RedriveRequest(filter=RedriveFilter(reason="HTTP 500", kind="webhook"))) == (1, 1)


async def test_more_than_a_batch(database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minoots.service.dead_letters.BATCH", 7)
    await lives.fail(sql, database, 30)
    # All at one instant: the key decides.
    await sql.execute("update minoots.deliveries set dead_at = (select max(dead_at) from minoots.deliveries)")
    assert len({letter.timer_id for letter in await all_dead(database, page=7)}) == 30
    assert await redrive(database, RedriveRequest(filter=RedriveFilter(), per_second=0.1)) == (30, 30)
    assert await count(sql, "status = 'dispatching' and open_deliveries = 1", "firings") == 30
    assert await sql.fetchval("select count(distinct next_attempt_at) from minoots.deliveries") == 30


async def test_a_list_is_narrowed_and_shows_the_newest_first(database: Database, sql: Sql) -> None:
    first, second = await lives.fail(sql, database, 2)
    await sql.execute("update minoots.deliveries set dead_at = dead_at - interval '1 h' where timer_id = $1", first)
    shown = await all_dead(database, page=1)
    assert [letter.timer_id for letter in shown] == [second, first]
    (tried,) = {letter.last_attempt for letter in shown if letter.timer_id == first}
    assert (tried.attempt, tried.error, tried.status_code) == (1, "HTTP 500", 500)
    since = await sql.fetchval("select max(dead_at) from minoots.deliveries")
    for wanted, expected in (
        ({"timer_id": first}, [first]),
        ({"since": since}, [second]),
        ({"until": since}, [first]),
        ({"kind": "command"}, []),
        ({"lane": "http://127.0.0.1:9", "reason": "gave up after 1 attempt"}, [second, first]),
        ({"reason": "no such thing"}, []),
    ):
        assert [letter.timer_id for letter in await all_dead(database, **wanted)] == expected, wanted
    assert await all_dead(database, tenant="else") == []


async def test_what_is_not_dead_is_told(database: Database, sql: Sql) -> None:
    (settled,) = await lives.settle(sql, database)
    (failed,) = await lives.fail(sql, database)
    for key, error in (
        (named(settled), DeliveryStateConflict),
        (named(failed, "other"), DeliveryNotFound),
        (named(failed, occurrence=2), FiringNotFound),
        (named(uuid4()), TimerNotFound),
    ):
        with pytest.raises(error):
            await redrive(database, key)
    with pytest.raises(TimerNotFound):
        await redrive(database, named(failed), tenant="else")
    with pytest.raises(InvalidTimer):
        await redrive(database, RedriveRequest())
    both = [*(named(settled).deliveries or ()), *(named(failed).deliveries or ()), *(named(failed).deliveries or ())]
    assert await redrive(database, RedriveRequest(deliveries=both)) == (1, 1)
    with pytest.raises(DeliveryStateConflict, match="pending"):
        await redrive(database, named(failed))


async def test_a_recurring_timer_is_running_again(database: Database, sql: Sql) -> None:
    timer = await sql.fetchval(
        "select minoots.schedule_timer('demo', schedule => '{\"every\": \"1h\"}', action_bundle => $1)",
        json.dumps(lives.CALL),
    )
    await settle(database)
    await sql.execute("select minoots.fire_timer('demo', $1)", timer)
    await settle(database)
    await make_deliveries_due(sql)
    assert await attempt(database, Retry("HTTP 500", Answer(1, 500)), DEAD) == 1
    assert await count(sql, "true", "open_firings") == 0
    before = await sql.fetchrow("select status, version from minoots.timers")
    assert await redrive(database, named(timer)) == (1, 1)
    assert await count(sql, "occurrence = 1", "open_firings") == 1
    assert await sql.fetchrow("select status, version from minoots.timers") == before
    assert await attempt(database, Delivered(Answer(1, 200)), DELIVERED) == 1
    assert await count(sql, "status = 'settled'", "firings") == 1
    assert await count(sql, "true", "open_firings") == 0


async def test_the_age_counts_from_the_redrive(database: Database, sql: Sql) -> None:
    async with Receiver() as receiver, orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url()), maxAgeMs=3_600_000))
        await eventually(ended(sql), seconds=30)
    await sql.execute(
        "update minoots.deliveries set status = 'dead', dead_at = minoots.now(), dead_reason = 'so', "
        "delivered_at = null"
    )
    await sql.execute(
        "update minoots.firings set status = 'failed', dead_deliveries = 1, fired_at = fired_at - interval '2 d', "
        "due_at = due_at - interval '2 d'"
    )
    assert await redrive(database, named(timer)) == (1, 1)
    (lease,) = await Intake(database, "here", 5_000).take_due(10)
    assert lease.age < timedelta(minutes=1)
    assert (lease.redrives, lease.charged_count, lease.unknown_count, lease.attempt_count) == (1, 0, 0, 1)


async def test_what_was_redriven_is_not_pruned(database: Database, sql: Sql) -> None:
    opened, left = await lives.fail(sql, database, 2)
    await lives.pass_time(sql, "91 days")
    assert await redrive(database, named(opened)) == (1, 1)
    pruner = EndedPruner(database, SystemClock(), Retention())
    assert await pruner.run_once() == 1
    assert [row["id"] for row in await sql.fetch("select id from minoots.timers")] == [opened]
    assert await attempt(database, Delivered(Answer(1, 200)), DELIVERED) == 1
    assert await count(sql, "status = 'settled'") == 1
    assert await EndedPruner(database, SystemClock(), Retention()).run_once() == 0, "its end is a new one"
    with pytest.raises(TimerNotFound):
        await redrive(database, named(left))


async def test_two_redrives_at_once_open_each_delivery_once(database: Database, sql: Sql) -> None:
    pair = bundle(webhook("http://127.0.0.1:9/", "a"), webhook("http://127.0.0.1:9/", "b"), concurrency=2)
    await fire_timers(database, sql, pair, many=60)
    while await attempt(database, Retry("HTTP 500", Answer(1, 500)), DEAD):
        pass
    done = await asyncio.gather(*(redrive(database, RedriveRequest(filter=RedriveFilter())) for _ in range(4)))
    assert sum(redriven for _, redriven in done) == 120
    assert await count(sql, "status = 'pending' and redrives = 1", "deliveries") == 120
    assert await count(sql, "status = 'dispatching' and open_deliveries = 2 and dead_deliveries = 0", "firings") == 60
    assert await count(sql, "status = 'fired' and version = 4") == 60


async def test_a_redrive_beside_deliveries_that_keep_dying_leaves_the_counts_right(
    database: Database, sql: Sql
) -> None:
    async with Receiver(by_path(call=410)) as receiver, orchestrating(database, "one"), orchestrating(database, "two"):
        call = escalating(webhook(receiver.url("/call")), 1, paged(receiver.url("/page")))
        await fire_timers(database, sql, bundle(call, webhook(receiver.url("/fine"), "fine")), many=20)
        for _ in range(6):
            await eventually(lambda: _has(sql, "status = 'failed'"), seconds=30)
            await redrive(database, RedriveRequest(filter=RedriveFilter()))
        await eventually(ended(sql, 20), seconds=60)
    wrong = await sql.fetchval(
        "select count(*) from minoots.firings f cross join lateral ("
        "select count(*) filter (where status = 'dead') as dead, "
        "count(*) filter (where status = 'pending') as open from minoots.deliveries d "
        "where d.timer_id = f.timer_id and d.occurrence = f.occurrence) d "
        "where f.dead_deliveries <> d.dead or f.open_deliveries <> d.open or f.status <> 'failed'"
    )
    assert wrong == 0
    assert await count(sql, "status = 'delivered' and redrives = 0 and action_id = 'fine'", "deliveries") == 20


async def test_a_firing_that_fails_again_is_one_failure_of_its_timer(database: Database, sql: Sql) -> None:
    schedule = json.dumps({"every": "1h", "pauseAfterFailures": 3})
    timer = await sql.fetchval(
        "select minoots.schedule_timer('demo', schedule => $1, action_bundle => $2)", schedule, json.dumps(lives.CALL)
    )
    for _ in range(2):
        await sql.execute("select minoots.fire_timer('demo', $1)", timer)
        await settle(database)
        await make_deliveries_due(sql)
        assert await attempt(database, Retry("HTTP 500", Answer(1, 500)), DEAD) == 1
        assert (await redrive(database, RedriveRequest(filter=RedriveFilter())))[1] >= 1
        while await attempt(database, Retry("HTTP 500", Answer(1, 500)), DEAD):
            pass
    row = await sql.fetchrow("select status, failures from minoots.timers")
    assert tuple(row) == ("scheduled", 2)
    assert await count(sql, "redrives >= 1", "deliveries") == 2
