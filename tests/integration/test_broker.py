"""The connection to NATS comes back, whatever NATS said as it ended it."""

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minoots.broker.jetstream import Broker
from minoots.embedded.ports import free_port
from minoots.errors import BrokerUnavailable, ConfigError
from minoots.settings import BrokerSettings
from tests.support.waiting import eventually

SERVER = Path(sys.executable).parent / "nats-server"


class TokenServer:
    """A NATS whose token can be changed while it runs, as operators do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "nats.conf"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def set_token(self, token: str) -> None:
        self._file.write_text(
            f'listen: "127.0.0.1:{self.port}"\njetstream {{ store_dir: "{self._folder}/js" }}\n'
            f'authorization {{ token: "{token}" }}\n'
        )
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        self._process = subprocess.Popen([SERVER, "-c", self._file], stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def settings(self, token: str, max_bytes: int = 1 << 20) -> BrokerSettings:
        return BrokerSettings(f"nats://{token}@127.0.0.1:{self.port}", "minoots.timer.events", "EVENTS", max_bytes)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TokenServer]:
    made = TokenServer(tmp_path)
    made.set_token("first")
    made.start()
    yield made
    made.stop()


async def test_a_connection_that_the_server_ended_for_its_credentials_comes_back(server: TokenServer) -> None:
    async with Broker(server.settings("first"), "test") as broker:
        await broker.ensure_stream()
        server.set_token("second")
        await eventually(lambda: _is(not broker.is_connected), seconds=10)
        server.set_token("first")
        await eventually(lambda: _is(broker.is_connected), seconds=10)
        assert (await broker.stream_info()).config.name == "EVENTS"


async def test_refused_credentials_are_said_at_the_start(server: TokenServer) -> None:
    with pytest.raises(ConfigError, match=re.escape("NATS refuses the credentials in NATS_URL")):
        async with Broker(server.settings("wrong"), "test"):
            pass


async def test_a_stream_that_does_not_fit_ends_a_start_but_nothing_that_runs(server: TokenServer) -> None:
    async with Broker(server.settings("first"), "running") as running:
        await running.ensure_stream()
        await running.js.delete_stream("EVENTS")
        await running.js.add_stream(name="FOREIGN", subjects=["minoots.>"])
        with pytest.raises(BrokerUnavailable, match="refuses the stream"):
            await running.ensure_stream()
        async with Broker(server.settings("first"), "starting") as starting:
            with pytest.raises(ConfigError, match="refuses the stream"):
                await starting.ensure_stream()
        await running.js.delete_stream("FOREIGN")
        assert (await running.ensure_stream()).config.subjects == ["minoots.timer.events.>"]


async def _is(value: bool) -> bool:
    await asyncio.sleep(0)
    return value
