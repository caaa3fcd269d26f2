"""Every door, served in this process over one database; tests keep apart by tenant."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import aiohttp
import asyncpg
import grpc.aio
import pytest
import pytest_asyncio

from minoots.access.keyring import load_keyring
from minoots.access.keys import load_keys
from minoots.embedded.ports import free_port
from minoots.rest.app import create_app
from minoots.rest.server import serve_rest
from minoots.rpc.server import serve_grpc
from minoots.service.changes import TimerChanges
from minoots.service.readiness import Readiness
from minoots.service.timers import Timers
from minoots.settings import Address, Settings
from minoots.store.database import Database
from minoots.wiring import further_routes, further_verbs
from tests.contract.door import Door
from tests.contract.grpc_door import GrpcDoor
from tests.contract.rest_door import RestDoor
from tests.contract.sql_door import SqlDoor
from tests.support.timers import Sql

NAMES = ("rest", "grpc", "sql")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def store(module_database_url: str) -> AsyncIterator[Database]:
    """What REST and gRPC work on."""
    async with Database(Settings.from_env({"MINOOTS_DATABASE_URL": module_database_url}).store) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(module_database_url: str) -> AsyncIterator[Sql]:
    """What a person with psql has."""
    connection = await asyncpg.connect(module_database_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(store: Database, plain: Sql) -> AsyncIterator[dict[str, Door]]:
    """All three by name."""
    rest, rpc = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port())
    timers, keys, stop = Timers(store), load_keys("development", None, None), asyncio.Event()
    keyring = load_keyring("development", None)
    routes, verbs = further_routes(store, keyring, keys), further_verbs(store, keyring)
    app = create_app(timers, TimerChanges(store), keys, Readiness(store, "development"), further=routes)
    serving = [
        asyncio.create_task(serve_rest(app, rest, stop)),
        asyncio.create_task(serve_grpc(timers, TimerChanges(store), keys, None, rpc, stop, further=verbs)),
    ]
    async with aiohttp.ClientSession() as http, grpc.aio.insecure_channel(str(rpc)) as channel:
        await _until_open(rest)
        async with asyncio.timeout(10):
            await channel.channel_ready()
        yield {"rest": RestDoor(f"http://{rest}", http), "grpc": GrpcDoor(channel), "sql": SqlDoor(plain)}
    stop.set()
    await asyncio.gather(*serving)


@pytest.fixture(params=NAMES)
def door(request: pytest.FixtureRequest, doors: dict[str, Door]) -> Door:
    """One after the other."""
    return doors[request.param]


@pytest.fixture
def tenant() -> str:
    """This test's own."""
    return f"t-{uuid4().hex[:10]}"


async def _until_open(address: Address) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(address.host, address.port)
                writer.close()
                return
            await asyncio.sleep(0.01)
