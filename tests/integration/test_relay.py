"""The relay publishes every event, in each timer's order, whatever order transactions commit in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from nats.aio.msg import Msg

from minoots.broker.jetstream import Broker
from minoots.broker.publish import Publisher
from minoots.clock import Clock, SystemClock
from minoots.embedded.nats import EmbeddedNats
from minoots.relay import sending
from minoots.relay.relay import FORGET_EVERY_S, Relay
from minoots.settings import Settings
from minoots.store.database import Database
from tests.support.stream import kinds_by_timer, read_stream
from tests.support.timers import Sql, count, open_transaction


class Skipping(SystemClock):
    """Goes ahead by `skipped_s` when it is told to."""

    skipped_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.skipped_s


@contextlib.asynccontextmanager
async def relaying(settings: Settings, database: Database, clock: Clock | None = None) -> AsyncIterator[Relay]:
    """A relay that does a round when it is told to; its stream is there."""
    async with Broker(settings.broker, "test") as broker:
        await broker.ensure_stream()
        yield Relay(database, broker, clock or SystemClock())


async def write_event(sql: Sql, kind: str = "timer.scheduled", timer_id: UUID | None = None) -> UUID:
    """A timer of the first shard and its event, in the order in which every transition writes them."""
    if timer_id is None:
        timer_id = UUID(uuid4().hex[:30] + "00")
        await sql.execute(
            "insert into minoots.timers (id, tenant_id, fire_at) values ($1, 'demo', '2100-01-01')", timer_id
        )
    await sql.execute(
        "insert into minoots.outbox (tenant_id, timer_id, kind, data) values ('demo', $1, $2, '{}')", timer_id, kind
    )
    return timer_id


async def last_id(sql: Sql) -> int:
    return await sql.fetchval("select last_value from minoots.outbox_id_seq")


async def relay_all(relay: Relay) -> int:
    """Rounds until one finds nothing; how many events were published."""
    published = 0
    while (done := await relay.run_once()).read:
        published += done.published
    return published


async def test_an_event_that_commits_after_a_later_one_is_published(
    settings: Settings, database: Database, database_url: str, sql: Sql
) -> None:
    """Its id is the smaller one, and it is not there yet when the larger one is relayed."""
    async with relaying(settings, database) as relay:
        async with open_transaction(database_url) as slow:
            await write_event(slow)
            await write_event(sql)
            assert await relay_all(relay) == 1
        assert await relay_all(relay) == 1
    assert not await count(sql, "true", "outbox")


async def test_the_mark_waits_for_an_open_transaction_with_a_large_number_too(
    settings: Settings, database: Database, database_url: str, sql: Sql
) -> None:
    """The open one has the larger number and the smaller id, so that no ended one has a number above its own."""
    async with relaying(settings, database) as relay, open_transaction(database_url) as slow:
        async with open_transaction(database_url) as first:
            await first.fetchval("select pg_current_xact_id()")
            await write_event(slow)
            await write_event(first)
        assert await relay_all(relay) == 1
        for _ in range(4):
            await write_event(sql)
            assert await relay_all(relay) == 1
        await slow.execute("commit; begin")
        assert await relay_all(relay) == 1
    assert not await count(sql, "true", "outbox")


async def test_the_mark_follows_what_is_gone(settings: Settings, database: Database, sql: Sql) -> None:
    """So that a relay does not walk, in each round, what it has removed before vacuum did."""
    async with relaying(settings, database) as relay:
        for _ in range(3):
            await write_event(sql)
            await relay_all(relay)
        for _ in range(3):
            assert not (await relay.run_once()).read
        assert relay._progress[0].mark == await last_id(sql)


async def test_an_event_below_the_mark_waits_for_the_next_look_from_the_start(
    settings: Settings, database: Database, sql: Sql
) -> None:
    """After a fail-over, a standby's sequence can be behind what the lost primary had handed out."""
    clock = Skipping()
    async with relaying(settings, database, clock) as relay:
        for _ in range(20):
            await write_event(sql)
        await relay_all(relay)
        for _ in range(3):
            await relay.run_once()
        await sql.execute("select setval('minoots.outbox_id_seq', 3)")
        await write_event(sql)
        assert await relay_all(relay) == 0, "it lies below the mark"
        clock.skipped_s = FORGET_EVERY_S + 1
        assert await relay_all(relay) == 1


