"""Messages wake orchestrators: fresh ones are leased at once, and late ones are left to what is due anyway."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats.errors
import pytest

from minoots.broker.jetstream import Broker
from minoots.clock import SystemClock
from minoots.domain.target import Targets
from minoots.orchestrator import lanes as lanes_module
from minoots.orchestrator.actions.webhook import WebhookRunner, runners
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.lanes import Lanes
from minoots.orchestrator.messages import CONSUMER, DUE_AFTER, Messages
from minoots.relay.relay import Relay
from minoots.settings import Settings
from minoots.store.database import Database
from tests.support.life import fire_timers
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually


@dataclass
class Parts:
    """An orchestrator whose two ways of taking work are called by the test, and a relay before it."""

    relay: Relay
    broker: Broker
    intake: Intake
    orchestrator: Orchestrator
    messages: Messages

    async def all_acknowledged(self) -> bool:
        """Whether no message is left, as NATS has heard a moment later."""
        info = await self.broker.js.consumer_info(self.broker.stream, CONSUMER)
        return not info.num_pending and not info.num_ack_pending


@contextlib.asynccontextmanager
async def parts_of(settings: Settings, database: Database) -> AsyncIterator[Parts]:
    places = Capacity(64, 64)
    lanes = Lanes(places, random.Random(1))
    intake = Intake(database, "here", 5_000, lanes)
    async with (
        Broker(settings.broker, "test") as broker,
        WebhookRunner(64, Targets.of((), loopback=True)) as webhooks,
    ):
        orchestrator = Orchestrator(database, intake, runners(webhooks), places, random.Random(1))
        messages = Messages(broker, orchestrator, lanes)
        with pytest.raises(nats.errors.TimeoutError):
            await messages.run_once()  # nothing yet, but the consumer is there
        try:
            yield Parts(Relay(database, broker, SystemClock()), broker, intake, orchestrator, messages)
        finally:
            await orchestrator.drain(0)


async def test_a_message_that_comes_late_is_left_to_what_is_due(
    settings: Settings, database: Database, sql: Sql
) -> None:
    async with Receiver() as receiver, parts_of(settings, database) as parts:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=3, events=True)
        while (await parts.relay.run_once()).read:
            pass
        await asyncio.sleep(DUE_AFTER.total_seconds())
        await parts.intake.scan()
        assert await parts.messages.run_once() == 0
        assert not await count(sql, "lease_id is not null", "deliveries"), "not one is leased by its message"
        await eventually(parts.all_acknowledged)
        assert await parts.orchestrator.take_due() == 3


async def test_a_fresh_message_is_leased_though_much_is_due(settings: Settings, database: Database, sql: Sql) -> None:
    async with Receiver() as receiver, parts_of(settings, database) as parts:
        await fire_timers(database, sql, bundle(webhook(receiver.url())), many=3, events=False)
        await parts.intake.scan()
        await sql.execute("update minoots.installation set events = true")
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url())), events=True)
        while (await parts.relay.run_once()).read:
            pass
        await parts.messages.run_once()
        assert await sql.fetch("select timer_id from minoots.deliveries where lease_id is not null") == [(timer,)]
        await eventually(parts.all_acknowledged)


async def test_a_firing_is_due_when_its_message_counts_as_late(database: Database, sql: Sql) -> None:
    """The statement that fires and the reader of messages mean the same instant."""
    await fire_timers(database, sql, bundle(webhook("http://127.0.0.1:1/")), events=True)
    after = await sql.fetchval(
        "select d.next_attempt_at - f.fired_at from minoots.deliveries d join minoots.firings f using (timer_id)"
    )
    assert after == DUE_AFTER


async def test_an_instant_has_passed_when_a_scan_has_read_so(
    database: Database, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = Lanes(Capacity(64, 64), random.Random(1))
    intake = Intake(database, "here", 5_000, lanes)
    before = await sql.fetchval("select minoots.now()")
    await intake.scan()
    assert not lanes.has_passed(before), "nothing was found that could tell"
    await fire_timers(database, sql, bundle(webhook("http://127.0.0.1:1/")))
    await intake.scan()
    after = await sql.fetchval("select minoots.now()")
    assert lanes.has_passed(before)
    assert not lanes.has_passed(after), "which that scan has not seen, and the clock may have stood still since"
    monkeypatch.setattr(lanes_module, "CLOCK_KEPT_S", 0.0)
    assert not lanes.has_passed(before), "what was read too long ago says nothing"
