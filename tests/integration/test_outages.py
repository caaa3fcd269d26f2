"""NATS or Postgres goes away in the middle of the work and comes back: nothing is lost, and deliveries go on."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import nats as nats_client
import pytest
from nats.js.api import RetentionPolicy, StreamConfig

from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.postgres import EmbeddedPostgres
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.stream import SUBJECT, kinds_by_timer, read_stream
from tests.support.timers import Sql, bundle, count, fired_exactly_once, switch_events_off, webhook
from tests.support.waiting import eventually

TIMERS = 1_000
# As long as the promise says, and far longer than every time-out and interval in the line.
DEAD_S = 60.0
BEFORE_S = 3.0
AFTER_S = 4.0
LATE_MOST_S = 5.0

SCHEDULE = """
select minoots.schedule_timer(
           'demo', fire_in => ($2::float8 + g * $3::float8 / $1) * interval '1 s', action_bundle => $4::jsonb)
  from generate_series(1, $1::int) g
"""

# Every event that is written is noted, before the relay can have removed it.
NOTE_EVENTS = """
create table written (event_id uuid primary key);
create function note_events() returns trigger language plpgsql as
  'begin insert into written select event_id from made; return null; end';
create trigger note_events after insert on minoots.outbox
  referencing new table as made for each statement execute function note_events();
"""

ACKNOWLEDGED = "select event_id from written except select event_id from minoots.outbox"


async def schedule(
    sql: Sql, many: int, over_s: float, actions: Mapping[str, Any] | None, after_s: float = 1.0
) -> list[Any]:
    """Timers that fall due evenly over so many seconds, beginning in `after_s`."""
    rows = await sql.fetch(SCHEDULE, many, after_s, over_s, None if actions is None else json.dumps(actions))
    return [row[0] for row in rows]


async def all_settled(sql: Sql, many: int) -> bool:
    return await count(sql, "status = 'settled'") == many


async def is_outbox_empty(sql: Sql) -> bool:
    return not await count(sql, "true", "outbox")


async def lateness(sql: Sql, receiver: Receiver) -> list[float]:
    """For each webhook, the seconds from the timer's due instant by the database to its first arrival; sorted."""
    offset = time.time() - asyncio.get_running_loop().time()
    due = {
        f"{row['timer_id']}_1_call": row["due_at"].timestamp()
        for row in await sql.fetch("select timer_id, due_at from minoots.firings")
    }
    first: dict[str, float] = {}
    for request in receiver.requests:
        first.setdefault(request.headers["webhook-id"], request.at + offset)
    assert set(first) == set(due), "every delivery has arrived"
    return sorted(first[key] - due[key] for key in due)


async def test_nats_killed_and_wiped_loses_nothing_and_delays_little(
    database_url: str, nats: EmbeddedNats, sql: Sql
) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    await sql.execute(NOTE_EVENTS)
    async with (
        Receiver() as receiver,
        RoleProcess(["kernel", "relay"], environ) as relay,
        RoleProcess(["orchestrator"], environ) as orchestrator,
    ):
        timers = await schedule(sql, TIMERS, BEFORE_S + DEAD_S + AFTER_S, bundle(webhook(receiver.url())))
        await asyncio.sleep(1 + BEFORE_S)
        await nats.kill()
        # When every shard can be had, no relay is still removing what NATS acknowledged before it died.
        async with sql.transaction():
            await sql.execute("select from minoots.outbox_shards for update")
        acknowledged = {row["event_id"] for row in await sql.fetch(ACKNOWLEDGED)}
        assert len(acknowledged) > TIMERS, "the work was under way"
        nats.wipe()
        await asyncio.sleep(DEAD_S)
        assert await count(sql, "true", "outbox") > 1_000, "events wait"
        await nats.start()
        await eventually(lambda: all_settled(sql, TIMERS), seconds=AFTER_S + 15)
        await eventually(lambda: is_outbox_empty(sql), seconds=15)
        late = await lateness(sql, receiver)
        for process in (relay, orchestrator):
            assert len(process.logged("broker.away")) == len(process.logged("broker.back")) == 1
    await fired_exactly_once(sql, timers)
    assert late[0] >= 0
    assert late[-1] < LATE_MOST_S
    written = {row["event_id"] for row in await sql.fetch("select event_id from written")}
    events = await read_stream(nats.url)
    on_stream = {event.message_id for event in events}
    assert {str(event_id) for event_id in written - acknowledged} <= on_stream, (
        "what NATS had not acknowledged comes after all"
    )
    assert len(on_stream) == len(events), "and once"
    for kinds in kinds_by_timer(events).values():
        assert kinds == ["timer.scheduled", "timer.fired", "timer.settled"][-len(kinds) :], "in order"


