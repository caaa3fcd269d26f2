"""The kernel fires everything once and in time, and neither a bad row nor a stopped process holds the rest up."""

import asyncio
import json
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from minoots.clock import SystemClock
from minoots.embedded.nats import EmbeddedNats
from minoots.errors import StoreUnavailable
from minoots.kernel.firing import INTERVAL_S, Kernel
from minoots.settings import Settings
from minoots.store import firings
from minoots.store.database import Connection, Database
from minoots.store.firings import START
from tests.support.moved_clock import set_clock
from tests.support.processes import RoleProcess
from tests.support.stream import Overheard, kinds_by_timer, read_stream
from tests.support.timers import Sql, bundle, count, fired_exactly_once, insert_timers, webhook
from tests.support.waiting import eventually

HERD = 5_000
# What a claim of 100 may touch, in pages: one or two a row to lock it, and the way down the index.
PAGES_MOST = 300

# A child whose processor time is measured is not traced for coverage as well.
UNTRACED = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def kernel_of(database: Database, batch: int = 500) -> Kernel:
    return Kernel(database, SystemClock(), batch)


async def _all_fired(sql: Sql) -> bool:
    return not await count(sql, "status = 'scheduled'")


async def test_five_thousand_timers_due_at_one_instant_fire_within_a_second(database_url: str, sql: Sql) -> None:
    call = bundle(webhook("http://127.0.0.1:9/hook"))
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url, **UNTRACED}):
        herd = await insert_timers(sql, HERD, after_s=4, actions=call)
        await sql.execute("vacuum analyze minoots.timers")
        await eventually(lambda: _all_fired(sql), seconds=20)
    await fired_exactly_once(sql, herd)
    last = await sql.fetchval("select max(extract(epoch from fired_at - due_at))::float8 from minoots.firings")
    assert last < 1.0
    assert await count(sql, "status = 'pending'", "deliveries") == HERD


@pytest.mark.parametrize(
    "spoil",
    [
        "update minoots.timers set occurrence = 2147483647 where id = $1",
        "update minoots.timers set version = 9223372036854775807 where id = $1",
        "insert into minoots.firings "
        "(tenant_id, timer_id, occurrence, status, nominal_at, due_at, settled_at, timer_version) "
        "select tenant_id, id, 1, 'settled', due_at, due_at, due_at, 1 from minoots.timers where id = $1",
    ],
    ids=["last-occurrence", "last-version", "firing-is-there"],
)
async def test_one_timer_that_cannot_be_fired_fails_alone(spoil: str, database: Database, sql: Sql) -> None:
    timers = await insert_timers(sql, 100, after_s=-1)
    culprit = timers[37]
    await sql.execute(spoil, culprit)
    done = await kernel_of(database).run_once()
    assert (done.claimed, done.fired, done.failed) == (100, 99, 1)
    failed = await sql.fetchrow("select * from minoots.timers where id = $1", culprit)
    assert failed["status"] == "failed"
    assert failed["failure_reason"].startswith("cannot be fired: ")
    assert failed["due_at"] is None
    await fired_exactly_once(sql, [timer for timer in timers if timer != culprit])
    told = await sql.fetch("select kind, data from minoots.outbox where timer_id = $1", culprit)
    assert [row["kind"] for row in told] == ["timer.failed"]
    assert json.loads(told[0]["data"])["timer"]["failureReason"] == failed["failure_reason"]


async def test_a_kernel_stopped_in_its_transaction_holds_nobody_up(database_url: str, sql: Sql) -> None:
    """Without prepared statements there is a transaction to be stopped in; else the server ends the one statement."""
    environ = {"MINOOTS_DATABASE_URL": database_url}
    unprepared = {"MINOOTS_KERNEL_BATCH": "50", "MINOOTS_PREPARED_STATEMENTS": "off"}
    async with RoleProcess(["kernel"], {**environ, **unprepared}, crash_at="stop:after-fire") as victim:
        held = await insert_timers(sql, 50)
        await eventually(lambda: _is_stopped(victim))
        stopped_at = asyncio.get_running_loop().time()
        async with RoleProcess(["kernel"], environ):
            rest = await insert_timers(sql, 150)
            await eventually(lambda: _count_fired(sql, 150))
            assert await sql.fetchval("select max(fired_at - due_at) < interval '1 s' from minoots.firings")
            await eventually(lambda: _count_fired(sql, 200), seconds=8)
            assert asyncio.get_running_loop().time() - stopped_at < 7
            victim.send(signal.SIGCONT)
            # It notices that its transaction is gone, and works again.
            await eventually(lambda: _has_logged(victim, "loop.recovered"))
        last = await insert_timers(sql, 20)
        await eventually(lambda: _count_fired(sql, 220))
    await fired_exactly_once(sql, [*held, *rest, *last])
    assert await sql.fetchval("select bool_and(version = 2) from minoots.timers")


