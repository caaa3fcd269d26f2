"""Serves the gRPC door until told to stop: health, reflection, limits, and an end that loses no call."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Final

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from minoots.access.keys import Keys
from minoots.broker.tail import Tail
from minoots.errors import ConfigError
from minoots.rpc.calls import Calls, Drain
from minoots.rpc.servicer import BATCH_MESSAGE_BYTES, SERVICE, HorologyKernel, Verbs
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address

log = structlog.get_logger("minoots.rpc")

# For the calls under way when the stop comes.
DRAIN_S: Final = 8.0
# For what has no end of its own: somebody who watches the health, for one.
_CUT_S = 0.2
_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Else two servers would share a port without a word.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", BATCH_MESSAGE_BYTES),
    # A page of 500 timers of 512 KiB, or a batch's answer.
    ("grpc.max_send_message_length", -1),
    # A peer that is gone without a word is noticed within a minute, and callers may look as often as every 10 s.
    ("grpc.keepalive_time_ms", 45_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    ("grpc.http2.max_ping_strikes", 4),
)


async def serve_grpc(
    timers: Timers,
    changes: TimerChanges,
    keys: Keys,
    tail: Tail | None,
    address: Address,
    stop: asyncio.Event,
    drain_s: float = DRAIN_S,
    further: Sequence[Verbs] = (),
) -> None:
    """Bind, serve until `stop`, let the calls under way end; ConfigError when the address cannot be had.

    Without a tail there are no events to stream, and the other calls work. `further` are the verbs that go beyond
    timers, as `wiring.further_verbs` has them.
    """
    async with grpc_server(timers, changes, keys, tail, address, drain_s, further):
        await stop.wait()


@contextlib.asynccontextmanager
async def grpc_server(
    timers: Timers,
    changes: TimerChanges,
    keys: Keys,
    tail: Tail | None,
    address: Address,
    drain_s: float = DRAIN_S,
    further: Sequence[Verbs] = (),
) -> AsyncIterator[None]:
    """The server, listening inside of the block and drained at its end."""
    await _try_address(address)
    drain = Drain()
    server = grpc.aio.server(options=_OPTIONS)
    handlers = HorologyKernel(timers, changes, tail, further).handlers(Calls(keys, drain))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    watched = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(watched, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(str(address))
    except RuntimeError as refused:
        raise _no_address(address, str(refused)) from None
    await watched.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    log.info("rpc.listening", address=str(address))
    try:
        yield
    finally:
        await watched.enter_graceful_shutdown()
        await _drain(server, drain, drain_s)
        log.info("rpc.stopped")


async def _drain(server: grpc.aio.Server, drain: Drain, drain_s: float) -> None:
    """No new calls; streams end at once, with where to go on; other calls have their time."""
    stopping = asyncio.create_task(server.stop(drain_s))
    drain.begin()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(drain_s):
            await drain.ended()
    await asyncio.wait({stopping}, timeout=_CUT_S)
    if not stopping.done():
        await server.stop(None)
    await stopping


async def _try_address(address: Address) -> None:
    """gRPC says of an address only that it could not be had; the operating system says why."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as taken:
        raise _no_address(address, taken.strerror or str(taken)) from None


def _no_address(address: Address, reason: str) -> ConfigError:
    return ConfigError(
        f"gRPC cannot listen at {address}: {reason.lower()}; free it, or set KERNEL_GRPC_ADDRESS to another"
    )