async def test_the_same_load_is_carried_by_postgres_alone_with_events_off(database_url: str, sql: Sql) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": ""}
    await switch_events_off(sql)
    async with (
        Receiver() as receiver,
        RoleProcess(["kernel", "relay"], environ),
        RoleProcess(["orchestrator"], environ),
    ):
        timers = await schedule(sql, TIMERS, 8, bundle(webhook(receiver.url())))
        await eventually(lambda: all_settled(sql, TIMERS), seconds=25)
        late = await lateness(sql, receiver)
    await fired_exactly_once(sql, timers)
    assert late[0] >= 0
    assert late[-1] < 2, "a delivery waits for no message"
    assert await is_outbox_empty(sql)
    assert len(receiver.requests) == TIMERS


async def test_postgres_restarted_in_the_middle_loses_nothing(
    own_postgres: EmbeddedPostgres, nats: EmbeddedNats
) -> None:
    environ = {"MINOOTS_DATABASE_URL": own_postgres.url, "NATS_URL": nats.url}
    async with (
        Receiver() as receiver,
        RoleProcess(["kernel", "relay"], environ) as kernel,
        RoleProcess(["orchestrator"], environ) as orchestrator,
    ):
        sql = await asyncpg.connect(own_postgres.url)
        timers = await schedule(sql, TIMERS, 10, bundle(webhook(receiver.url())))
        await sql.close()
        for _ in range(2):
            await asyncio.sleep(3)
            await own_postgres.restart_immediate()
        sql = await asyncpg.connect(own_postgres.url)
        await eventually(lambda: all_settled(sql, TIMERS), seconds=30)
        await eventually(lambda: is_outbox_empty(sql), seconds=15)
        late = await lateness(sql, receiver)
        for process in (kernel, orchestrator):
            assert process.process is not None
            assert process.process.returncode is None, "nobody ended for it"
            assert not process.logged("loop.failed"), "a database that is away is no defect"
    await fired_exactly_once(sql, timers)
    assert late[0] >= 0
    assert await count(sql, "status = 'settled' and version = 3") == TIMERS
    assert await count(sql, "outcome = 'delivered'", "attempts") == TIMERS
    # A repetition is an attempt that was lost with the database, and is shown as such.
    unknown = await count(sql, "outcome = 'unknown'", "attempts")
    assert len(receiver.requests) <= TIMERS + unknown
    await sql.close()
    kinds = kinds_by_timer(await read_stream(nats.url))
    assert kinds == {str(timer): ["timer.scheduled", "timer.fired", "timer.settled"] for timer in timers}


