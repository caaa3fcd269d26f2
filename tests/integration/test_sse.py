"""GET /events over a real NATS: what comes, where it goes on, and thousands of readers that do not read."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from minoots.access.keys import load_keys
from minoots.broker.jetstream import Broker
from minoots.broker.tail import Tail
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.ports import free_port
from minoots.rest import streams
from minoots.rest.app import create_app
from minoots.rest.events import EventRoutes
from minoots.rest.server import serve_rest
from minoots.service.changes import TimerChanges
from minoots.service.following import Following
from minoots.service.timers import Timers
from minoots.settings import Address, Settings
from minoots.store import installation
from minoots.store.database import Database
from tests.integration.test_event_stream import comes_back_empty, publish
from tests.integration.test_rest import KEYS, Switch, until_open
from tests.support.following import EventSource, Frame
from tests.support.processes import RoleProcess
from tests.support.waiting import eventually


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker(settings.broker, "test") as opened:
        await opened.ensure_stream()
        yield opened


@dataclass
class Door:
    """A served door with a NATS behind it."""

    port: int
    broker: Broker
    following: Following

    def follow(self, query: str = "", last_id: str | None = None, **headers: str) -> EventSource:
        return EventSource(self.port, query, last_id, **headers)

    async def publish(self, kind: str = "timer.fired", tenant: str = "acme", **data: Any) -> str:
        return await publish(self.broker, kind, tenant, **data)


@contextlib.asynccontextmanager
async def serving_door(database: Database, broker: Broker | None, held_bytes: int = 32 << 20) -> AsyncIterator[Door]:
    following = Following(database, broker)
    if broker is not None:
        following.tail = Tail(broker, following.places, held_bytes)
    port, stop, keys = free_port(), asyncio.Event(), load_keys("development", None, KEYS)
    routes = EventRoutes(following, keys)
    app = create_app(Timers(database), TimerChanges(database), keys, Switch([]), further=[routes])
    ending = asyncio.create_task(following.end_at(stop))
    serving = asyncio.create_task(serve_rest(app, Address("127.0.0.1", port), stop))
    await until_open(port)
    yield Door(port, broker, following)  # type: ignore[arg-type]
    stop.set()
    await asyncio.gather(serving, ending)
    await following.close()


@pytest.fixture
async def door(database: Database, broker: Broker) -> AsyncIterator[Door]:
    async with serving_door(database, broker) as opened:
        yield opened


def ids(frames: list[Frame]) -> list[str]:
    return [frame.json["id"] for frame in frames]


async def refusal(reader: EventSource) -> Any:
    async with reader:
        assert reader.headers["content-type"] == "application/problem+json"
        return reader.status, json.loads(await reader._reader.readexactly(int(reader.headers["content-length"])))


# ---- what comes, and to whom ----


async def test_events_come_as_they_were_published_with_a_place_to_resume_at(door: Door) -> None:
    async with door.follow() as reader:
        assert reader.status == 200
        assert reader.headers["content-type"].startswith("text/event-stream")
        assert reader.headers["cache-control"] == "no-store"
        first = await reader.frame()
        assert (first.event, first.id.rpartition("-")[2]) == ("", "0")
        wanted = [await door.publish(), await door.publish("delivery.dead", padding="\u00e4" * 100_000)]
        fired, dead = await reader.take(2)
        assert (fired.event, dead.event) == ("timer.fired", "delivery.dead")
        assert ids([fired, dead]) == wanted
        assert dead.json["data"]["padding"] == "\u00e4" * 100_000
        assert (fired.json["specversion"], fired.json["type"]) == ("1.0", "minoots.timer.fired")
        assert [frame.id.rpartition("-")[2] for frame in (fired, dead)] == ["1", "2"]


async def test_a_reader_that_was_cut_off_loses_and_repeats_nothing(door: Door) -> None:
    wanted: list[str] = []
    stopped = asyncio.Event()

    async def keep_publishing() -> None:
        while not stopped.is_set():
            wanted.append(await door.publish())
            await asyncio.sleep(0.001)

    seen: list[str] = []
    async with door.follow() as reader:
        last_id = (await reader.frame()).id
    publishing = asyncio.create_task(keep_publishing())
    for many in (1, 7, 40, 3, 100):
        async with door.follow(last_id=last_id) as reader:
            seen += ids(await reader.take(many))
            last_id = reader.last_id
        await asyncio.sleep(0.1)
    stopped.set()
    await publishing
    async with door.follow(last_id=last_id) as reader:
        seen += ids(await reader.take(len(wanted) - len(seen)))
    assert seen == wanted


async def test_type_timer_and_label_choose_what_comes(door: Door) -> None:
    one, other = {"id": str(uuid4()), "labels": {"team": "a", "env": "x:y"}}, {"id": str(uuid4()), "labels": {}}
    queries = [
        "type=timer.fired",
        "type=delivery.*&type=timer.settled",
        "label=team:a",
        "label=team:a&label=env:x:y&type=timer.*",
        "label=team:b",
    ]
    async with contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(door.follow(query)) for query in queries]
        fired = await door.publish("timer.fired", timer=one)
        dead = await door.publish("delivery.dead", timer=one)
        settled = await door.publish("timer.settled", timer=other)
        await door.publish("timer.fired", "beta", timer=one)
        opened = await door.publish("lane.opened")
        cut = await door.publish("timer.fired", timer={"id": one["id"]}, truncated=True)
        expected = [[fired, cut], [dead, settled], [fired, dead, cut], [fired, cut], [cut]]
        for reader, wanted in zip(readers, expected, strict=True):
            assert ids(await reader.take(len(wanted))) == wanted
        last_id = readers[0].last_id
        # A timer's own, by the subject of its events.
        mine = (await stack.enter_async_context(door.follow())).last_id
        assert mine is not None
        everything = await stack.enter_async_context(door.follow(last_id=last_id.rpartition("-")[0] + "-0"))
        frames = await everything.take(5)
        assert ids(frames) == [fired, dead, settled, opened, cut]
        subject = frames[2].json["subject"]
        single = await stack.enter_async_context(door.follow(f"timerId={subject.upper()}", last_id=frames[0].id))
        assert ids(await single.take(1)) == [settled]


async def test_only_the_callers_tenant_is_heard(door: Door) -> None:
    async with door.follow() as reader:
        for other in ("acme2", "acm", "ACME"):
            await door.publish(tenant=other)
        wanted = await door.publish()
        assert ids(await reader.take(1)) == [wanted]
        async with door.follow(last_id=reader.last_id.rpartition("-")[0] + "-0", **{"x-tenant-id": "beta"}) as beta:
            mine = await door.publish(tenant="beta")
            assert ids(await beta.take(1)) == [mine]
    status, _ = await refusal(door.follow(**{"x-tenant-id": "beta", "X-API-Key": "mnt_one_tenant"}))
    assert status == 403
    assert (await refusal(door.follow(**{"X-API-Key": "mnt_only_writes"})))[0] == 403
    assert (await refusal(door.follow(**{"X-API-Key": "no"})))[0] == 401


async def test_what_cannot_be_read_is_refused_before_the_stream_begins(door: Door) -> None:
    for query in (
        "type=timer.exploded",
        "types=timer.fired",
        "timerId=x",
        "label=x",
        "lastEventId=1",
        "timerId=a&timerId=b",
    ):
        assert (await refusal(door.follow(query)))[0] == 400, query
    _, problem = await refusal(door.follow("type=timer.exploded"))
    assert "timer.fired" in problem["detail"]
    for token in ("x", "1-", "-1", "1-99999999999999999999", "1-1-1", "ABC-1"):
        assert (await refusal(door.follow(last_id=token)))[0] == 400, token


async def test_without_events_the_refusal_says_who_can_mend_it(
    door: Door, database: Database, nats: EmbeddedNats
) -> None:
    async with serving_door(database, None) as bare:
        status, problem = await refusal(bare.follow())
        assert (status, problem["type"]) == (409, "urn:minoots:problem:events-off")
        assert "NATS_URL" in problem["detail"]
    async with database.connection() as connection:
        await installation.switch_events(database, connection, on=False)
    status, problem = await refusal(door.follow())
    assert (status, "minoots events on" in problem["detail"]) == (409, True)
    async with database.connection() as connection:
        await installation.switch_events(database, connection, on=True)
    await nats.kill()
    assert (await refusal(door.follow()))[0] == 503


async def test_head_shows_what_a_reader_would_get(door: Door) -> None:
    headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": "acme"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.head(f"http://127.0.0.1:{door.port}/events") as answer,
    ):
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        assert await answer.read() == b""


async def test_a_full_server_says_so(door: Door) -> None:
    door.following.places._most = 2
    async with door.follow(), door.follow():
        status, problem = await refusal(door.follow())
        assert (status, problem["type"]) == (503, "urn:minoots:problem:too-many-follow")

    async def is_free() -> bool:
        return door.following.places.taken == 0

    await eventually(is_free)


# ---- what is said beside the events ----


async def test_silence_is_broken_by_a_heartbeat_that_moves_the_place(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.2)
    async with door.follow() as reader:
        await reader.frame()
        await door.publish(tenant="beta")
        frames = [await reader.frame() for _ in range(10)]
        assert all(frame.comment and not frame.event for frame in frames)
        assert frames[-1].id.endswith("-1")


async def test_a_wiped_stream_is_said_and_followed(door: Door, nats: EmbeddedNats) -> None:
    async with door.follow() as reader:
        await door.publish()
        (event,) = await reader.take(1)
        await comes_back_empty(nats, door.broker)
        wanted = [await door.publish() for _ in range(5)]
        notice, *events = await reader.take(6, 40)
        assert (notice.event, notice.json["reason"], notice.json["resume"]) == ("notice", "stream_replaced", notice.id)
        assert ids(events) == wanted
    async with door.follow(last_id=event.id) as reader:
        notice, *events = await reader.take(6)
        assert notice.json["reason"] == "stream_replaced"
        assert ids(events) == wanted


async def test_events_that_the_stream_dropped_are_said(door: Door) -> None:
    async with door.follow() as reader:
        wanted = [await door.publish() for _ in range(5)]
        events = await reader.take(5)
    await door.broker.js.purge_stream(door.broker.stream, seq=4)
    async with door.follow(last_id=events[0].id) as reader:
        notice, *rest = await reader.take(3)
        assert (notice.json, notice.id) == ({"reason": "expired", "resume": events[2].id}, events[2].id)
        assert ids(rest) == wanted[3:]


async def test_a_server_that_goes_ends_the_streams_and_says_where_to_resume(
    settings: Settings, broker: Broker, database_url: str
) -> None:
    port = free_port()
    environ = {
        "MINOOTS_DATABASE_URL": database_url,
        "NATS_URL": settings.broker.url or "",
        "MINOOTS_API_ADDRESS": f"127.0.0.1:{port}",
        "API_KEYS_JSON": KEYS,
    }
    async with RoleProcess(["api"], environ) as process:
        await until_open(port)
        async with EventSource(port) as reader, EventSource(port) as stalled:
            wanted = [await publish(broker, "timer.fired") for _ in range(3)]
            assert ids(await reader.take(3)) == wanted
            for _ in range(30):
                await publish(broker, "timer.fired", padding="x" * 100_000)
            ending = asyncio.create_task(process.stop())
            frames = await reader.rest()
            assert await asyncio.wait_for(ending, 10) == 0
            assert stalled.status == 200
        last = [await publish(broker, "timer.fired")]
    async with RoleProcess(["api"], environ):
        await until_open(port)
        async with EventSource(port, last_id=frames[-1].id) as reader:
            seen = sum(1 for frame in frames if frame.event)
            assert ids(await reader.take(31 - seen))[-1:] == last


# ---- readers that do not read ----

SLOW = 1_000


def rss_mib() -> float:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


async def test_a_thousand_readers_that_do_not_read_take_bounded_memory_and_hurt_nobody(
    database: Database, broker: Broker
) -> None:
    loop = asyncio.get_running_loop()
    async with serving_door(database, broker, held_bytes=8 << 20) as door:
        sockets: list[socket.socket] = []
        request = b"GET /events HTTP/1.1\r\nHost: x\r\nX-API-Key: mnt_all_of_them\r\nx-tenant-id: acme\r\n\r\n"
        for nth in range(SLOW):
            slow = socket.socket()
            # The first one is to read later, and not to take a minute for it.
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096 if nth else 1 << 16)
            slow.setblocking(False)
            await loop.sock_connect(slow, ("127.0.0.1", door.port))
            await loop.sock_sendall(slow, request)
            sockets.append(slow)

        async def all_follow() -> bool:
            return door.following.places.taken == SLOW

        await eventually(all_follow, 60)
        before = rss_mib()
        async with door.follow() as fast, door.follow("type=timer.*") as other:
            wanted: list[str] = []
            seen: list[list[Frame]] = [[], []]
            # 24 MiB, three times what the tail holds; these two keep up with it, however busy the machine is.
            for _ in range(24):
                wanted.extend([await door.publish(padding="x" * 64_000) for _ in range(16)])
                for frames, more in zip(
                    seen, await asyncio.gather(*(reader.take(16, 120) for reader in (fast, other))), strict=True
                ):
                    frames.extend(more)
            assert [ids(frames) for frames in seen] == [wanted, wanted]
            grown = rss_mib() - before
            assert grown < 256, f"{grown:.0f} MiB for {SLOW} readers that do not read"
        print(f"{SLOW} readers that do not read: {grown:.0f} MiB, {grown * 1024 / SLOW:.0f} KiB each")
        for slow in sockets[1:]:
            slow.close()
        # The one that is left begins to read: it is told where to resume, and resumes without a loss.
        head = b""
        async with asyncio.timeout(60):
            while not head.endswith(b"\r\n0\r\n\r\n"):
                head += await loop.sock_recv(sockets[0], 1 << 16)
        sockets[0].close()
        text = head.decode(errors="replace")
        assert '"reason": "too_slow"' in text
        resume = text.rpartition('"resume": "')[2].partition('"')[0]
        number = int(resume.rpartition("-")[2])
        assert 0 < number < len(wanted)
        async with door.follow(last_id=resume) as reader:
            assert ids(await reader.take(len(wanted) - number)) == wanted[number:]