async def _is_stopped(process: RoleProcess) -> bool:
    return process.is_stopped


async def _has_logged(process: RoleProcess, event: str) -> bool:
    return bool(process.logged(event))


async def _count_fired(sql: Sql, many: int) -> bool:
    return await count(sql, "true", "firings") == many


@pytest.mark.parametrize("step", ["stop:before-publish", "stop:before-remove"])
async def test_a_relay_stopped_in_its_transaction_holds_nobody_up(
    step: str, database_url: str, nats: EmbeddedNats, database: Database, sql: Sql
) -> None:
    """Another one publishes what it held, and when it goes on it publishes nothing."""
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    async with Overheard(nats.url) as overheard, RoleProcess(["relay"], environ, crash_at=step) as victim:
        timers = [await sql.fetchval("select minoots.schedule_timer('demo', fire_in => '1 ms')") for _ in range(40)]
        await eventually(lambda: _is_stopped(victim))
        stopped_at = asyncio.get_running_loop().time()
        before = len(overheard.messages)
        kernel = kernel_of(database)
        await eventually(lambda: _fires_all(kernel, sql))
        async with RoleProcess(["relay"], environ) as other:
            await eventually(lambda: _is_empty(sql), seconds=12)
            assert asyncio.get_running_loop().time() - stopped_at < 9
            await other.stop()
        heard = len(overheard.messages)
        victim.send(signal.SIGCONT)
        await eventually(lambda: _has_logged(victim, "loop.recovered"))
        assert len(overheard.messages) == heard, "what it held is another's now"
        # And it is a good relay again.
        timers.append(await sql.fetchval("select minoots.schedule_timer('demo', fire_in => '1 ms')"))
        await eventually(lambda: _fires_all(kernel, sql))
        await eventually(lambda: _is_empty(sql))
    # What it had published and not removed came again, under the same ids; nothing else did.
    events = await read_stream(nats.url)
    repeated = len(overheard.messages) - len(events)
    assert repeated == before
    assert len({event.message_id for event in events}) == len(events)
    assert kinds_by_timer(events) == {str(timer): ["timer.scheduled", "timer.fired"] for timer in timers}


async def _fires_all(kernel: Kernel, sql: Sql) -> bool:
    await kernel.run_once()
    await kernel.scan_once()
    return await _all_fired(sql)


async def _is_empty(sql: Sql) -> bool:
    return not await sql.fetchval("select exists (select from minoots.outbox)")


async def test_a_row_committed_late_below_the_mark_is_found_by_the_scan(
    database: Database, database_url: str, sql: Sql
) -> None:
    kernel = kernel_of(database)
    slow = await asyncpg.connect(database_url)
    try:
        transaction = slow.transaction()
        await transaction.start()
        late = await insert_timers(slow, 3)
        on_time = await insert_timers(sql, 5)
        assert (await kernel.run_once()).fired == 5
        await transaction.commit()
    finally:
        await slow.close()
    assert (await kernel.run_once()).claimed == 0, "it lies below the mark"
    assert (await kernel.scan_once()).fired == 3
    await fired_exactly_once(sql, [*late, *on_time])


async def test_the_mark_hides_nothing_of_a_herd_at_one_instant(database: Database, sql: Sql) -> None:
    kernel = kernel_of(database, batch=7)
    herd = await insert_timers(sql, 30)
    rounds = [(await kernel.run_once()).fired for _ in range(6)]
    assert rounds == [7, 7, 7, 7, 2, 0]
    await fired_exactly_once(sql, herd)


async def test_a_backlog_is_fired_side_by_side_and_once(database: Database, sql: Sql) -> None:
    kernel = kernel_of(database, batch=7)
    herd = await insert_timers(sql, 300)
    while not await _all_fired(sql):
        await kernel.tick()
    await fired_exactly_once(sql, herd)
    last = await sql.fetchrow("select due_at, timer_id from minoots.firings order by 1 desc, 2 desc limit 1")
    assert (kernel._water.mark.due_at, kernel._water.mark.id) == tuple(last), "the mark is at the end"


