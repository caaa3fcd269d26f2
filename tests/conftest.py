"""Servers for the tests: the Postgres that MINOOTS_TEST_DATABASE_URL names, else embedded ones.

Every test has a database of its own, cloned from one that the migrations built; what kills servers has servers of its
own. Nothing is skipped because a server is missing.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
import structlog

from minoots.embedded import ports
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.place import Place
from minoots.embedded.postgres import EmbeddedPostgres
from minoots.settings import Settings
from minoots.store.database import Database
from minoots.store.migrate import upgrade

# A shell has what it starts in the background ignore Ctrl-C, and every process that a test starts would do so, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Between choosing a port and listening there somebody else may take it: workers side by side choose from parts of their
# own.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
PART = len(ports.CHOICE) // 8
ports.CHOICE = ports.CHOICE[WORKER * PART : (WORKER + 1) * PART]

# Tests start servers from processes that have gRPC's threads: its own fork handlers crash the child before it execs.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# No test may pass because the session happens to be in UTC; and durability is not what most tests are about.
FAST = {"timezone": "Asia/Kathmandu", "fsync": "off", "max_connections": "300"}
DURABLE = {"timezone": "Asia/Kathmandu", "max_connections": "300"}

# A busy machine makes no test fail for its speed.
hypothesis.settings.register_profile("minoots", deadline=None)
hypothesis.settings.load_profile("minoots")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a command in this process sets logging up; the next one finds it as it would be alone."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A place that an unprivileged server can enter, which pytest's own is not for root."""
    made = Path(tempfile.mkdtemp(prefix="minoots-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """A Postgres for the whole run, and its database that the migrations built, to be cloned."""

    url: str
    template: str

    async def clone(self) -> str:
        """The URL of a new, migrated, empty database."""
        name = f"test_{uuid4().hex[:12]}"
        await _execute(self.url, f'create database "{name}" template "{self.template}"')
        return with_database(self.url, name)

    async def drop(self, url: str) -> None:
        await _execute(self.url, f'drop database "{urlsplit(url).path[1:]}" with (force)')


@pytest.fixture(scope="session")
def database_server(folder: Path) -> Iterator[DatabaseServer]:
    with asyncio.Runner() as runner:
        given = os.environ.get("MINOOTS_TEST_DATABASE_URL")
        server = None if given else EmbeddedPostgres(Place.prepare(folder / "shared"), settings=FAST)
        if server is not None:
            runner.run(server.start())
        made = DatabaseServer(given or server.url, f"template_{uuid4().hex[:12]}")
        runner.run(_execute(made.url, f'create database "{made.template}"'))
        runner.run(upgrade(with_database(made.url, made.template), "minoots"))
        yield made
        runner.run(_execute(made.url, f'drop database "{made.template}" with (force)'))
        if server is not None:
            runner.run(server.stop())


@pytest.fixture
async def database_url(database_server: DatabaseServer) -> AsyncIterator[str]:
    """A migrated database of this test's own."""
    url = await database_server.clone()
    yield url
    await database_server.drop(url)


@pytest.fixture(scope="module")
def module_database_url(database_server: DatabaseServer) -> Iterator[str]:
    """A migrated database for the tests of one file, which keep apart by tenant."""
    url = asyncio.run(database_server.clone())
    yield url
    asyncio.run(database_server.drop(url))


@pytest.fixture
async def nats(folder: Path) -> AsyncIterator[EmbeddedNats]:
    """A NATS of this test's own, which it may kill and wipe."""
    with Place.prepare(folder / f"nats-{uuid4().hex[:8]}") as place:
        async with EmbeddedNats(place) as server:
            yield server


@pytest.fixture
async def own_postgres(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres of this test's own with fsync on, migrated, which it may kill."""
    with Place.prepare(folder / f"postgres-{uuid4().hex[:8]}") as place:
        async with EmbeddedPostgres(place, settings=DURABLE) as server:
            await upgrade(server.url, "minoots")
            yield server


@pytest.fixture
def settings(database_url: str, nats: EmbeddedNats) -> Settings:
    """Development settings over this test's database and NATS."""
    return Settings.from_env({"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url})


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The pool that the store works on."""
    async with Database(Settings.from_env({"MINOOTS_DATABASE_URL": database_url}).store) as opened:
        yield opened


@pytest.fixture
async def sql(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A plain connection: what a person with psql has."""
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