async def test_nats_that_is_stopped_and_goes_on_loses_nothing(database_url: str, nats: EmbeddedNats, sql: Sql) -> None:
    """It keeps its connections and answers nothing: that is noticed too."""
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    async with (
        Receiver() as receiver,
        RoleProcess(["kernel", "relay"], environ),
        RoleProcess(["orchestrator"], environ),
    ):
        timers = await schedule(sql, 200, 9, bundle(webhook(receiver.url())))
        await asyncio.sleep(2.5)
        assert nats.pid is not None
        os.kill(nats.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(5)
        finally:
            os.kill(nats.pid, signal.SIGCONT)
        await eventually(lambda: all_settled(sql, 200), seconds=20)
        await eventually(lambda: is_outbox_empty(sql), seconds=15)
        late = await lateness(sql, receiver)
    await fired_exactly_once(sql, timers)
    assert late[-1] < LATE_MOST_S
    kinds = kinds_by_timer(await read_stream(nats.url))
    assert kinds == {str(timer): ["timer.scheduled", "timer.fired", "timer.settled"] for timer in timers}


async def test_that_nats_is_away_is_said_once_and_once_that_it_is_back(
    database_url: str, nats: EmbeddedNats, sql: Sql
) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    await nats.kill()
    async with RoleProcess(["relay"], environ) as relay:
        assert len(relay.logged("broker.away")) == 1, "it starts without NATS, and says so"
        for times in (1, 2):
            await schedule(sql, 5, 1, None)
            await asyncio.sleep(2)
            assert not await is_outbox_empty(sql)
            assert len(relay.logged("broker.away")) == times
            assert len(relay.logged("broker.back")) == times - 1
            nats.wipe()
            await nats.start()
            await eventually(lambda: is_outbox_empty(sql), seconds=10)
            assert len(await read_stream(nats.url)) == 5
            assert len(relay.logged("broker.back")) == times
            if times == 1:
                await nats.kill()
        assert len(relay.logged("loop.waiting")) <= 2
        assert not relay.logged("loop.failed")


async def test_after_a_wipe_messages_wake_the_orchestrator_again(
    database_url: str, nats: EmbeddedNats, sql: Sql
) -> None:
    """Also when the stream and its consumers are gone while the connection stays."""
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    async with (
        Receiver() as receiver,
        RoleProcess(["kernel", "relay"], environ),
        RoleProcess(["orchestrator"], environ),
    ):
        actions = bundle(webhook(receiver.url()))

        async def is_woken() -> bool:
            """Whether a timer is delivered sooner than its delivery would be due without a message."""
            before = len(receiver.requests)
            await schedule(sql, 1, 0.01, actions, after_s=0.01)
            await asyncio.sleep(1)
            return len(receiver.requests) > before

        await eventually(is_woken, seconds=10)
        await nats.kill()
        nats.wipe()
        assert not await is_woken()
        await nats.start()
        await eventually(is_woken, seconds=10)
        client = await nats_client.connect(nats.url)
        await client.jetstream().delete_stream("MINOOTS_EVENTS")
        await client.close()
        await eventually(is_woken, seconds=20)
        total = await count(sql, "true")
        await eventually(lambda: all_settled(sql, total))
        await eventually(lambda: is_outbox_empty(sql))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            StreamConfig(name="MINOOTS_EVENTS", subjects=[f"{SUBJECT}.>"], retention=RetentionPolicy.WORK_QUEUE),
            "its retention is workqueue and must be limits",
        ),
        (StreamConfig(name="MINOOTS_EVENTS", subjects=["other.>"]), f"its subjects is other.> and must be {SUBJECT}.>"),
        (
            StreamConfig(name="THEIRS", subjects=[f"{SUBJECT}.>"]),
            f"NATS refuses the stream MINOOTS_EVENTS on {SUBJECT}.>",
        ),
    ],
    ids=["retention", "subjects", "other-name"],
)
async def test_a_stream_that_does_not_fit_ends_the_relay_with_a_sentence(
    config: StreamConfig, sentence: str, database_url: str, nats: EmbeddedNats
) -> None:
    client = await nats_client.connect(nats.url)
    await client.jetstream().add_stream(config)
    await client.close()
    async with RoleProcess(["relay"], {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}) as relay:
        assert await relay.wait(15) == 2
        await relay.kill()
        said = "\n".join(relay.lines)
    assert sentence in said
    assert "Traceback" not in said
