"""`minoots up`: everything on this machine, in the foreground, until Ctrl-C."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
import structlog
import typer

from minoots.access.keyring import load_keyring
from minoots.cli.banner import Endpoints, show_banner
from minoots.cli.serve import PROCESSES, role_children
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.place import Place
from minoots.embedded.ports import refusal
from minoots.embedded.postgres import EmbeddedPostgres
from minoots.errors import ConfigError
from minoots.runtime.supervise import StopSignals, Supervisor, stop_signals
from minoots.service.abilities import load_commands
from minoots.settings import Address, Settings
from minoots.store.migrate import upgrade
from minoots.telemetry.logging import configure_logging

log = structlog.get_logger(__name__)

_READY_SECONDS: Final = 20.0


def up(data_dir: Path) -> None:
    """Run everything on this machine; ends with status 0 after Ctrl-C or SIGTERM."""
    raise typer.Exit(asyncio.run(_run(os.environ, data_dir)))


async def _run(environ: Mapping[str, str], data_dir: Path) -> int:
    """The exit code: 0 after a signal, else that of a role that says it is not set up right."""
    settings = Settings.from_env(environ)
    configure_logging(settings.log, "up")
    load_commands(settings.commands.path)  # a mistake in it is said before anything is started
    ports = {name: _port(environ, name) for name in ("MINOOTS_POSTGRES_PORT", "MINOOTS_NATS_PORT")}
    _check_door("MINOOTS_API_ADDRESS", settings.doors.rest)
    _check_door("KERNEL_GRPC_ADDRESS", settings.doors.grpc)
    if settings.secrets_key or _has_servers(settings):
        load_keyring(settings.env, settings.secrets_key)
    with stop_signals() as signals:
        async with contextlib.AsyncExitStack() as stack:
            # Left in the opposite order: the roles drain first, then NATS ends, then Postgres.
            place = None if _has_servers(settings) else stack.enter_context(Place.prepare(data_dir))
            postgres, broker = await _start_servers(stack, settings, place, ports, signals)
            database_url = settings.store.url or (postgres.url if postgres else "")
            broker_url = settings.broker.url or (broker.url if broker else "")
            if signals.stop.is_set():
                return 0
            await upgrade(database_url, settings.store.schema)
            endpoints = Endpoints(
                rest=f"http://{_reached_at(settings.doors.rest)}",
                grpc=str(_reached_at(settings.doors.grpc)),
                postgres=postgres.psql if postgres else "as MINOOTS_DATABASE_URL says",
                nats=broker.url if broker else "as NATS_URL says",
                key=None if settings.doors.keys_path or settings.doors.keys_json else settings.client.key,
                data_dir=data_dir if postgres or broker else None,
            )
            env = {**environ, "MINOOTS_DATABASE_URL": database_url, "NATS_URL": broker_url}
            if settings.secrets_key is None and place is not None:
                env["MINOOTS_SECRETS_KEY"] = place.secrets_key()
            return await _supervise(env, endpoints, [server for server in (broker, postgres) if server], signals)


def _has_servers(settings: Settings) -> bool:
    """Whether we are given all the servers, and so have nothing of our own to keep."""
    return bool(settings.store.url and settings.broker.url)


async def _start_servers(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    place: Place | None,
    ports: Mapping[str, int | None],
    signals: StopSignals,
) -> tuple[EmbeddedPostgres | None, EmbeddedNats | None]:
    """The servers that nobody has given us; a server that was not needed, or came after a signal, is None."""
    if place is None:
        return None, None
    postgres, broker = None, None
    if not settings.store.url:
        postgres = await stack.enter_async_context(EmbeddedPostgres(place, ports["MINOOTS_POSTGRES_PORT"]))
    if not settings.broker.url and not signals.stop.is_set():
        broker = await stack.enter_async_context(EmbeddedNats(place, ports["MINOOTS_NATS_PORT"]))
    return postgres, broker


async def _supervise(
    env: Mapping[str, str], endpoints: Endpoints, servers: list[EmbeddedPostgres | EmbeddedNats], signals: StopSignals
) -> int:
    """Run the roles until a signal, or until a server of ours cannot be brought back."""
    children = role_children(PROCESSES, env)
    supervising = asyncio.create_task(Supervisor(children).run(signals.stop, signals.hurry))
    mending = [asyncio.create_task(_mend(server)) for server in servers]
    announcing = asyncio.create_task(_announce(endpoints))
    try:
        await asyncio.wait([supervising, *mending], return_when=asyncio.FIRST_COMPLETED)
        signals.stop.set()
        code = await supervising
        for mender in mending:
            if mender.done():
                mender.result()
        return code
    finally:
        for task in (announcing, supervising, *mending):
            task.cancel()
        await asyncio.gather(announcing, supervising, *mending, return_exceptions=True)


async def _mend(server: EmbeddedPostgres | EmbeddedNats) -> None:
    """Start a server of ours again when it dies; raises EmbeddedError when that does not help."""
    while True:
        failure = await server.ended()
        log.warning("embedded_server_died", reason=failure.detail)
        await asyncio.sleep(0.5)
        await server.start()


async def _announce(endpoints: Endpoints) -> None:
    """Print the banner as soon as REST is ready; say once when that takes long."""
    started, is_late = time.monotonic(), False
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as client:
        while not await _is_ready(client, endpoints.rest):
            if not is_late and time.monotonic() - started > _READY_SECONDS:
                is_late = True
                typer.echo(f"minoots: not ready after {_READY_SECONDS:.0f} s; the lines above say why", err=True)
            await asyncio.sleep(0.05)
    show_banner(endpoints)


async def _is_ready(client: aiohttp.ClientSession, rest: str) -> bool:
    try:
        async with client.get(f"{rest}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _check_door(setting: str, address: Address) -> None:
    error = refusal(address.host, address.port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise ConfigError(f"port {address.port} is in use; stop what uses it, or set {setting} to another address")
    raise ConfigError(f"{setting}={address} cannot be listened on ({error.strerror or error}); set another address")


def _reached_at(address: Address) -> Address:
    """Where a client on this machine finds a server that listens on all addresses."""
    return Address("127.0.0.1", address.port) if address.host in {"0.0.0.0", "::"} else address


def _port(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ConfigError(f"{name}={text!r} is no port; give a number from 1 to 65535")
    return int(text)
