"""A Postgres of our own for `minoots up` and for tests: made, started, stopped, killed."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import asyncpg

from minoots.embedded.binaries import Binaries
from minoots.embedded.daemon import Daemon, children_of, clear_leftover, gone
from minoots.embedded.failures import disk_full, explained, port_taken
from minoots.embedded.place import Place
from minoots.embedded.ports import settle_port
from minoots.errors import EmbeddedError

_NAME: Final = "minoots"  # of the superuser and of the database
_PORT_SETTING: Final = "MINOOTS_POSTGRES_PORT"
_FAST: Final = (signal.SIGINT, 20.0)
_IMMEDIATE: Final = (signal.SIGQUIT, 5.0)
# A small server that keeps its promises. There is no Unix socket: its path would have to fit into 107 bytes.
_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    # What a checkpoint frees is written again instead of new files, which have to be filled with zeros first.
    "min_wal_size": "1GB",
    # Two batches of firings are 4 MiB of it: with as much room, or less, the second waits for the first one's disk.
    "wal_buffers": "16MB",
    "jit": "off",
    # Hot tables are cleaned by their own thresholds; looked at once a minute they would grow for that long.
    "autovacuum_naptime": "10s",
    "fsync": "on",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
}


class EmbeddedPostgres:
    """`port` None takes last time's port, or a free one; `settings` go on top of ours."""

    def __init__(self, place: Place, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._place = place
        self._asked = port
        self._port: int | None = None
        self._settings = {**_SETTINGS, **(settings or {})}
        self._home = place.folder("postgres")
        self._data = self._home / "data"
        self._daemon = Daemon(place, "Postgres", signal.SIGINT)

    @property
    def port(self) -> int:
        """Stays the same from the first start on."""
        if self._port is None:
            raise EmbeddedError("this Postgres was never started")
        return self._port

    @property
    def url(self) -> str:
        return self._url(_NAME)

    @property
    def psql(self) -> str:
        """What to type in a shell, here and now, to get to the database."""
        return f"{shlex.quote(_psql())} {self.url}"

    @property
    def pid(self) -> int | None:
        """The postmaster's; None when it does not run."""
        return self._daemon.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the cluster if there is none, and return when it takes connections."""
        await clear_leftover(self._data / "postmaster.pid", self._data, _FAST, _IMMEDIATE)
        self._check_version()
        asked = self._asked if self._port is None else self._port
        self._port = settle_port(self._place, "postgres", asked, "Postgres", _PORT_SETTING)
        if not self._data.exists():
            await self._initialise()
        try:
            await self._launch()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Fast shutdown: what is committed is on disk, clients are cut off."""
        await self._daemon.end(_FAST, _IMMEDIATE)

    async def restart_immediate(self) -> None:
        """Like a crash of the server: no checkpoint, then recovery."""
        await self._daemon.end(_IMMEDIATE)
        await self.start()

    async def kill(self) -> None:
        """SIGKILL for the postmaster and every backend, and wait until they are gone."""
        postmaster = self._daemon.pid
        if postmaster is None:
            return
        backends = children_of(postmaster)
        await self._daemon.end()
        for backend in backends:
            try:
                os.kill(backend, signal.SIGKILL)
            except ProcessLookupError:
                continue
        await gone(backends, 10.0)

    async def ended(self) -> EmbeddedError:
        """Wait until the server has ended, and say why as far as it told."""
        return await self._daemon.death()

    async def _launch(self) -> None:
        settings = {**self._settings, "port": str(self.port)}
        argv: list[str | Path] = [self._place.binaries.postgres, "-D", self._data]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + 10
        while True:
            await self._daemon.launch(argv)
            try:
                # Recovery after a crash comes before the first connection.
                return await self._daemon.until(self._takes_connections, 60)
            except EmbeddedError:
                output = self._daemon.output()
                # Backends of a killed postmaster need a moment to notice.
                if "shared memory block" not in output or time.monotonic() > deadline:
                    if "could not create any TCP/IP sockets" in output:
                        raise port_taken(self.port, "Postgres", _PORT_SETTING) from None
                    raise

    async def _takes_connections(self) -> bool:
        """Also makes the database, which a crash right after initdb may have left out."""
        try:
            connection = await asyncpg.connect(self._url("postgres"), timeout=5, ssl=False)
            if not await connection.fetchval("select exists (select from pg_database where datname = $1)", _NAME):
                await connection.execute(f"create database {_NAME}")
            await connection.close()
        except asyncpg.InvalidPasswordError:
            raise EmbeddedError(
                f"{self._place.home / 'password'} is not the password of the data in {self._data}; "
                "put the right one back, or remove both to begin anew"
            ) from None
        except asyncpg.DiskFullError:
            raise disk_full(self._place.home) from None
        except asyncpg.TooManyConnectionsError:
            return True  # clients that waited for a restart were quicker
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        return True

    async def _initialise(self) -> None:
        """initdb into a folder beside, then rename: a half-made cluster never has the real name."""
        new = self._home / "data.new"
        with explained(self._home):
            shutil.rmtree(new, ignore_errors=True)
            password = self._place.write("initdb.password", self._place.password())
            try:
                await self._run_initdb(new, password)
                new.rename(self._data)
            finally:
                password.unlink(missing_ok=True)
                shutil.rmtree(new, ignore_errors=True)

    async def _run_initdb(self, new: Path, password: Path) -> None:
        argv: list[str | Path] = [self._place.binaries.initdb, "-D", new, "-U", _NAME, "--pwfile", password]
        argv += ["--encoding=UTF8", "--no-locale", "--auth=scram-sha-256", "--no-instructions"]
        if self._settings["fsync"] == "off":
            argv.append("--no-sync")
        initdb = Daemon(self._place, "initdb", signal.SIGKILL)
        await initdb.launch(argv)
        try:
            code = await initdb.wait()
        finally:
            await initdb.end()
        if code != 0:
            raise initdb.failure()

    def _check_version(self) -> None:
        """A cluster belongs to one major version."""
        with explained(self._data):
            file = self._data / "PG_VERSION"
            if not file.exists():
                return
            theirs = file.read_text().strip()
        ours = _major(self._place.binaries.postgres)
        if theirs != ours:
            raise EmbeddedError(
                f"the data in {self._data} was made by Postgres {theirs}, and this is Postgres {ours}; dump it with "
                f"pg_dumpall of version {theirs} and load it into a new folder, or remove that folder to begin anew"
            )

    def _url(self, database: str) -> str:
        return f"postgresql://{_NAME}:{self._place.password()}@127.0.0.1:{self.port}/{database}"


def _major(program: Path | str) -> str:
    """`postgres (PostgreSQL) 18.6` is 18; empty when it does not run."""
    try:
        shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return ""
    words = shown.stdout.split(") ", 1)[-1].split(".")
    return words[0].strip() if shown.returncode == 0 else ""


def _psql() -> str:
    """The system's, which edits lines as people expect; else the wheel's, seen from here."""
    if shutil.which("psql") and _major("psql"):
        return "psql"
    return os.path.relpath(Binaries.installed().psql)
