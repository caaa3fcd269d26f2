"""The composition root: puts the parts of a process together and runs them; may import everything."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from minoots.access.ack_tokens import AckTokens
from minoots.access.keyring import Keyring, load_keyring
from minoots.access.keys import Keys, load_keys
from minoots.broker.jetstream import Broker
from minoots.broker.workflow import WorkflowStream
from minoots.clock import Clock, SystemClock
from minoots.domain.abilities import Abilities
from minoots.domain.command import Commands
from minoots.domain.target import Targets, read_networks
from minoots.errors import ConfigError
from minoots.kernel.firing import Kernel
from minoots.kernel.planning import Planner
from minoots.kernel.prune import EndedPruner, Pruner
from minoots.orchestrator.acknowledging import AckOffers
from minoots.orchestrator.actions import ActionRunner, Refusing
from minoots.orchestrator.actions.adapters.built_in import built_in
from minoots.orchestrator.actions.adapters.bus import Bus
from minoots.orchestrator.actions.agent import AgentRunner
from minoots.orchestrator.actions.command import CommandRunner
from minoots.orchestrator.actions.webhook import WebhookRunner, runners
from minoots.orchestrator.actions.workflow import WorkflowRunner
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.extensions import Extensions, Tools, load_extensions
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.lanes import Lanes
from minoots.orchestrator.messages import Messages
from minoots.orchestrator.overdue import Overdue
from minoots.orchestrator.signing import Signer
from minoots.relay.relay import Relay
from minoots.runtime.child import settle_in
from minoots.runtime.demo import Demo
from minoots.runtime.files import connections_possible
from minoots.runtime.loop import Loop
from minoots.runtime.node import Heartbeat, node_name
from minoots.service.abilities import abilities_of, load_commands
from minoots.service.acks import Acknowledgements
from minoots.service.changes import TimerChanges
from minoots.service.dead_letters import DeadLetters
from minoots.service.following import Following
from minoots.service.lanes import LaneLimits
from minoots.service.readiness import Readiness
from minoots.service.secrets import SigningSecrets
from minoots.service.timers import Timers
from minoots.settings import Settings
from minoots.store import installation
from minoots.store.database import Database

if TYPE_CHECKING:
    from minoots.rest.app import Routes
    from minoots.rpc.servicer import Verbs

log = structlog.get_logger("minoots")

ROLES = ("api", "grpc", "kernel", "relay", "orchestrator")
DRAIN_S = 10.0


@dataclass(slots=True)
class Process:
    """What the roles of one process share. `running` are its loops and servers, each until `stop` is set."""

    settings: Settings
    database: Database
    broker: Broker | None
    commands: Commands | None
    extensions: Extensions
    abilities: Abilities
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
    commands = load_commands(settings.commands.path) if {"api", "grpc", "orchestrator"} & set(roles) else None
    extensions = load_extensions() if {"api", "grpc", "orchestrator"} & set(roles) else Extensions()
    abilities = abilities_of(settings, commands, extensions.brought())
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(settings.store))
        readiness = Readiness(database, settings.env)
        if not await _unless_stopped(readiness.wait(), stop):
            return
        broker = await _open_broker(settings, roles, database, stack)
        process = Process(
            settings, database, broker, commands, extensions, abilities, SystemClock(), node_name(), stop, stack
        )
        if "relay" in roles:
            _add_relay(process, wake_from_kernel="kernel" in roles)
        elif "kernel" in roles:
            _add_kernel(process, on_fired=lambda: None)
        if "orchestrator" in roles:
            await _add_orchestrator(process)
        if doors := {"api", "grpc"} & set(roles):
            following = _add_following(process)
            if "api" in doors:
                _add_rest(process, readiness, following)
            if "grpc" in doors:
                _add_grpc(process, following)
        process.loop("heartbeat", Heartbeat(database, process.clock, process.node, roles, list(process.loops)).tick)
        log.info("started", node=process.node)
        await _run_all(process.running)
    log.info("stopped")


def _add_following(process: Process) -> Following:
    following = Following(process.database, process.broker)
    following.waits.on_news = process.loop("waits", following.waits.tick, deadline_s=15).wake
    process.running.append(following.end_at(process.stop))
    process.stack.push_async_callback(following.close)
    return following


def _add_rest(process: Process, readiness: Readiness, following: Following) -> None:
    # Imported where it is served: the other roles start faster and smaller without it.
    from minoots.rest.app import create_app
    from minoots.rest.server import serve_rest

    doors = process.settings.doors
    timers = Timers(process.database, process.abilities)
    changes = TimerChanges(process.database, process.abilities)
    keys = _keys(process.settings)
    if process.settings.secrets_key is None:
        log.warning("secrets.open_key", note="without MINOOTS_SECRETS_KEY the key that wraps secrets is no secret")
    further = further_routes(process.database, _keyring(process.settings), keys, following)
    app = create_app(timers, changes, keys, readiness, doors.public_url, further=further)
    process.running.append(serve_rest(app, doors.rest, process.stop))


def _add_grpc(process: Process, following: Following) -> None:
    from minoots.rpc.server import serve_grpc

    timers = Timers(process.database, process.abilities)
    changes = TimerChanges(process.database, process.abilities)
    address = process.settings.doors.grpc
    further = further_verbs(process.database, _keyring(process.settings), following)
    keys = _keys(process.settings)
    door = serve_grpc(timers, changes, keys, following.tail, address, process.stop, further=further)
    process.running.append(door)


def further_routes(
    database: Database, keyring: Keyring, keys: Keys, following: Following | None = None
) -> "list[Routes]":
    """What REST serves beyond timers; without `following` there are no events."""
    from minoots.rest.acks import AckRoutes
    from minoots.rest.dead_letters import DeadLetterRoutes
    from minoots.rest.events import EventRoutes
    from minoots.rest.lanes import LaneRoutes
    from minoots.rest.secrets import SecretRoutes

    return [
        SecretRoutes(SigningSecrets(database, keyring), keys),
        DeadLetterRoutes(DeadLetters(database), keys),
        AckRoutes(Acknowledgements(database), AckTokens(keyring), keys),
        LaneRoutes(LaneLimits(database), keys),
        EventRoutes(following or Following(database, None), keys),
    ]


def further_verbs(database: Database, keyring: Keyring, following: Following | None = None) -> "list[Verbs]":
    """What gRPC serves beyond timers, but for the stream of events."""
    from minoots.rpc.acks import AckVerbs
    from minoots.rpc.dead_letters import DeadLetterVerbs
    from minoots.rpc.events import WaitVerbs
    from minoots.rpc.lanes import LaneVerbs
    from minoots.rpc.secrets import SecretVerbs

    return [
        SecretVerbs(SigningSecrets(database, keyring)),
        DeadLetterVerbs(DeadLetters(database)),
        AckVerbs(Acknowledgements(database), AckTokens(keyring)),
        LaneVerbs(LaneLimits(database)),
        WaitVerbs((following or Following(database, None)).waits),
    ]


def _keyring(settings: Settings) -> Keyring:
    return load_keyring(settings.env, settings.secrets_key)


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
    if not {"relay", "orchestrator", "api", "grpc"} & set(roles):
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


def action_runners(
    settings: Settings,
    webhooks: WebhookRunner,
    commands: Commands | None,
    extensions: Extensions,
    abilities: Abilities,
    broker: Broker | None,
    operators: WebhookRunner | None = None,
) -> dict[str, ActionRunner]:
    """One runner an action kind; for a kind that is not run, one that says why.

    `operators` sends to the operator's own endpoint; None: `webhooks` does.
    """
    made: dict[str, ActionRunner] = {kind: Refusing(why) for kind, why in abilities.missing.items()}
    made |= runners(webhooks)
    stream = None if broker is None else WorkflowStream(broker, settings.workflow)
    made["workflow_event"] = WorkflowRunner(webhooks, stream, settings.workflow.endpoint, operators)
    if commands is not None:
        made["command"] = CommandRunner(commands, lambda: settle_in(None, signal.SIGKILL), settings.commands.at_once)
    tools = Tools(webhooks)
    bus = None if broker is None else Bus(WorkflowStream(broker, settings.agents))
    made["agent_prompt"] = AgentRunner(built_in(webhooks, bus) | extensions.make_adapters(tools))
    return made | extensions.make_kinds(tools)


async def open_operators(
    settings: Settings, connections: int, signer: Signer | None, stack: contextlib.AsyncExitStack
) -> WebhookRunner | None:
    """What sends to the operator's endpoint, wherever that is: he chose it, and tenants cannot. None without one."""
    if settings.workflow.endpoint is None:
        return None
    everywhere = Targets.of(read_networks("0.0.0.0/0, ::/0"))
    return await stack.enter_async_context(WebhookRunner(connections, everywhere, signer=signer))


