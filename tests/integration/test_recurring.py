"""Recurring timers: a year of them on a moved clock, catching up, what runs still, two kernels, plain SQL."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from minoots.clock import SystemClock
from minoots.domain.outcome import Answer, Delivered, Rejected
from minoots.kernel.firing import Kernel
from minoots.kernel.planning import Planner
from minoots.store.database import Database
from tests.support.life import DEAD, DELIVERED, attempt, make_deliveries_due
from tests.support.moved_clock import set_clock
from tests.support.timers import Sql, bundle, webhook

START = datetime(2027, 1, 1, tzinfo=UTC)
HOOK = bundle(webhook("http://127.0.0.1:9/hook"))


async def insert(sql: Sql, schedule: Mapping[str, Any], actions: Mapping[str, Any] | None = None) -> UUID:
    """A recurring timer as somebody with psql writes it: the kernel plans it."""
    return await sql.fetchval(
        "insert into minoots.timers (tenant_id, schedule, action_bundle) values ('demo', $1, $2) returning id",
        json.dumps(schedule),
        None if actions is None else json.dumps(actions),
    )


class Engine:
    """A kernel with its planner, without their loops."""

    def __init__(self, database: Database, batch: int = 500) -> None:
        self.planner = Planner(database)
        self.kernel = Kernel(database, SystemClock(), batch, on_recurring=self.planner.ask)

    async def settle(self) -> None:
        """Until nothing is left to do at this instant."""
        while True:
            scanned = await self.kernel.scan_once()
            planned = await self.planner.run_once()
            if not (scanned.claimed or planned.moved or planned.ended or planned.failed):
                return


async def nominals(sql: Sql, timer_id: UUID) -> list[datetime]:
    rows = await sql.fetch(
        "select nominal_at from minoots.firings where timer_id = $1 and is_scheduled order by occurrence", timer_id
    )
    return [row["nominal_at"] for row in rows]


async def timer(sql: Sql, timer_id: UUID) -> dict[str, Any]:
    return json.loads(await sql.fetchval("select minoots.timer_json(t) from minoots.timers t where id = $1", timer_id))


async def events(sql: Sql, timer_id: UUID, kind: str) -> list[dict[str, Any]]:
    rows = await sql.fetch(
        "select data::text from minoots.outbox where timer_id = $1 and kind = $2 order by id", timer_id, kind
    )
    return [json.loads(row[0]) for row in rows]


async def test_a_year_fires_every_instant_once_and_keeps_the_local_time(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    berlin = await insert(sql, {"cron": "0 9 * * *", "timezone": "Europe/Berlin"})
    night = await insert(sql, {"cron": "30 2 * * *", "timezone": "America/New_York"})
    month_end = await insert(sql, {"cron": "0 18 L * *", "timezone": "Asia/Tokyo"})
    steady = await insert(sql, {"every": "36h"})
    rule = await insert(
        sql, {"rrule": "FREQ=WEEKLY;BYDAY=MO,TH", "dtstart": "2020-01-06T08:15:00", "timezone": "Australia/Lord_Howe"}
    )
    engine = Engine(database)
    await engine.settle()
    end = START + timedelta(days=365)
    while (due := await sql.fetchval("select min(due_at) from minoots.timers")) < end:
        await set_clock(sql, due)
        await engine.settle()

    days = [datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(-1, 367)]

    def walls(zone: str, hour: int, minute: int) -> list[datetime]:
        local = [datetime(d.year, d.month, d.day, hour, minute, tzinfo=ZoneInfo(zone)).astimezone(UTC) for d in days]
        return [instant for instant in local if START < instant < end]

    assert await nominals(sql, berlin) == walls("Europe/Berlin", 9, 0)
    # On 14 March there is no 02:30 in New York: it runs right after the gap, at 03:00.
    expected = [
        i if i.date() != date(2027, 3, 14) else datetime(2027, 3, 14, 7, tzinfo=UTC)
        for i in walls("America/New_York", 2, 30)
    ]
    assert await nominals(sql, night) == expected
    assert [(i.astimezone(ZoneInfo("Asia/Tokyo")) + timedelta(days=1)).day for i in await nominals(sql, month_end)] == [
        1
    ] * 12
    fired = await nominals(sql, steady)
    assert {b - a for a, b in pairwise(fired)} == {timedelta(hours=36)}
    assert len(fired) in (243, 244)
    weekly = [i.astimezone(ZoneInfo("Australia/Lord_Howe")) for i in await nominals(sql, rule)]
    assert {(i.weekday(), i.hour, i.minute) for i in weekly} == {(0, 8, 15), (3, 8, 15)}
    assert len(weekly) in (104, 105)
    assert await sql.fetchval("select count(*) from minoots.timers where missed > 0") == 0
    assert await sql.fetchval("select count(*) from minoots.firings where fired_at <> due_at") == 0


async def test_a_week_away_from_a_schedule_of_seconds_costs_one_event(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1s"})
    engine = Engine(database)
    await engine.settle()
    await set_clock(sql, START + timedelta(days=7))
    await engine.settle()
    last = START + timedelta(days=7)
    assert await nominals(sql, made) == [last]
    [missed] = await events(sql, made, "timer.missed")
    assert missed["missed"] == {
        "from": "2027-01-01T00:00:01.000000Z",
        "to": "2027-01-07T23:59:59.000000Z",
        "count": 7 * 86_400 - 1,
        "reason": "late",
    }
    assert (await timer(sql, made))["missed"] == 7 * 86_400 - 1
    assert (await timer(sql, made))["fireAt"] == "2027-01-08T00:00:01.000000Z"


@pytest.mark.parametrize(
    ("catch_up", "fired", "missed"),
    [
        ({"policy": "all"}, 10, 0),
        ({"policy": "all", "max": 4}, 4, 6),
        ({"policy": "all", "window": "3h30m"}, 4, 6),
        ({"policy": "latest"}, 1, 9),
        ({"policy": "none"}, 0, 10),
    ],
)
async def test_after_downtime_catch_up_decides(
    catch_up: dict[str, Any], fired: int, missed: int, database: Database, sql: Sql
) -> None:
    await set_clock(sql, START + timedelta(minutes=1))
    made = await insert(sql, {"cron": "0 * * * *", "catchUp": catch_up})
    engine = Engine(database)
    await engine.settle()
    await set_clock(sql, START + timedelta(hours=10, minutes=10))
    await engine.settle()
    ran = await nominals(sql, made)
    assert ran == [START + timedelta(hours=h) for h in range(11 - fired, 11)]
    shown = await timer(sql, made)
    assert (shown["missed"], shown["fireAt"]) == (missed, "2027-01-01T11:00:00.000000Z")
    assert [e["missed"]["count"] for e in await events(sql, made, "timer.missed")] == ([missed] if missed else [])


async def test_skip_leaves_out_what_comes_due_while_the_firing_before_runs(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m", "whileRunning": "skip"}, HOOK)
    engine = Engine(database)
    for minute in range(4):
        await set_clock(sql, START + timedelta(minutes=minute))
        await engine.settle()
    assert await nominals(sql, made) == [START + timedelta(minutes=1)]
    await deliver(database, sql)
    await engine.settle()
    await set_clock(sql, START + timedelta(minutes=4))
    await engine.settle()
    assert await nominals(sql, made) == [START + timedelta(minutes=m) for m in (1, 4)]
    [missed] = await events(sql, made, "timer.missed")
    assert missed["missed"] == {
        "from": "2027-01-01T00:02:00.000000Z",
        "to": "2027-01-01T00:03:00.000000Z",
        "count": 2,
        "reason": "running",
    }
    assert (await timer(sql, made))["missed"] == 2


async def deliver(database: Database, sql: Sql) -> None:
    await make_deliveries_due(sql)
    assert await attempt(database, Delivered(Answer(status_code=200, duration_ms=1)), DELIVERED)


async def test_queue_fires_as_soon_as_the_firing_before_has_ended(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m", "whileRunning": "queue"}, HOOK)
    engine = Engine(database)
    await engine.settle()
    for minute in range(1, 4):
        await set_clock(sql, START + timedelta(minutes=minute))
        await engine.settle()
    assert len(await nominals(sql, made)) == 1
    for settled_s, fired in ((200, 2), (210, 3)):
        await set_clock(sql, START + timedelta(seconds=settled_s))
        await deliver(database, sql)
        await engine.settle()
        assert await nominals(sql, made) == [START + timedelta(minutes=m) for m in range(1, fired + 1)]
    # It waited for the firing before it: that is not lateness.
    assert await sql.fetchval("select max(fired_at - due_at) from minoots.firings") == timedelta(0)
    assert (await timer(sql, made))["missed"] == 0


async def test_a_settling_at_the_moment_of_queueing_wakes_the_queue(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m", "whileRunning": "queue"}, HOOK)
    engine = Engine(database)
    await engine.settle()
    await set_clock(sql, START + timedelta(minutes=1))
    await engine.settle()
    await set_clock(sql, START + timedelta(minutes=2))
    await make_deliveries_due(sql)
    settling = sql.transaction()
    await settling.start()
    # Seen as running by the claim, and ended by a transaction that commits after it.
    await sql.execute("delete from minoots.open_firings where timer_id = $1", made)
    await engine.settle()
    await settling.commit()
    assert len(await nominals(sql, made)) == 1
    await engine.settle()
    assert len(await nominals(sql, made)) == 2


async def test_failures_in_a_row_pause_it_and_a_success_begins_anew(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m", "pauseAfterFailures": 2}, HOOK)
    engine = Engine(database)
    failed = Rejected("HTTP 410", Answer(status_code=410, duration_ms=1))
    for minute, is_good in enumerate((False, True, False, False), start=1):
        assert (await timer(sql, made))["status"] == "scheduled"
        await engine.settle()
        await set_clock(sql, START + timedelta(minutes=minute))
        await engine.settle()
        await make_deliveries_due(sql)
        outcome = (Delivered(Answer(status_code=200, duration_ms=1)), DELIVERED) if is_good else (failed, DEAD)
        assert await attempt(database, *outcome) == 1
    assert (await timer(sql, made))["status"] == "paused"
    [paused] = await events(sql, made, "timer.paused")
    assert "2 firings in a row" in paused["reason"]
    assert [len(await events(sql, made, f"timer.{kind}")) for kind in ("settled", "failed")] == [1, 3]


async def test_it_ends_after_its_last_occurrence_when_nothing_is_open(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m", "maxOccurrences": 2}, HOOK)
    engine = Engine(database)
    await engine.settle()
    for minute in (1, 2, 3):
        await set_clock(sql, START + timedelta(minutes=minute))
        await engine.settle()
    assert len(await nominals(sql, made)) == 2
    shown = await timer(sql, made)
    assert (shown["status"], shown["fireAt"], shown["occurrence"]) == ("scheduled", None, 2)
    await deliver(database, sql)
    await engine.settle()
    shown = await timer(sql, made)
    assert (shown["status"], shown["missed"]) == ("settled", 0)
    assert (await events(sql, made, "timer.settled"))[-1]["timer"]["status"] == "settled"


async def test_jitter_is_stable_inside_its_window_and_no_lateness(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = [await insert(sql, {"every": "1h", "jitter": "10m"}) for _ in range(20)]
    engine = Engine(database)
    await engine.settle()
    end = START + timedelta(hours=3)
    while (due := await sql.fetchval("select min(due_at) from minoots.timers")) < end:
        await set_clock(sql, due)
        await engine.settle()
    spread = set()
    for one in made:
        rows = await sql.fetch("select nominal_at, due_at, fired_at from minoots.firings where timer_id = $1", one)
        assert len(rows) >= 2
        jitters = {row["due_at"] - row["nominal_at"] for row in rows}
        assert len(jitters) == 1
        assert timedelta(0) <= max(jitters) <= timedelta(minutes=10)
        assert all(row["fired_at"] == row["due_at"] and row["nominal_at"].minute == 0 for row in rows)
        spread |= jitters
    assert len(spread) > 10


@pytest.mark.parametrize(
    ("schedule", "word"),
    [({"cron": "0 9 31 2 *"}, "never"), ({"cron": "every day"}, "cron"), ({"specs": "often"}, "specs")],
)
async def test_what_plain_sql_writes_and_nobody_can_read_fails_with_its_reason(
    schedule: dict[str, Any], word: str, database: Database, sql: Sql
) -> None:
    made = await insert(sql, schedule)
    good = await insert(sql, {"every": "1h"})
    await Engine(database).settle()
    shown = await timer(sql, made)
    assert shown["status"] == "failed"
    assert word in shown["failureReason"]
    assert len(await events(sql, made, "timer.failed")) == 1
    assert (await timer(sql, good))["fireAt"] is not None


async def test_an_extra_firing_asked_for_by_sql_does_not_move_the_next(database: Database, sql: Sql) -> None:
    made = await insert(sql, {"every": "1h"}, HOOK)
    engine = Engine(database)
    await engine.settle()
    before = await timer(sql, made)
    await sql.execute("update minoots.timers set extra_firings = 2 where id = $1", made)
    await engine.settle()
    after = await timer(sql, made)
    assert (after["fireAt"], after["occurrence"]) == (before["fireAt"], 2)
    assert await sql.fetchval("select count(*) from minoots.firings where not is_scheduled") == 2


async def test_two_kernels_race_and_no_occurrence_fires_twice(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = [await insert(sql, {"every": "1s"}, HOOK) for _ in range(20)]
    engines = [Engine(database, batch=7) for _ in range(2)]
    await engines[0].settle()
    for second in range(1, 61):
        await set_clock(sql, START + timedelta(seconds=second))
        await asyncio.gather(*(engine.settle() for engine in engines))
        for engine in engines:
            await engine.settle()
    expected = [START + timedelta(seconds=s) for s in range(1, 61)]
    for one in made:
        assert await nominals(sql, one) == expected
        assert (await timer(sql, one))["occurrence"] == 60
    assert await sql.fetchval("select count(*) from minoots.outbox where kind = 'timer.missed'") == 0


async def test_a_firing_keeps_the_bundle_it_fired_with(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m"}, HOOK)
    engine = Engine(database)
    await engine.settle()
    await set_clock(sql, START + timedelta(minutes=1))
    await engine.settle()
    other = bundle(webhook("http://127.0.0.1:9/other", "other"))
    await sql.execute("update minoots.timers set action_bundle = $2 where id = $1", made, json.dumps(other))
    kept = await sql.fetchval("select timer_shown::text from minoots.firings where timer_id = $1", made)
    assert json.loads(kept)["actionBundle"]["actions"][0]["id"] == "call"
    await deliver(database, sql)
    assert await sql.fetchval("select status from minoots.deliveries where timer_id = $1", made) == "delivered"


async def test_resumed_by_sql_after_a_pause_beyond_its_plan_every_occurrence_is_counted(
    database: Database, sql: Sql
) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m"})
    engine = Engine(database)
    await engine.settle()
    assert await sql.fetchval("select minoots.pause_timer('demo', $1)", made)
    await set_clock(sql, START + timedelta(days=1, seconds=30))
    assert await sql.fetchval("select minoots.resume_timer('demo', $1)", made)
    await engine.settle()
    [missed] = await events(sql, made, "timer.missed")
    assert missed["missed"] == {
        "from": "2027-01-01T00:01:00.000000Z",
        "to": "2027-01-02T00:00:00.000000Z",
        "count": 1440,
        "reason": "paused",
    }
    shown = await timer(sql, made)
    assert (shown["missed"], shown["fireAt"], shown["occurrence"]) == (1440, "2027-01-02T00:01:00.000000Z", 0)


async def test_another_schedule_by_plain_sql_is_planned_anew(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1m"})
    engine = Engine(database)
    await engine.settle()
    assert (await timer(sql, made))["schedule"] == {"specs": [{"every": "1m"}]}
    await sql.execute(
        "update minoots.timers set schedule = $2 where id = $1", made, json.dumps({"cron": "0 9 * * *", "jitter": "1m"})
    )
    await engine.settle()
    shown = await timer(sql, made)
    assert shown["fireAt"] == "2027-01-01T09:00:00.000000Z"
    assert shown["schedule"] == {"specs": [{"cron": "0 9 * * *"}], "jitter": "1m"}


async def test_a_first_instant_of_ones_own_comes_before_those_of_the_schedule(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await sql.fetchval(
        "insert into minoots.timers (tenant_id, fire_at, schedule) values ('demo', $1, $2) returning id",
        START + timedelta(minutes=90),
        json.dumps({"cron": "0 * * * *"}),
    )
    engine = Engine(database)
    await engine.settle()
    for minute in (60, 90, 120):
        await set_clock(sql, START + timedelta(minutes=minute))
        await engine.settle()
    assert await nominals(sql, made) == [START + timedelta(minutes=m) for m in (90, 120)]
    assert (await timer(sql, made))["missed"] == 0


async def test_resumed_and_caught_up_it_was_due_when_it_was_resumed(database: Database, sql: Sql) -> None:
    await set_clock(sql, START)
    made = await insert(sql, {"every": "1h"})
    engine = Engine(database)
    await engine.settle()
    assert await sql.fetchval("select minoots.pause_timer('demo', $1)", made)
    await set_clock(sql, START + timedelta(days=1, minutes=5))
    assert await sql.fetchval("select minoots.resume_timer('demo', $1, catch_up => true)", made)
    await engine.settle()
    assert await nominals(sql, made) == [START + timedelta(days=1)]
    assert await sql.fetchval("select fired_at - due_at from minoots.firings") == timedelta(0)


async def test_neither_a_locked_row_nor_a_bad_one_holds_up_the_others(database: Database, sql: Sql) -> None:
    locked, last, bad, good = [
        await insert(sql, schedule)
        for schedule in ({"every": "1h"}, {"cron": "often"}, {"cron": "never"}, {"every": "1h"})
    ]
    await sql.execute("update minoots.timers set version = 9223372036854775807 where id = $1", last)
    other = await asyncpg.connect(database.url)
    try:
        holding = other.transaction()
        await holding.start()
        await other.execute("update minoots.timers set name = 'mine' where id = $1", locked)
        async with asyncio.timeout(2):
            await Planner(database).run_once()
        assert (await timer(sql, good))["fireAt"] is not None
        assert [(await timer(sql, one))["status"] for one in (last, bad)] == ["failed", "failed"]
        await holding.rollback()
    finally:
        await other.close()
    await Planner(database).run_once()
    assert (await timer(sql, locked))["fireAt"] is not None


@pytest.mark.parametrize(
    "spoil",
    [
        "planned = array[null]::timestamptz[]",
        "planned_to = '20000-01-01'",
        "planned = array['9999-01-01'::timestamptz]",
    ],
)
async def test_no_row_can_be_written_that_the_kernel_cannot_read(spoil: str, database: Database, sql: Sql) -> None:
    made = await insert(sql, {"every": "1h"})
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"update minoots.timers set {spoil} where id = $1", made)
