"""GET /timers/{id}/wait and WaitTimer: answered when the timer ends, with one look a second for all who wait."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import grpc
import grpc.aio
import pytest

from minoots.access.keys import load_keys
from minoots.broker.jetstream import Broker
from minoots.broker.tail import Tail
from minoots.clock import SystemClock
from minoots.domain.outcome import Answer as OutcomeAnswer
from minoots.domain.outcome import Delivered, Rejected
from minoots.embedded.ports import free_port
from minoots.kernel.firing import Kernel
from minoots.relay.relay import Relay
from minoots.rest.app import create_app
from minoots.rest.events import EventRoutes
from minoots.rest.server import serve_rest
from minoots.rpc.events import WaitVerbs
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from minoots.rpc.server import serve_grpc
from minoots.runtime.loop import Loop
from minoots.service import waits as waiting
from minoots.service.changes import TimerChanges
from minoots.service.following import Following
from minoots.service.timers import Timers
from minoots.service.waits import Waits
from minoots.settings import Address, Settings
from minoots.store.database import Database
from tests.integration.test_rest import KEYS, Switch, until_open
from tests.support.life import DEAD, DELIVERED, attempt, fire
from tests.support.processes import RoleProcess
from tests.support.timers import bundle, webhook
from tests.support.waiting import eventually

Sql = asyncpg.Connection


@dataclass
class Door:
    """REST and gRPC over one `Waits` with its loop; a tenant of this test's own."""

    url: str
    http: aiohttp.ClientSession
    stub: Any
    waits: Waits
    tail: Tail | None
    tenant: str

    async def create(self, **fields: Any) -> Any:
        asked = {"requestedBy": "test", "duration": "1h"} | fields
        async with self.http.post(f"{self.url}/timers", json=asked) as answer:
            assert answer.status == 201, await answer.text()
            return await answer.json()

    async def wait(self, timer_id: str, query: str = "", **headers: str) -> tuple[int, Any, str | None]:
        """Status, body, and why the wait was over."""
        async with self.http.get(f"{self.url}/timers/{timer_id}/wait{query}", headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers.get("minoots-wait")

    async def waited(self, many: int) -> None:
        """Until so many wait."""

        async def are_there() -> bool:
            return sum(len(waiters) for waiters in self.waits._waiting.values()) == many

        await eventually(are_there, 30)

    async def cancel(self, timer_id: str) -> None:
        async with self.http.post(f"{self.url}/timers/{timer_id}/cancel", json={"requestedBy": "ann"}) as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def serving_door(database: Database, broker: Broker | None) -> AsyncIterator[Door]:
    rest, rpc, stop = Address("127.0.0.1", free_port()), Address("127.0.0.1", free_port()), asyncio.Event()
    keys, timers, following = load_keys("development", None, KEYS), Timers(database), Following(database, broker)
    waits, tail = following.waits, following.tail
    loop = Loop("waits", waits.tick, SystemClock())
    waits.on_news = loop.wake
    app = create_app(timers, TimerChanges(database), keys, Switch([]), further=[EventRoutes(following, keys)])
    running = [
        asyncio.create_task(serve_rest(app, rest, stop)),
        asyncio.create_task(
            serve_grpc(timers, TimerChanges(database), keys, tail, rpc, stop, further=[WaitVerbs(waits)])
        ),
        asyncio.create_task(loop.run(stop)),
        asyncio.create_task(following.end_at(stop)),
    ]
    await until_open(rest.port)
    tenant = f"t{uuid4().hex[:10]}"
    headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": tenant}
    async with (
        aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http,
        grpc.aio.insecure_channel(str(rpc)) as channel,
    ):
        yield Door(f"http://{rest}", http, pb_grpc.HorologyKernelStub(channel), waits, tail, tenant)
        stop.set()
        await asyncio.gather(*running)
    await following.close()


@pytest.fixture
async def door(database: Database) -> AsyncIterator[Door]:
    """Without events."""
    async with serving_door(database, None) as opened:
        yield opened


def in_the_background(door: Door, timer_id: str, query: str = "") -> "asyncio.Task[tuple[int, Any, str | None]]":
    return asyncio.create_task(door.wait(timer_id, query))


# ---- what is answered ----


async def test_a_wait_is_answered_when_the_timer_ends(door: Door, database: Database, sql: Sql) -> None:
    hooked = {"actionBundle": bundle(webhook("https://example.com"))}
    timers = {
        "cancelled": await door.create(),
        "fired": await door.create(duration="1ms"),
        "settled": await door.create(duration="1ms", **hooked),
    }
    asked = {status: in_the_background(door, timer["id"]) for status, timer in timers.items()}
    await door.waited(3)
    await door.cancel(timers["cancelled"]["id"])
    assert (await asked["cancelled"])[1]["status"] == "cancelled"
    await fire(database)
    status, timer, how = await asked["fired"]
    assert (status, timer["status"], how) == (200, "fired", "ended")
    assert not asked["settled"].done(), "a timer that has something to do has not ended when it fires"
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
    assert await attempt(database, Delivered(OutcomeAnswer()), DELIVERED) == 1
    assert (await asked["settled"])[1]["status"] == "settled"
    began = time.monotonic()
    again = await asyncio.gather(*(door.wait(timer["id"], "?timeout=5m") for timer in timers.values()))
    assert [answer[2] for answer in again] == ["ended"] * 3
    assert time.monotonic() - began < 5


async def test_a_failed_timer_and_a_recurring_one_that_ends_are_ends(door: Door, database: Database, sql: Sql) -> None:
    failing = await door.create(duration="1ms", actionBundle=bundle(webhook("https://example.com")))
    recurring = await door.create(duration=None, every="15m")
    asked = [in_the_background(door, timer["id"], "?timeout=1m") for timer in (failing, recurring)]
    await door.waited(2)
    await fire(database)
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now()")
    assert await attempt(database, Rejected("HTTP 410", OutcomeAnswer()), DEAD) == 1
    assert (await asked[0])[1]["status"] == "failed"
    assert not asked[1].done()
    await door.cancel(recurring["id"])
    assert (await asked[1])[1]["status"] == "cancelled"


async def test_when_the_time_is_up_the_timer_comes_as_it_is(door: Door) -> None:
    timer = await door.create()
    began = time.monotonic()
    status, shown, how = await door.wait(timer["id"], "?timeout=300ms")
    assert (status, shown, how) == (200, timer, "timeout")
    assert time.monotonic() - began >= 0.3
    answer = await door.stub.WaitTimer(
        pb.TimerWaitRequest(tenant_id=door.tenant, timer_id=timer["id"], timeout_ms=200),
        metadata=[("x-api-key", "mnt_all_of_them")],
    )
    assert (answer.timer.id, answer.has_ended) == (timer["id"], False)


async def test_what_cannot_be_waited_for_is_refused(door: Door) -> None:
    timer = await door.create()
    for query in ("?timeout=30", "?timeout=0s", "?timeout=6m", "?timeout=soon", "?timeout=1s&timeout=2s", "?time=1s"):
        assert (await door.wait(timer["id"], query))[0] == 400, query
    assert (await door.wait(str(uuid4())))[0] == 404
    assert (await door.wait("none"))[0] == 404
    assert (await door.wait(timer["id"], **{"x-tenant-id": "other"}))[0] == 404
    assert (await door.wait(timer["id"], **{"X-API-Key": "mnt_only_writes"}))[0] == 403


async def test_a_timer_that_is_removed_meanwhile_is_not_found(door: Door, sql: Sql) -> None:
    timer = await door.create()
    asked = in_the_background(door, timer["id"], "?timeout=1m")
    await door.waited(1)
    await sql.execute("delete from minoots.timers where id = $1", timer["id"])
    assert (await asked)[0] == 404


async def test_grpc_waits_as_rest_does(door: Door) -> None:
    timer = await door.create()
    request = pb.TimerWaitRequest(tenant_id=door.tenant, timer_id=timer["id"])
    key = [("x-api-key", "mnt_all_of_them")]
    asked = asyncio.ensure_future(door.stub.WaitTimer(request, metadata=key))
    await door.waited(1)
    await door.cancel(timer["id"])
    answer = await asked
    assert (answer.timer.status, answer.has_ended) == (pb.TIMER_STATUS_CANCELLED, True)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.stub.WaitTimer(pb.TimerWaitRequest(timer_id=timer["id"], timeout_ms=300_001), metadata=key)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.stub.WaitTimer(pb.TimerWaitRequest(tenant_id="other", timer_id=timer["id"]), metadata=key)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_that_goes_answers_those_who_wait(door: Door) -> None:
    timer = await door.create()
    asked = in_the_background(door, timer["id"], "?timeout=5m")
    await door.waited(1)
    door.waits.end()
    assert (await asyncio.wait_for(asked, 5)) == (200, timer, "interrupted")
    assert (await asyncio.wait_for(door.wait(timer["id"], "?timeout=5m"), 5))[2] == "interrupted"


async def test_one_who_goes_is_forgotten(door: Door) -> None:
    timer = await door.create()
    asked = in_the_background(door, timer["id"], "?timeout=5m")
    await door.waited(1)
    asked.cancel()
    await door.waited(0)


# ---- thousands ----

MANY = 2_000


async def test_thousands_wait_by_one_statement_a_second(door: Door, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    timers = [await door.create() for _ in range(20)]
    looks: list[int] = []
    look = waiting.find_ended

    async def counted(db: Any, connection: Any, asked: Any) -> Any:
        # Those who come look for themselves first.
        if len(asked) > 1:
            looks.append(len(asked))
        return await look(db, connection, asked)

    asked = [in_the_background(door, timers[n % 20]["id"], "?timeout=5m") for n in range(MANY)]
    await door.waited(MANY)
    monkeypatch.setattr(waiting, "find_ended", counted)
    began = time.monotonic()

    async def thrice() -> bool:
        return len(looks) >= 3

    await eventually(thrice)
    assert time.monotonic() - began > 1.5
    assert set(looks) == {20}
    await sql.execute(
        "update minoots.timers set status = 'cancelled', cancelled_at = minoots.now() where tenant_id = $1", door.tenant
    )
    answers = await asyncio.wait_for(asyncio.gather(*asked), 30)
    assert {(status, timer["status"], how) for status, timer, how in answers} == {(200, "cancelled", "ended")}


async def test_an_event_ends_a_wait_at_once(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only an event can be so quick then.
    monkeypatch.setattr(waiting, "_EVERY_S", 3600)
    async with Broker(settings.broker, "test") as broker:
        await broker.ensure_stream()
        async with serving_door(database, broker) as door:
            timer = await door.create(duration="300ms")
            asked = in_the_background(door, timer["id"], "?timeout=1m")
            await door.waited(1)

            async def is_read() -> bool:
                return door.tail is not None and door.tail.position >= 0

            await eventually(is_read)
            relay = Relay(database, broker, SystemClock())
            kernel = Kernel(database, SystemClock(), 100)

            async def has_fired() -> bool:
                return bool((await kernel.run_once()).claimed)

            await eventually(has_fired)
            fired_at = time.monotonic()
            await relay.tick()
            status, shown, how = await asyncio.wait_for(asked, 10)
            assert (status, shown["status"], how) == (200, "fired", "ended")
            print(f"from the firing to the answer: {(time.monotonic() - fired_at) * 1000:.0f} ms")


# ---- the command; a server whose NATS is away ----


async def command(door: Door, *words: str) -> tuple[int, str, str]:
    environ = {**os.environ, "MINOOTS_API_URL": door.url, "MINOOTS_API_KEY": "mnt_all_of_them"}
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "minoots", "timer", "wait", "--tenant", door.tenant, *words),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(running.communicate(), 60)
    return running.returncode or 0, out.decode(), err.decode()


async def test_the_command_waits_and_ends_as_the_timer_did(door: Door, database: Database) -> None:
    cancelled, fired, waiting_one = await door.create(), await door.create(duration="1ms"), await door.create()
    asked = [asyncio.create_task(command(door, timer["id"])) for timer in (cancelled, fired)]
    await door.waited(2)
    await door.cancel(cancelled["id"])
    await fire(database)
    assert [(code, "cancelled" in out) for code, out, _ in await asyncio.gather(*asked)] == [(1, True), (0, False)]
    code, _, err = await command(door, waiting_one["id"], "--timeout", "300ms")
    assert (code, "still scheduled" in err) == (1, True)
    assert (await command(door, str(uuid4())))[0] == 3


async def test_a_door_whose_nats_is_away_serves_all_but_events(database_url: str) -> None:
    port = free_port()
    environ = {
        "MINOOTS_DATABASE_URL": database_url,
        "NATS_URL": f"nats://127.0.0.1:{free_port()}",
        "MINOOTS_API_ADDRESS": f"127.0.0.1:{port}",
        "API_KEYS_JSON": KEYS,
    }
    headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": "acme"}
    url = f"http://127.0.0.1:{port}"
    async with RoleProcess(["api"], environ) as process, aiohttp.ClientSession(headers=headers) as http:
        await until_open(port)
        async with http.post(f"{url}/timers", json={"requestedBy": "test", "duration": "1h"}) as answer:
            assert answer.status == 201
            timer = await answer.json()
        async with http.get(f"{url}/events") as answer:
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        asked = asyncio.ensure_future(http.get(f"{url}/timers/{timer['id']}/wait?timeout=1m"))
        async with http.post(f"{url}/timers/{timer['id']}/cancel", json={"requestedBy": "ann"}) as answer:
            assert answer.status == 200
        assert (await asked).headers["minoots-wait"] == "ended"
        assert await process.stop() == 0, process.lines[-5:]
