"""Every step of design.md's table of states, through each door that can cause it; kernel and orchestrator run here.

What an acknowledgement does has a file of its own.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from minoots.clock import SystemClock
from minoots.kernel.firing import Kernel
from minoots.kernel.planning import Planner
from minoots.store.database import Database
from tests.contract.door import Door
from tests.support.orchestrating import orchestrating
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, webhook
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = {"backoffInitialMs": 10, "backoffMaxMs": 20}


class World:
    """One tenant's timers behind one door, and what the loops would do, done at a word."""

    def __init__(self, door: Door, tenant: str, store: Database, plain: Sql) -> None:
        self.door, self.tenant, self._db, self.plain = door, tenant, store, plain

    async def make(self, **fields: Any) -> str:
        """A timer that is due, unless it says when."""
        when = {} if {"duration", "every", "schedule"} & fields.keys() else {"fireAt": _ago(1)}
        made = await self.door.create(self.tenant, {"requestedBy": "ann"} | when | fields)
        assert made["status"] == "scheduled"
        return str(made["id"])

    async def tick(self) -> None:
        """Kernel and planner, until nothing is left to do at this instant; deliveries need no message."""
        planner = Planner(self._db)
        kernel = Kernel(self._db, SystemClock(), 500, on_recurring=planner.ask)
        while True:
            scanned, planned = await kernel.scan_once(), await planner.run_once()
            if not (scanned.claimed or planned.moved or planned.ended or planned.failed):
                break
        await self.plain.execute(
            "update minoots.deliveries set next_attempt_at = minoots.now() "
            "where tenant_id = $1 and leased_at is null and next_attempt_at is not null",
            self.tenant,
        )

    async def status(self, timer_id: str) -> str:
        return str((await self.door.get(self.tenant, timer_id))["status"])

    async def firing(self, timer_id: str, occurrence: int = 1) -> dict[str, Any]:
        return await self.door.firing(self.tenant, timer_id, occurrence)

    async def states(self, timer_id: str, occurrence: int = 1) -> tuple[str, str, list[str]]:
        """Of the timer, of its firing, and of its deliveries in the bundle's order."""
        firing = await self.firing(timer_id, occurrence)
        return await self.status(timer_id), firing["status"], [d["status"] for d in firing["deliveries"]]

    async def become(self, timer_id: str, *states: Any, occurrence: int = 1) -> None:
        """Wait until timer, firing and deliveries are in these states."""

        async def are_so() -> bool:
            seen = await self.states(timer_id, occurrence)
            return seen == states

        try:
            await eventually(are_so, seconds=30)
        except AssertionError:
            assert await self.states(timer_id, occurrence) == states

    async def kinds(self, timer_id: str) -> list[str]:
        """The events of the timer in their order."""
        rows = await self.plain.fetch("select kind from minoots.outbox where timer_id = $1 order by id", timer_id)
        return [row["kind"] for row in rows]


@pytest.fixture
def world(door: Door, tenant: str, store: Database, plain: Sql) -> World:
    """Through each door in turn."""
    return World(door, tenant, store, plain)


@pytest.fixture(params=["rest", "grpc"])
def wire_world(
    request: pytest.FixtureRequest, doors: dict[str, Door], tenant: str, store: Database, plain: Sql
) -> World:
    """Through the doors that redrive."""
    return World(doors[request.param], tenant, store, plain)


class Other(Receiver):
    """A receiver whose answers to each path a test sets; 200 for the rest."""

    def __init__(self) -> None:
        super().__init__(self._say)
        self.says: dict[str, int] = {}

    async def _say(self, request: web.Request, _: int) -> web.StreamResponse:
        return web.Response(status=self.says.get(request.path, 200))


@contextlib.asynccontextmanager
async def delivering(store: Database) -> AsyncIterator[Other]:
    """A receiver, and an orchestrator at work."""
    async with Other() as receiver, orchestrating(store):
        yield receiver


def _ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


# ---- timer: scheduled, paused, cancelled ----


async def test_scheduled_and_paused_and_back(world: World) -> None:
    timer = await world.make(duration=3_600_000)
    assert (await world.door.pause(world.tenant, timer))["status"] == "paused"
    assert (await world.door.resume(world.tenant, timer))["status"] == "scheduled"
    assert await world.kinds(timer) == ["timer.scheduled", "timer.paused", "timer.resumed"]


async def test_a_paused_timer_does_not_fire(world: World) -> None:
    timer = await world.make(fireAt=(datetime.now(UTC) + timedelta(seconds=30)).isoformat())
    await world.door.pause(world.tenant, timer)
    await world.plain.execute(
        "update minoots.timers set created_at = created_at - interval '1 h', fire_at = fire_at - interval '1 min' "
        "where id = $1",
        timer,
    )
    await world.tick()
    assert await world.status(timer) == "paused"
    await world.door.resume(world.tenant, timer)
    await world.tick()
    assert await world.status(timer) == "fired"