async def test_what_is_late_is_taken_for_a_backlog_and_told_to_others_until_it_is_fired(
    database: Database, sql: Sql
) -> None:
    """By two batches from the start: the first of them do not wait for each other."""
    timers = await insert_timers(sql, 500, after_s=-60)
    await sql.execute("update minoots.timers set created_at = fire_at")
    kernel = kernel_of(database, batch=10)
    limits: list[int] = []
    seen: list[bool] = []
    run_once = kernel.run_once

    async def watched(limit: int) -> Any:
        limits.append(limit)
        done = await run_once(limit)
        seen.append(kernel.is_behind)
        return done

    kernel.run_once = watched  # type: ignore[method-assign]
    assert await kernel.tick() == 0.0
    await fired_exactly_once(sql, timers)
    assert any(seen)
    assert not kernel.is_behind
    assert limits[:2] == [10, 10], "the first two leave each other something"
    assert max(limits) == 40, "a backlog that goes on is fired in larger ones"


async def test_a_late_row_that_somebody_holds_is_looked_at_once_an_interval(
    database_url: str, database: Database, sql: Sql
) -> None:
    (timer,) = await insert_timers(sql, 1, after_s=-60)
    await sql.execute("update minoots.timers set created_at = fire_at")
    kernel = kernel_of(database)
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction():
            await holder.execute("select from minoots.timers where id = $1 for update", timer)
            assert [await kernel.tick() for _ in range(6)] == [INTERVAL_S] * 6
            assert not kernel.is_behind
    finally:
        await holder.close()
    await kernel.scan_once()
    await fired_exactly_once(sql, [timer])


# The clock as a gate: a claim that has taken its snapshot stops here until nobody holds the lock.
_GATE = """
create or replace function minoots.now() returns timestamptz language plpgsql stable parallel safe as $$
begin
    perform pg_advisory_lock_shared(7), pg_advisory_unlock_shared(7);
    return statement_timestamp();
end $$
"""


@pytest.mark.parametrize(
    ("change", "fires"),
    [
        ('update minoots.timers set metadata = \'{"at": "last"}\'', True),
        ("update minoots.timers set metadata = '{\"at\": \"last\"}', tenant_id = 'other'", True),
        ("update minoots.timers set fire_at = fire_at + interval '1 day'", False),
        ("update minoots.timers set status = 'cancelled', cancelled_at = fire_at", False),
        ("delete from minoots.timers", False),
    ],
)
async def test_a_row_that_changes_between_the_look_and_the_lock_fires_as_it_is_then(
    change: str, fires: bool, database_url: str, database: Database, sql: Sql
) -> None:
    await sql.execute(_GATE)
    other = await asyncpg.connect(database_url)
    try:
        async with database.connection() as connection:
            # The planner asks for the time as well. Once it has made its plan for good, only the statement does.
            for _ in range(8):
                assert not (await firings.fire_due(database, connection, START, 10)).claimed
            assert await connection.fetchval("select max(generic_plans) from pg_prepared_statements") == 3
            (timer,) = await insert_timers(sql, 1, actions=bundle(webhook("http://127.0.0.1:9/hook")))
            await other.execute("select pg_advisory_lock(7)")
            firing = asyncio.ensure_future(firings.fire_due(database, connection, START, 10))
            waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted)"
            await eventually(lambda: other.fetchval(waits))
            # One transaction, and no clock in it: that is shut.
            await other.execute(f"set session_replication_role = replica; {change}; reset session_replication_role")
            await other.execute("select pg_advisory_unlock(7)")
            done = await firing
    finally:
        await other.close()
    assert done.fired == int(fires)
    assert await count(sql, "timer_id is not null", "firings") == int(fires)
    if fires:
        event = json.loads(await sql.fetchval("select data::text from minoots.outbox where kind = 'timer.fired'"))
        assert event["timer"]["metadata"] == {"at": "last"}
        assert await count(sql, f"status = 'fired' and id = '{timer}'") == 1


async def test_a_scan_that_fills_its_batch_lowers_the_mark(database: Database, sql: Sql) -> None:
    kernel = kernel_of(database, batch=5)
    late = await insert_timers(sql, 23, after_s=-3600)
    await sql.execute("update minoots.timers set created_at = created_at - interval '1 hour', status = 'paused'")
    await insert_timers(sql, 5)
    assert (await kernel.run_once()).fired == 5
    await sql.execute("update minoots.timers set status = 'scheduled' where status = 'paused'")
    assert (await kernel.run_once()).claimed == 0
    assert (await kernel.scan_once()).fired == 5
    assert [(await kernel.run_once()).fired for _ in range(4)] == [5, 5, 5, 3], "no scan is needed for the rest"
    await fired_exactly_once(sql, late)


