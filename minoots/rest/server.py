"""Serves the application with granian in the running event loop, until told to stop."""

import asyncio
import socket
from typing import Any

import structlog
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server
from litestar.types import ASGIApp, Receive, Scope, Send

from minoots.errors import ConfigError
from minoots.settings import Address

log = structlog.get_logger("minoots.rest")

BACKLOG = 1024
# Connections at once; more wait in the backlog.
CONNECTIONS = 8192
# What the server holds for one connection, of a request's head or of an answer that is not read; the operating system
# holds twice SEND_BYTES more. Without them it is 0.4 and 2.5 MiB, and there are thousands of streams.
BUFFER_BYTES = 64 * 1024
SEND_BYTES = 128 * 1024
# For a request's head, and for a connection on which nothing is asked.
HEAD_MS = 30_000
# For the answers under way when the stop comes, and then for what was cut off.
DRAIN_SECONDS = 5.0
_CUT_SECONDS = 1.0


class _Server(Server):
    """Granian on a socket of ours: its own has SO_REUSEPORT, so two servers would share a port without a word."""

    def __init__(self, target: ASGIApp, listener: SocketHolder) -> None:
        super().__init__(
            target,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=HEAD_MS, max_buffer_size=BUFFER_BYTES),
            websockets=False,
            backlog=BACKLOG,
            backpressure=CONNECTIONS,
            log_access=False,
            log_level=LogLevels.error,
            # Incremental: granian sets its own loggers' levels and leaves the process's handlers alone.
            log_dictconfig={"incremental": True, "handlers": {}, "loggers": {}},
        )
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._ssp = None
        self._shd = self._listener  # type: ignore[assignment]


class _InFlight:
    """The application with a list of the requests it is working on."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner
        self.running: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = asyncio.current_task()
        assert running is not None, "granian runs each request as a task"
        self.running.add(running)
        try:
            await self._inner(scope, receive, send)
        finally:
            self.running.discard(running)


async def serve_rest(app: ASGIApp, address: Address, stop: asyncio.Event) -> None:
    """Bind, serve until `stop`, let the answers under way end (5 s); ConfigError when the address cannot be had."""
    listener = await _listen(address)
    in_flight = _InFlight(app)
    server = _Server(in_flight, listener)
    serving = asyncio.create_task(server.serve(), name="rest")
    stopping = asyncio.create_task(stop.wait())
    log.info("rest.listening", address=str(address))
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.stop()  # type: ignore[no-untyped-call]
        await _drain(serving, in_flight)
    if serving.done():
        serving.result()


async def _drain(serving: asyncio.Task[None], in_flight: _InFlight) -> None:
    """Requests that do not end in time are cut off. A connection with half a head ends by its own deadline."""
    done, _ = await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
    if done:
        return
    for running in list(in_flight.running):
        running.cancel()
    await asyncio.wait({serving}, timeout=_CUT_SECONDS)


async def _listen(address: Address) -> SocketHolder:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        # Of the two addresses of localhost the one that everybody tries.
        family, kind, protocol, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            listener.bind(place)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            return SocketHolder(listener.detach(), False, BACKLOG)  # type: ignore[call-arg]
    except OSError as taken:
        raise ConfigError(
            f"REST cannot listen at {address}: {(taken.strerror or str(taken)).lower()}; "
            "free it, or set MINOOTS_API_ADDRESS to another"
        ) from None
