"""The OpenAPI document is true: what it allows is answered as it says, what it forbids is refused."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from minoots.access.keyring import load_keyring
from minoots.access.keys import load_keys
from minoots.rest.app import create_app
from minoots.rest.server import serve_rest
from minoots.service.changes import TimerChanges
from minoots.service.following import Following
from minoots.service.timers import Timers
from minoots.service.waits import Waits
from minoots.settings import Address, StoreSettings
from minoots.store.database import Database
from minoots.wiring import further_routes

# ---- fixtures: a migrated, empty database; the door in a thread of its own, for Schemathesis is another process ----


def until_open(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert time.monotonic() < deadline, "the door did not open"
            time.sleep(0.01)
        else:
            return


class Ready:
    async def problems(self) -> list[str]:
        return []


@pytest.fixture(scope="module")
def door_url(module_database_url: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with Database(StoreSettings(module_database_url, "minoots", 8, True)) as database:
            keys = load_keys("development", None, None)
            # Without events, so that GET /events is no stream without an end; and nobody waits for long.
            following = Following(database, None)
            following.waits = Waits(database, None, following.places, most_s=0.05)
            further = further_routes(database, load_keyring("development", None), keys, following)
            app = create_app(Timers(database), TimerChanges(database), keys, Ready(), further=further)
            await serve_rest(app, Address("127.0.0.1", port), stop)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    until_open(port)
    yield f"http://127.0.0.1:{port}"
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


# ---- the test ----

# Not proved: that all data of the right form is accepted. An instant may be past, two tenants may contradict.
RUN = """run {url}/openapi.json --header X-API-Key:mnt_example --header x-tenant-id:demo --seed 1 --no-color
    --checks all --exclude-checks positive_data_acceptance --max-examples 25 --max-failures 5 --request-timeout 10
    --suppress-health-check all --warnings off"""


def test_every_call_keeps_to_the_document(door_url: str, tmp_path: Path) -> None:
    """Schemathesis' own phases: the examples, the edges of each schema, drawn data, and calls that follow links."""
    command = [str(Path(sys.executable).with_name("schemathesis")), *RUN.format(url=door_url).split()]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Stateful" in ran.stdout