def _affordable(capacity: int) -> int:
    """As many as were asked for, or as there can be connections for: twice so many are under way."""
    most = connections_possible() // 2
    if capacity > most:
        log.warning("orchestrator.few_files", capacity=most, note="raise the limit of open files (ulimit -n)")
    return min(capacity, most)


async def _add_orchestrator(process: Process) -> None:
    work = process.settings.work
    capacity = Capacity(_affordable(work.capacity), work.lane_capacity)
    signer = Signer(process.database, _keyring(process.settings))
    webhooks = await process.stack.enter_async_context(
        WebhookRunner(capacity.places, process.settings.targets, signer=signer)
    )
    operators = await open_operators(process.settings, capacity.places, signer, process.stack)
    lanes = Lanes(capacity, random.Random())  # noqa: S311 - whose turn it is is no secret
    intake = Intake(process.database, process.node, work.lease_margin_ms, lanes)
    orchestrator = Orchestrator(
        process.database,
        intake,
        action_runners(
            process.settings,
            webhooks,
            process.commands,
            process.extensions,
            process.abilities,
            process.broker,
            operators,
        ),
        capacity,
        random.Random(),  # noqa: S311 - jitter is no secret
        lambda: due.wake(),  # the loop is made below
        AckOffers(process.settings.doors.public_url, AckTokens(_keyring(process.settings))).offer,
    )
    due = process.loop("deliveries", orchestrator.tick)
    process.loop("leases", orchestrator.renew)
    process.loop("lanes", intake.prune)
    process.loop("overdue", Overdue(process.database, random.Random()).tick)  # noqa: S311 - jitter is no secret
    if process.broker is not None:
        process.loop("messages", Messages(process.broker, orchestrator, lanes).tick)
    if process.settings.boot_demo:
        process.running.append(Demo(Timers(process.database)).run(process.stop))
    recording = asyncio.create_task(orchestrator.recorder.run(), name="recorder")

    async def drain() -> None:
        await process.stop.wait()
        await orchestrator.drain(DRAIN_S)
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)

    process.running.append(drain())
