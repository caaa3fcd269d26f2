"""The servers that are measured on: those that were given, else embedded ones; and a schema for each pass."""

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import nats
import nats.errors
import psutil
from nats.js.errors import NotFoundError

from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.place import SHELTER, Place
from minoots.embedded.postgres import EmbeddedPostgres
from minoots.settings import Settings
from minoots.store.database import in_schema
from minoots.store.migrate import upgrade

API_KEY = "mnt_minoots_bench"
# What would lead a measured process elsewhere than to the schema that was made for it.
_NOT_TOLD = frozenset({"NATS_SUBJECT", "DATABASE_URL", "API_KEYS_PATH", "MINOOTS_ENV", "MINOOTS_BOOT_DEMO"})


@dataclass(frozen=True, slots=True)
class Servers:
    """`postgres_pid` and `nats_pid` are None where the server is not on this machine. `kind` is given or embedded."""

    url: str
    nats_url: str
    kind: str
    folder: Path
    postgres_pid: int | None
    nats_pid: int | None


@dataclass(frozen=True, slots=True)
class Installation:
    """One migrated schema on the servers; `environ` is what its role processes are told."""

    servers: Servers
    settings: Settings
    environ: Mapping[str, str]

    @property
    def schema(self) -> str:
        return self.settings.store.schema

    def sql(self, statement: str) -> str:
        """Statements are written for `minoots`."""
        return in_schema(statement, self.schema)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
        """A plain connection, for loading and for looking."""
        connection = await asyncpg.connect(self.servers.url, ssl=None)
        try:
            yield connection
        finally:
            await connection.close(timeout=10)


@contextlib.asynccontextmanager
async def open_servers(
    environ: Mapping[str, str], postgres_settings: Mapping[str, str], keep: bool
) -> AsyncIterator[Servers]:
    """Given servers are used as they are; the embedded ones live in a temporary folder, with fsync on."""
    given = Settings.from_env(environ)
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(_temporary_folder(keep))
        postgres = broker = None
        if not given.store.url or not given.broker.url:
            place = stack.enter_context(Place.prepare(folder / "servers"))
            if not keep:
                stack.callback(_clear, place)
            if not given.store.url:
                postgres = await stack.enter_async_context(EmbeddedPostgres(place, settings=postgres_settings))
            if not given.broker.url:
                broker = await stack.enter_async_context(EmbeddedNats(place))
        url = given.store.url or (postgres.url if postgres else "")
        nats_url = given.broker.url or (broker.url if broker else "")
        yield Servers(
            url,
            nats_url,
            "embedded" if postgres else "given",
            folder,
            postgres.pid if postgres else await _postmaster(url),
            broker.pid if broker else _listener(nats_url, "nats-server"),
        )


@contextlib.asynccontextmanager
async def installation(servers: Servers, environ: Mapping[str, str], keep: bool) -> AsyncIterator[Installation]:
    """A new schema made by the migrations; it and its stream go at the end unless they are kept."""
    schema = f"bench_{secrets.token_hex(4)}"
    told = {
        **{name: value for name, value in environ.items() if name not in _NOT_TOLD},
        # One key that no quota holds back, and that may use any tenant.
        "API_KEYS_JSON": json.dumps([{"key": API_KEY, "userId": "bench", "tier": "unlimited"}]),
        "MINOOTS_DATABASE_URL": servers.url,
        "NATS_URL": servers.nats_url,
        "MINOOTS_SCHEMA": schema,
        "MINOOTS_LOG_FORMAT": "json",
    }
    made = Installation(servers, Settings.from_env(told), told)
    await upgrade(servers.url, schema)
    try:
        yield made
    finally:
        if not keep:
            await _drop(made)


async def _drop(made: Installation) -> None:
    async with made.connection() as connection:
        await connection.execute(f'drop schema "{made.schema}" cascade')
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        client = await nats.connect(made.servers.nats_url, allow_reconnect=False, connect_timeout=2)
        try:
            with contextlib.suppress(NotFoundError):
                await client.jetstream().delete_stream(made.settings.broker.stream)
        finally:
            await client.close()


@contextlib.contextmanager
def _temporary_folder(keep: bool) -> Iterator[Path]:
    """A folder that an unprivileged server can enter."""
    folder = Path(tempfile.mkdtemp(prefix="minoots-bench-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(place: Place) -> None:
    """What root had to put where its servers' user can reach it."""
    for path in (place.home, place.binaries.bin):
        if SHELTER in path.parents:
            shutil.rmtree(SHELTER / path.relative_to(SHELTER).parts[0], ignore_errors=True)


async def _postmaster(url: str) -> int | None:
    """The given Postgres' first process, when it runs on this machine."""
    connection = await asyncpg.connect(url)
    try:
        backend = psutil.Process(connection.get_server_pid())
        # The same number may be somebody else's here: a backend is a child of a process of the same program.
        parent = backend.parent()
        if is_local(url) and "postgres" in backend.name() and parent is not None and "postgres" in parent.name():
            return parent.pid
    except psutil.Error:
        return None
    finally:
        await connection.close()
    return None


def _listener(url: str, program: str) -> int | None:
    """The process of that name that listens at the URL's port, when it is on this machine."""
    if not is_local(url):
        return None
    port = urlsplit(url).port or 4222
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.Error):
            if process.info["name"] == program and any(
                c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in process.net_connections("tcp")
            ):
                return process.pid
    return None


def is_local(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url.split(",")[0]).hostname or "localhost"
    return host in ("localhost", "::1", os.uname().nodename) or host.startswith("127.")