@pytest.mark.parametrize("state", ["scheduled", "paused"])
async def test_what_waits_is_cancelled(state: str, world: World) -> None:
    timer = await world.make(duration=3_600_000)
    if state == "paused":
        await world.door.pause(world.tenant, timer)
    assert (await world.door.cancel(world.tenant, timer, "bob"))["status"] == "cancelled"
    await world.tick()
    assert await world.status(timer) == "cancelled"


async def test_open_firings_of_a_cancelled_recurring_timer_go_on(world: World, store: Database) -> None:
    async with delivering(store) as receiver:
        timer = await world.make(every="1h", actionBundle=bundle(webhook(receiver.url("/call"))))
        await world.plain.execute("select minoots.fire_timer($1, $2)", world.tenant, timer)
        # What the planner fires, the cancel finds open.
        planner = Planner(store)
        await planner.run_once()
        assert (await world.firing(timer))["status"] == "dispatching"
        await world.door.cancel(world.tenant, timer, "bob")
        await world.tick()
        await world.become(timer, "cancelled", "settled", ["delivered"])


# ---- timer: fired, settled, failed ----


async def test_without_actions_it_ends_as_fired_and_its_firing_settled(world: World) -> None:
    timer = await world.make()
    await world.tick()
    assert await world.states(timer) == ("fired", "settled", [])
    assert await world.kinds(timer) in (["timer.scheduled", "timer.fired"], ["timer.fired"])


async def test_a_request_fires_it(world: World) -> None:
    timer = await world.make(duration=3_600_000, actionBundle=bundle(webhook("http://127.0.0.1:9/")))
    await world.door.fire(world.tenant, timer)
    # SQL only makes it due; the others have fired it when they answer.
    if world.door.name == "sql":
        await world.tick()
    assert await world.states(timer) == ("fired", "dispatching", ["pending"])


async def test_it_settles_with_its_firing(world: World, store: Database) -> None:
    async with delivering(store) as receiver:
        timer = await world.make(actionBundle=bundle(webhook(receiver.url("/call"))))
        await world.tick()
        await world.become(timer, "settled", "settled", ["delivered"])
    assert (await world.kinds(timer))[-3:] == ["timer.fired", "delivery.delivered", "timer.settled"]


@pytest.mark.parametrize(
    ("status", "policy", "attempts", "reason"),
    [
        (500, {"maxAttempts": 2}, 2, "gave up after 2 attempts: HTTP 500"),
        (500, {"maxAgeMs": 1, "maxAttempts": 100}, 1, "gave up at the age of"),
        (410, {}, 1, "HTTP 410"),
    ],
    ids=["attempts", "time", "gone"],
)
async def test_a_delivery_dies_and_its_firing_and_timer_fail(
    status: int, policy: Mapping[str, int], attempts: int, reason: str, world: World, store: Database
) -> None:
    async with delivering(store) as receiver:
        receiver.says["/call"] = status
        timer = await world.make(actionBundle=bundle(webhook(receiver.url("/call")), **PROMPT, **policy))
        await world.tick()
        await world.become(timer, "failed", "failed", ["dead"])
    shown = await world.door.get(world.tenant, timer)
    (delivery,) = (await world.firing(timer))["deliveries"]
    assert reason in shown["failureReason"]
    assert reason in delivery["deadReason"]
    assert (delivery["attemptCount"], len(delivery["attempts"])) == (attempts, attempts)
    assert (await world.kinds(timer))[-2:] == ["delivery.dead", "timer.failed"]


async def test_one_that_is_refused_for_good_is_dead(world: World, store: Database) -> None:
    """A kind that nothing here can run, as a row of plain SQL may have it."""
    async with orchestrating(store):
        timer = await world.make(actionBundle=bundle(webhook("http://127.0.0.1:9/"), **PROMPT, maxAttempts=1))
        await world.plain.execute(
            "update minoots.timers set action_bundle = $2 where id = $1",
            timer,
            json.dumps(bundle({"id": "call", "kind": "no.such", "parameters": {}})),
        )
        await world.tick()
        await world.become(timer, "failed", "failed", ["dead"])
    (delivery,) = (await world.firing(timer))["deliveries"]
    assert [attempt["outcome"] for attempt in delivery["attempts"]] == ["rejected"]


async def test_one_dead_delivery_among_others_fails_the_firing_when_all_have_ended(
    world: World, store: Database
) -> None:
    async with delivering(store) as receiver:
        receiver.says["/bad"] = 410
        actions = [webhook(receiver.url(f"/{name}"), name) for name in ("good", "bad", "fine")]
        timer = await world.make(actionBundle=bundle(*actions))
        await world.tick()
        await world.become(timer, "failed", "failed", ["delivered", "dead", "delivered"])
    assert (await world.kinds(timer)).count("timer.failed") == 1


