"""A NATS server with JetStream of our own for `minoots up` and for tests."""

import asyncio
import contextlib
import shutil
import signal
from types import TracebackType
from typing import Final, Self

from minoots.embedded.daemon import Daemon, clear_leftover
from minoots.embedded.failures import port_taken
from minoots.embedded.place import Place
from minoots.embedded.ports import settle_port
from minoots.errors import EmbeddedError

_USER: Final = "minoots"
_PORT_SETTING: Final = "MINOOTS_NATS_PORT"
_GRACEFUL: Final = (signal.SIGTERM, 10.0)
# Without its own bound, JetStream takes what the disk has free at start, which may be less than a stream asks for.
_CONFIGURATION: Final = """\
server_name: minoots
host: 127.0.0.1
port: {port}
max_payload: 2MB
pid_file: {pid_file}
authorization {{ user: {user}, password: {password} }}
jetstream {{ store_dir: {store}, max_file_store: 64GB, max_memory_store: 64MB }}
"""


class EmbeddedNats:
    """`port` None takes last time's port, or a free one."""

    def __init__(self, place: Place, port: int | None = None) -> None:
        self._place = place
        self._asked = port
        self._port: int | None = None
        self._home = place.folder("nats")
        self._store = self._home / "store"
        self._pid_file = self._home / "pid"
        self._daemon = Daemon(place, "NATS", signal.SIGTERM)

    @property
    def port(self) -> int:
        """Stays the same from the first start on."""
        if self._port is None:
            raise EmbeddedError("this NATS server was never started")
        return self._port

    @property
    def url(self) -> str:
        return f"nats://{_USER}:{self._place.password()}@127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return self._daemon.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return when it takes connections."""
        configuration = self._place.home / "nats.conf"
        await clear_leftover(self._pid_file, configuration, _GRACEFUL)
        asked = self._asked if self._port is None else self._port
        self._port = settle_port(self._place, "nats", asked, "NATS", _PORT_SETTING)
        self._place.write(configuration.name, self._configuration())
        try:
            await self._daemon.launch([self._place.binaries.nats, "-c", configuration])
            await self._daemon.until(self._takes_connections, 60)
        except BaseException:
            await self.kill()
            if "address already in use" in self._daemon.output():
                raise port_taken(self.port, "NATS", _PORT_SETTING) from None
            raise

    async def stop(self) -> None:
        """What was acknowledged is on disk."""
        await self._daemon.end(_GRACEFUL)

    async def kill(self) -> None:
        """SIGKILL."""
        await self._daemon.end()

    def wipe(self) -> None:
        """Remove every stream and consumer; the server must be stopped."""
        if self._daemon.is_running:
            raise EmbeddedError("stop NATS before its store is wiped")
        shutil.rmtree(self._store, ignore_errors=True)

    async def ended(self) -> EmbeddedError:
        """Wait until the server has ended, and say why as far as it told."""
        return await self._daemon.death()

    async def _takes_connections(self) -> bool:
        """JetStream is up before the server listens, and the server speaks first."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(5):
                return (await reader.readline()).startswith(b"INFO")
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _configuration(self) -> str:
        return _CONFIGURATION.format(
            port=self.port,
            pid_file=_quoted(str(self._pid_file)),
            user=_USER,
            password=_quoted(self._place.password()),
            store=_quoted(str(self._store)),
        )


def _quoted(text: str) -> str:
    """As NATS' configuration reads strings."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