async def test_the_mark_stays_where_it_was_when_the_transaction_is_lost(
    database_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.from_env({"MINOOTS_DATABASE_URL": database_url, "MINOOTS_PREPARED_STATEMENTS": "off"})
    async with Database(settings.store) as unprepared:
        kernel = kernel_of(unprepared)
        timers = await insert_timers(sql, 10)
        real = firings.fire_due

        async def cut_off(db: Database, connection: Connection, *given: Any) -> firings.Fired:
            fired = await real(db, connection, *given)
            await sql.fetchval("select pg_terminate_backend($1, 5000)", connection.get_server_pid())
            return fired

        monkeypatch.setattr(firings, "fire_due", cut_off)
        with pytest.raises(StoreUnavailable):
            await kernel.run_once()
        monkeypatch.undo()
        assert await count(sql, "true", "firings") == 0
        assert (await kernel.run_once()).fired == 10
    await fired_exactly_once(sql, timers)


async def test_a_long_transaction_elsewhere_does_not_make_the_claim_dearer(
    database: Database, database_url: str, sql: Sql
) -> None:
    """It stops vacuum, so the index keeps an entry of everything fired; behind the mark none of them is walked."""
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction(isolation="repeatable_read", readonly=True):
            await holder.fetchval("select count(*) from minoots.timers")
            kernel = kernel_of(database)
            for _ in range(5):
                await insert_timers(sql, 4_000)
                while (await kernel.run_once()).claimed:
                    pass
            await sql.execute("vacuum minoots.timers")
            await insert_timers(sql, 100)
            await asyncio.sleep(0.01)
            plain = await _pages(database, firings.START)
            marked = await _pages(database, kernel._water.mark)
            assert (await kernel.run_once()).fired == 100
    finally:
        await holder.close()
    assert plain["Actual Rows"] == marked["Actual Rows"] == 100
    assert marked["pages"] < PAGES_MOST
    assert plain["pages"] > PAGES_MOST, "without the mark it is dear, or this test shows nothing"


async def _pages(database: Database, mark: firings.Mark) -> Mapping[str, Any]:
    async with database.transaction() as connection:
        shown = await connection.fetchval(
            "explain (analyze, buffers, format json) " + database.sql(firings._CLAIM), 500, mark.due_at, mark.id
        )
    plan = json.loads(shown)[0]["Plan"]
    return {**plan, "pages": plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]}


async def test_an_idle_kernel_uses_next_to_no_processor_time(database_url: str) -> None:
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url, **UNTRACED}) as kernel:
        # Start-up is over when the poll interval has grown to its bound.
        await asyncio.sleep(2)
        before, began = kernel.cpu_s, asyncio.get_running_loop().time()
        await asyncio.sleep(8)
        share = (kernel.cpu_s - before) / (asyncio.get_running_loop().time() - began)
    assert share < 0.02


async def test_a_single_timer_is_never_early_and_hardly_late(database_url: str, sql: Sql) -> None:
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url}):
        for _ in range(3):
            timers = await insert_timers(sql, 1, after_s=1)
            await eventually(lambda: _all_fired(sql))
            await fired_exactly_once(sql, timers)
    late = await sql.fetch("select extract(epoch from fired_at - due_at)::float8 as s from minoots.firings")
    assert min(row["s"] for row in late) >= 0
    assert min(row["s"] for row in late) < 0.03, "the kernel sleeps until the very instant"
    assert max(row["s"] for row in late) < 0.3


async def test_an_instant_that_has_passed_fires_at_once(database_url: str, sql: Sql) -> None:
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url}):
        await sql.execute(
            "insert into minoots.timers (tenant_id, name, fire_at) values ('demo', 'old', '2001-01-01 00:00+00')"
        )
        await eventually(lambda: _all_fired(sql))
    row = await sql.fetchrow(
        "select f.due_at = t.created_at as is_due_when_made, f.nominal_at = t.fire_at as is_nominal, "
        "extract(epoch from f.fired_at - f.due_at)::float8 as late "
        "from minoots.firings f join minoots.timers t on t.id = f.timer_id"
    )
    assert row["is_due_when_made"]
    assert row["is_nominal"]
    assert 0 <= row["late"] < 1.5, "found by the next look, or by the scan"


async def test_a_clock_that_is_set_back_hides_nothing_below_the_mark(database: Database, sql: Sql) -> None:
    start = datetime(2027, 1, 1, tzinfo=UTC)
    await set_clock(sql, start + timedelta(days=1))
    kernel = kernel_of(database)
    first = await insert_timers(sql, 1)
    assert (await kernel.run_once()).fired == 1
    await set_clock(sql, start)
    assert (await kernel.scan_once()).fired == 0
    later = await insert_timers(sql, 3)
    assert (await kernel.run_once()).fired == 3, "found by a claim, and not by the scan alone"
    await fired_exactly_once(sql, [*first, *later])