async def test_one_timers_events_stay_in_order_across_batches_and_failures(
    settings: Settings, database: Database, nats: EmbeddedNats, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third acknowledgement is lost on its way: the same event comes again, and none overtakes it."""
    async with relaying(settings, database) as relay:
        timers = [await write_event(sql, "timer.step-00") for _ in range(20)]
        for step in range(1, 12):
            for timer in timers:
                await write_event(sql, f"timer.step-{step:02}", timer)
        real, heard = Publisher._hear, 0

        async def lose_every_third(publisher: Publisher, message: Msg) -> None:
            nonlocal heard
            heard += 1
            if heard % 3:
                await real(publisher, message)

        monkeypatch.setattr(Publisher, "_hear", lose_every_third)
        monkeypatch.setattr(sending, "SILENCE_S", 0.1)
        assert await relay_all(relay) == 240
    kinds = kinds_by_timer(await read_stream(nats.url))
    assert kinds == {str(timer): [f"timer.step-{step:02}" for step in range(12)] for timer in timers}


async def test_one_round_of_the_loop_drains_all_shards_in_each_timers_order(
    settings: Settings, database: Database, nats: EmbeddedNats, sql: Sql
) -> None:
    """Two shards at a time, and as often as it takes."""
    timers = [await write_event(sql, "timer.step-00", uuid4()) for _ in range(40)]
    for step in range(1, 60):
        await sql.executemany(
            "insert into minoots.outbox (tenant_id, timer_id, kind, data) values ('demo', $1, $2, '{}')",
            [(timer, f"timer.step-{step:02}") for timer in timers],
        )
    async with relaying(settings, database) as relay:
        while not await relay.tick():
            pass
    assert not await count(sql, "true", "outbox")
    kinds = kinds_by_timer(await read_stream(nats.url))
    assert kinds == {str(timer): [f"timer.step-{step:02}" for step in range(60)] for timer in timers}


async def test_an_event_that_cannot_be_published_holds_up_its_own_timer_only(
    settings: Settings, database: Database, nats: EmbeddedNats, sql: Sql
) -> None:
    stuck = await write_event(sql, "timer.not a subject")
    await write_event(sql, "timer.step-01", stuck)
    others = [await write_event(sql, "timer.step-01") for _ in range(5)]
    async with relaying(settings, database) as relay:
        done = await relay.run_once()
    assert (done.read, done.published) == (7, 5)
    assert set(kinds_by_timer(await read_stream(nats.url))) == {str(timer) for timer in others}
    assert await count(sql, f"timer_id = '{stuck}'", "outbox") == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"{}",
        b'{"stream": "SOMEBODY_ELSES", "seq": 7}',
        b'{"stream": "%s"}',
        b'{"stream": "%s", "seq": 0}',
        b'{"stream": "%s", "seq": "7"}',
        b"[]",
        b"",
    ],
)
async def test_an_answer_that_is_no_acknowledgement_of_the_stream_leaves_the_event(
    answer: bytes, settings: Settings, database: Database, sql: Sql
) -> None:
    """Somebody who answers everything on the subject, while the stream is away."""
    await write_event(sql)
    async with relaying(settings, database) as relay:
        broker = relay._broker
        answer = answer.replace(b"%s", broker.stream.encode())
        await broker.js.delete_stream(broker.stream)

        async def say(message: Msg) -> None:
            await message.respond(answer)

        await broker.client.subscribe(f"{broker.subject}.>", cb=say)
        done = await relay.run_once()
    assert (done.read, done.published) == (1, 0)
    assert await count(sql, "true", "outbox") == 1


async def test_another_stream_on_the_subject_takes_no_event_away(
    settings: Settings, database: Database, sql: Sql
) -> None:
    await write_event(sql)
    async with relaying(settings, database) as relay:
        broker = relay._broker
        await broker.js.delete_stream(broker.stream)
        await broker.js.add_stream(name="SOMEBODY_ELSES", subjects=[f"{broker.subject}.>"])
        assert (await relay.run_once()).published == 0
        assert await count(sql, "true", "outbox") == 1
        await broker.js.delete_stream("SOMEBODY_ELSES")
        await broker.ensure_stream()
        assert (await relay.run_once()).published == 1
    assert not await count(sql, "true", "outbox")


async def test_two_relays_share_the_shards_and_publish_everything_once(
    settings: Settings, database: Database, nats: EmbeddedNats, sql: Sql
) -> None:
    await sql.execute("select minoots.schedule_timer('demo', fire_in => '1 hour') from generate_series(1, 4000)")
    async with relaying(settings, database) as one, relaying(settings, database) as other:
        shares = await asyncio.gather(share(one, database), share(other, database))
    assert sum(shares) == 4_000
    assert min(shares) > 0
    assert len(await read_stream(nats.url)) == 4_000


async def share(relay: Relay, database: Database) -> int:
    """Rounds until everything is published, by whomever; how many events this one has."""
    published = 0
    while True:
        published += (await relay.run_once()).published
        async with database.connection() as connection:
            if not await count(connection, "true", "outbox"):
                return published
