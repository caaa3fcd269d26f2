"""The composition root: puts the parts of a process together and runs them; may import everything."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from minoots.access.keys import Keys, load_keys
from minoots.broker.jetstream import Broker
from minoots.clock import Clock, SystemClock
from minoots.errors import ConfigError
from minoots.kernel.firing import Kernel
from minoots.kernel.planning import Planner
from minoots.kernel.prune import EndedPruner, Pruner
from minoots.orchestrator.actions.webhook import WebhookRunner, runners
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.messages import Messages
from minoots.relay.relay import Relay
from minoots.runtime.demo import Demo
from minoots.runtime.loop import Loop
from minoots.runtime.node import Heartbeat, node_name
from minoots.service.changes import TimerChanges
from minoots.service.readiness import Readiness
from minoots.service.timers import Timers
from minoots.settings import Settings
from minoots.store import installation
from minoots.store.database import Database

log = structlog.get_logger("minoots")

ROLES = ("api", "grpc", "kernel", "relay", "orchestrator")
DRAIN_S = 10.0


@dataclass(slots=True)
class Process:
    """What the roles of one process share. `running` are its loops and servers, each until `stop` is set."""

    settings: Settings
    database: Database
    broker: Broker | None
    clock: Clock
    node: str
    stop: asyncio.Event
    stack: contextlib.AsyncExitStack
    running: list[Coroutine[Any, Any, None]] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)

    def loop(self, name: str, tick: Callable[[], Awaitable[float]], deadline_s: float = 60) -> Loop:
        """A loop of this process, started with the others."""
        made = Loop(name, tick, self.clock, deadline_s)
        self.running.append(made.run(self.stop))
        self.loops.append(made)
        return made


async def run_roles(settings: Settings, roles: Sequence[str], stop: asyncio.Event) -> None:
    """Run these roles in this process until `stop` is set; raises ConfigError when they cannot work as set up."""
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings.store))
        readiness = Readiness(database, settings.env)
        if not await _unless_stopped(readiness.wait(), stop):
            return
        broker = await _open_broker(settings, roles, database, stack)
        process = Process(settings, database, broker, SystemClock(), node_name(), stop, stack)
        if "relay" in roles:
            _add_relay(process, wake_from_kernel="kernel" in roles)
        elif "kernel" in roles:
            _add_kernel(process, on_fired=lambda: None)
        if "orchestrator" in roles:
            await _add_orchestrator(process)
        if "api" in roles:
            _add_rest(process, readiness)
        if "grpc" in roles:
            _add_grpc(process)
        process.loop("heartbeat", Heartbeat(database, process.clock, process.node, roles, list(process.loops)).tick)
        log.info("started", node=process.node)
        await _run_all(process.running)
    log.info("stopped")


def _add_rest(process: Process, readiness: Readiness) -> None:
    # Imported where it is served: the other roles start faster and smaller without it.
    from minoots.rest.app import create_app
    from minoots.rest.server import serve_rest

    doors = process.settings.doors
    timers, changes = Timers(process.database), TimerChanges(process.database)
    app = create_app(timers, changes, _keys(process.settings), readiness, doors.public_url)
    process.running.append(serve_rest(app, doors.rest, process.stop))


def _add_grpc(process: Process) -> None:
    from minoots.rpc.server import serve_grpc

    timers, changes = Timers(process.database), TimerChanges(process.database)
    address = process.settings.doors.grpc
    door = serve_grpc(timers, changes, _keys(process.settings), process.broker, address, process.stop)
    process.running.append(door)


def _keys(settings: Settings) -> Keys:
    return load_keys(settings.env, settings.doors.keys_path, settings.doors.keys_json)


async def _unless_stopped(waiting: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Wait for it, or for `stop`; False when that came first."""
    wanted, stopping = asyncio.ensure_future(waiting), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([wanted, stopping], return_when=asyncio.FIRST_COMPLETED)
        if wanted.done():
            wanted.result()
        return wanted.done()
    finally:
        wanted.cancel()
        stopping.cancel()


async def _run_all(running: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All of them; the first that fails ends the others and is raised by itself, not in a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in running:
                group.create_task(part)
    except* ConfigError as wrong:
        raise wrong.exceptions[0] from None


async def _open_broker(
    settings: Settings, roles: Sequence[str], database: Database, stack: contextlib.AsyncExitStack
) -> Broker | None:
    """The connection to NATS for the roles that use it. A relay without NATS while there are events cannot work."""
    if not {"relay", "orchestrator", "grpc"} & set(roles):
        return None
    if settings.broker.url is None:
        async with database.connection() as connection:
            if "relay" in roles and await installation.are_events_on(database, connection):
                raise ConfigError(
                    "set NATS_URL: events are on and a relay has nowhere to send them (or: minoots events off)"
                )
        return None
    return await stack.enter_async_context(Broker(settings.broker, "minoots " + " ".join(roles)))


def _add_relay(process: Process, *, wake_from_kernel: bool) -> None:
    """The relay, and the kernel beside it that wakes it at once."""
    kernels: list[Kernel] = []
    wake: Callable[[], None] = lambda: None  # noqa: E731 - replaced below where there is a relay
    if process.broker is not None:
        relay = Relay(process.database, process.broker, process.clock, lambda: any(k.is_behind for k in kernels))
        relaying = process.loop("relay", relay.tick, deadline_s=15)

        def wake() -> None:
            relay.expect()
            relaying.wake()

    if wake_from_kernel:
        kernels.append(_add_kernel(process, on_fired=wake))


def _add_kernel(process: Process, on_fired: Callable[[], None]) -> Kernel:
    planner = Planner(process.database, on_fired)
    planning = process.loop("planner", planner.tick)

    def plan(timer_ids: Collection[UUID]) -> None:
        planner.ask(timer_ids)
        planning.wake()

    kernel = Kernel(process.database, process.clock, process.settings.work.kernel_batch, on_fired, plan)
    process.loop("kernel", kernel.tick)
    process.loop("kernel-scan", kernel.scan)
    process.loop("prune", Pruner(process.database).tick)
    ended = EndedPruner(process.database, process.clock, process.settings.retention)
    process.loop("prune-ended", ended.tick)
    process.loop("prune-again", ended.tick_again)
    return kernel


async def _add_orchestrator(process: Process) -> None:
    work = process.settings.work
    capacity = Capacity(work.capacity)
    webhooks = await process.stack.enter_async_context(WebhookRunner(work.capacity))
    intake = Intake(process.database, process.node, work.lease_margin_ms)
    orchestrator = Orchestrator(
        process.database,
        intake,
        runners(webhooks),
        capacity,
        random.Random(),  # noqa: S311 - jitter is no secret
        lambda: due.wake(),  # the loop is made below
    )
    due = process.loop("deliveries", orchestrator.tick)
    process.loop("leases", orchestrator.renew)
    if process.broker is not None:
        process.loop("messages", Messages(process.broker, orchestrator, capacity).tick)
    if process.settings.boot_demo:
        process.running.append(Demo(Timers(process.database)).run(process.stop))
    recording = asyncio.create_task(orchestrator.recorder.run(), name="recorder")

    async def drain() -> None:
        await process.stop.wait()
        await orchestrator.drain(DRAIN_S)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)

    process.running.append(drain())
