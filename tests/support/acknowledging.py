"""Both doors served over a test's database, and a receiver that says how its work went, as an agent does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import grpc.aio

from minoots.access.keyring import load_keyring
from minoots.access.keys import load_keys
from minoots.embedded.ports import free_port
from minoots.rest.app import create_app
from minoots.rest.server import serve_rest
from minoots.rpc.server import serve_grpc
from minoots.service.changes import TimerChanges
from minoots.service.readiness import Readiness
from minoots.service.timers import Timers
from minoots.settings import Address
from minoots.store.database import Database
from minoots.wiring import further_routes, further_verbs
from tests.support.receiver import Received

Answered = tuple[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Doors:
    """Where REST is, and what it and gRPC are called with."""

    url: str
    http: aiohttp.ClientSession
    channel: grpc.aio.Channel

    async def post(self, url: str, body: Mapping[str, Any], **headers: str) -> Answered:
        """What a call answers; underscores of header names are dashes."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(url, json=dict(body), headers=named) as answer:
            return answer.status, await answer.json(content_type=None)

    async def ack(self, got: Received, outcome: str, **more: Any) -> Answered:
        """Say how the work of what was received went, with what came along with it."""
        return await self.post(
            got.headers["x-minoots-ack-url"],
            {"outcome": outcome} | more,
            x_minoots_ack_token=got.headers["x-minoots-ack-token"],
        )

    async def firing(self, timer_id: object, occurrence: int = 1) -> dict[str, Any]:
        """A firing with its deliveries, as anybody with a key sees it."""
        headers = {"x-api-key": "mnt_example", "x-tenant-id": "demo"}
        async with self.http.get(f"{self.url}/timers/{timer_id}/firings/{occurrence}", headers=headers) as answer:
            assert answer.status == 200
            shown: dict[str, Any] = await answer.json()
            return shown


@contextlib.asynccontextmanager
async def serving(database: Database) -> AsyncIterator[Doors]:
    """REST and gRPC with everything that they have in production."""
    rest, rpc = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
    timers, changes, stop = Timers(database), TimerChanges(database), asyncio.Event()
    keys, keyring = load_keys("development", None, None), load_keyring("development", None)
    routes, verbs = further_routes(database, keyring, keys), further_verbs(database, keyring)
    app = create_app(timers, changes, keys, Readiness(database, "development"), further=routes)
    running = [
        asyncio.create_task(serve_rest(app, rest, stop)),
        asyncio.create_task(serve_grpc(timers, changes, keys, None, rpc, stop, further=verbs)),
    ]
    async with aiohttp.ClientSession() as http, grpc.aio.insecure_channel(str(rpc)) as channel:
        async with asyncio.timeout(20):
            await channel.channel_ready()
            await until_open(rest)
        yield Doors(f"http://{rest}", http, channel)
        stop.set()
    await asyncio.gather(*running)


async def until_open(address: Address) -> None:
    """Until somebody listens there; the caller has the deadline."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(address.host, address.port)
            writer.close()
            return
        await asyncio.sleep(0.02)