async def test_a_row_that_cannot_be_fired_has_failed_with_its_reason(world: World) -> None:
    timer = await world.make()
    await world.plain.execute("update minoots.timers set occurrence = 2147483647 where id = $1", timer)
    await world.tick()
    shown = await world.door.get(world.tenant, timer)
    assert shown["status"] == "failed"
    assert shown["failureReason"]
    assert await world.kinds(timer) in (["timer.scheduled", "timer.failed"], ["timer.failed"])


# ---- recurring timers ----


@pytest.mark.parametrize(("status", "end"), [(200, "settled"), (410, "failed")])
async def test_a_recurring_timer_stays_scheduled_and_ends_with_its_bounds(
    status: int, end: str, world: World, store: Database
) -> None:
    async with delivering(store) as receiver:
        receiver.says["/call"] = status
        schedule = {"specs": [{"every": "1s"}], "maxOccurrences": 2}
        timer = await world.make(schedule=schedule, actionBundle=bundle(webhook(receiver.url("/call"))))

        async def has_fired(occurrence: int) -> bool:
            await world.tick()
            return (await world.door.get(world.tenant, timer))["occurrence"] >= occurrence

        await eventually(lambda: has_fired(1), seconds=30)
        assert await world.status(timer) == "scheduled"
        await eventually(lambda: has_fired(2), seconds=30)

        async def has_ended() -> bool:
            await world.tick()
            return await world.status(timer) == end

        await eventually(has_ended, seconds=30)
    delivered = "delivered" if status == 200 else "dead"
    for occurrence in (1, 2):
        assert await world.states(timer, occurrence) == (end, end, [delivered])


# ---- redrive ----


async def test_a_redrive_opens_delivery_firing_and_timer(wire_world: World, store: Database) -> None:
    world = wire_world
    async with delivering(store) as receiver:
        receiver.says["/call"] = 410
        timer = await world.make(actionBundle=bundle(webhook(receiver.url("/call"))))
        await world.tick()
        await world.become(timer, "failed", "failed", ["dead"])
        version = (await world.door.get(world.tenant, timer))["version"]
        # It hangs until it is told: the states in between can be seen.
        released = asyncio.Event()

        async def hang(_: web.Request, __: int) -> web.StreamResponse:
            await released.wait()
            return web.Response()

        receiver.answer = hang
        asked = {"deliveries": [{"timerId": timer, "occurrence": 1, "actionId": "call"}]}
        assert await world.door.redrive(world.tenant, asked) == {"matched": 1, "redriven": 1}
        assert await world.states(timer) == ("fired", "dispatching", ["pending"])
        shown = await world.door.get(world.tenant, timer)
        assert (shown["version"], shown["failureReason"], shown["settledAt"]) == (version + 1, None, None)
        released.set()
        await world.become(timer, "settled", "settled", ["delivered"])
    assert (await world.kinds(timer))[-3:] == ["delivery.retrying", "delivery.delivered", "timer.settled"]


async def test_a_redrive_of_a_recurring_timers_firing_opens_that_alone(wire_world: World, store: Database) -> None:
    world = wire_world
    async with delivering(store) as receiver:
        receiver.says["/call"] = 410
        timer = await world.make(every="1h", actionBundle=bundle(webhook(receiver.url("/call"))))
        await world.door.fire(world.tenant, timer)
        await world.tick()
        await world.become(timer, "scheduled", "failed", ["dead"])
        receiver.says.clear()
        assert await world.door.redrive(world.tenant, {"filter": {"timerId": timer}}) == {"matched": 1, "redriven": 1}
        await world.become(timer, "scheduled", "settled", ["delivered"])


# ---- escalation ----


async def test_a_further_delivery_joins_in_beside_the_failing_one(world: World, store: Database) -> None:
    async with delivering(store) as receiver:
        receiver.says["/call"] = 500
        page = {"id": "page", "kind": "webhook", "parameters": {"url": receiver.url("/page")}}
        call = webhook(receiver.url("/call")) | {"escalation": {"afterAttempts": 1, "escalatesTo": page}}
        timer = await world.make(actionBundle=bundle(call, maxAttempts=2, **PROMPT))
        await world.tick()
        await world.become(timer, "failed", "failed", ["dead", "delivered"])
    first, second = (await world.firing(timer))["deliveries"]
    assert (first["actionId"], first["escalatedFrom"], first["attemptCount"]) == ("call", None, 2)
    assert (second["actionId"], second["escalatedFrom"], second["attemptCount"]) == ("call~1", "call", 1)
    assert (await world.kinds(timer)).count("delivery.escalated") == 1
