"""StreamTimerEvents over a real NATS, through wipes, restarts and slow readers."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from uuid_utils import uuid7

from minoots.access.keys import load_keys
from minoots.broker.events import Event, Notice, Wanted, choose_topics
from minoots.broker.follow import Follower
from minoots.broker.jetstream import Broker
from minoots.broker.tail import Tail
from minoots.clock import SystemClock
from minoots.domain.duration import format_instant
from minoots.domain.event import KINDS, envelope
from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.ports import free_port
from minoots.errors import BrokerUnavailable, MalformedRequest
from minoots.kernel.firing import Kernel
from minoots.relay.relay import Relay
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from minoots.rpc.server import serve_grpc
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address, Settings
from minoots.store import installation
from minoots.store.database import Database
from tests.support.waiting import eventually

KEYS = (
    """[{"key": "mnt_all_of_them", "userId": "ann"}, {"key": "mnt_one_tenant", "userId": "bob", "tenants": ["acme"]}]"""
)
KEY = [("x-api-key", "mnt_all_of_them")]


@pytest.fixture
async def broker(settings: Settings) -> AsyncIterator[Broker]:
    async with Broker(settings.broker, "test") as opened:
        await opened.ensure_stream()
        yield opened


@dataclass
class Door:
    """A served door with a NATS behind it; `publish` writes to the stream as the relay does."""

    stub: Any
    broker: Broker
    stop: asyncio.Event
    serving: "asyncio.Task[None]"

    async def publish(self, kind: str = "timer.fired", tenant: str = "acme", **data: Any) -> str:
        return await publish(self.broker, kind, tenant, **data)

    async def follow(self, **asked: Any) -> Any:
        """An open call: when this returns, its initial metadata is there."""
        call = self.stub.StreamTimerEvents(pb.TimerEventStreamRequest(**({"tenant_id": "acme"} | asked)), metadata=KEY)
        await asyncio.wait_for(call.initial_metadata(), 10)
        return call


@pytest.fixture
async def door(database: Database, broker: Broker) -> AsyncIterator[Door]:
    async with serving_door(database, broker) as opened:
        yield opened


@contextlib.asynccontextmanager
async def serving_door(database: Database, broker: Broker | None) -> AsyncIterator[Door]:
    address, stop = Address("127.0.0.1", free_port()), asyncio.Event()
    keys = load_keys("development", None, KEYS)
    tail = None if broker is None else Tail(broker)
    serving = asyncio.create_task(serve_grpc(Timers(database), TimerChanges(database), keys, tail, address, stop))
    async with grpc.aio.insecure_channel(str(address)) as channel:
        await asyncio.wait_for(channel.channel_ready(), 10)
        yield Door(pb_grpc.HorologyKernelStub(channel), broker, stop, serving)  # type: ignore[arg-type]
    stop.set()
    await asyncio.wait_for(serving, 10)
    if tail is not None:
        await tail.close()


async def publish(broker: Broker, kind: str, tenant: str = "acme", **data: Any) -> str:
    """Publish one event, as often as it takes; its id."""
    event_id = str(uuid7())
    body = envelope(
        UUID(event_id),
        tenant,
        uuid4(),
        kind,
        format_instant(datetime.now(UTC)),
        json.dumps({"timer": None} | data),
        None,
    )

    async def published() -> bool:
        try:
            headers = {"Nats-Msg-Id": event_id}
            return bool(await broker.js.publish(f"{broker.subject}.{tenant}.{kind}", body, timeout=1, headers=headers))
        except (BrokerUnavailable, TimeoutError):
            return False

    await eventually(published)
    return event_id


async def take(call: Any, count: int, seconds: float = 15) -> list[Any]:
    async with asyncio.timeout(seconds):
        return [await call.read() for _ in range(count)]


def ids(events: list[Any]) -> list[str]:
    return [event.id for event in events]


async def stays_silent(call: Any, seconds: float = 0.4) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.read(), seconds)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 15)
    return caught.value


async def comes_back_empty(nats: EmbeddedNats, broker: Broker) -> None:
    """NATS dies, loses all it had, and starts; then somebody makes the stream again, as the relay does."""
    await nats.kill()
    nats.wipe()
    await nats.start()
    await makes_stream(broker)


async def makes_stream(broker: Broker) -> None:
    async def made() -> bool:
        try:
            return bool(await broker.ensure_stream())
        except (BrokerUnavailable, TimeoutError):
            return False

    await eventually(made, 15)


# ---- what comes, and to whom ----


async def test_events_of_a_timer_arrive_as_the_service_shows_it(door: Door, database: Database) -> None:
    call = await door.follow(tenant_id="demo")
    request = pb.TimerScheduleRequest(
        tenant_id="demo", requested_by="ann", duration_ms=1, name="soon", labels={"a": "b"}
    )
    request.metadata.update({"n": 1, "deep": [None, {"x": 0.5}]})
    bundle = pb.Action(id="call", kind="webhook")
    bundle.parameters.update({"url": "https://example.com"})
    request.action_bundle.actions.append(bundle)
    trace = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    made = (await door.stub.ScheduleTimer(request, metadata=[*KEY, ("traceparent", trace)])).timer
    relay = Relay(database, door.broker, SystemClock())
    kernel = Kernel(database, SystemClock(), 100)

    async def turn() -> None:
        while True:
            await kernel.run_once()
            await relay.tick()
            await asyncio.sleep(0.02)

    turning = asyncio.create_task(turn())
    scheduled, fired = await take(call, 2)
    turning.cancel()
    assert scheduled.timer == made
    assert (scheduled.type, scheduled.subject, scheduled.tenant_id) == ("minoots.timer.scheduled", made.id, "demo")
    assert (scheduled.source, scheduled.traceparent) == ("/minoots/tenants/demo", trace)
    assert not scheduled.HasField("firing")
    assert UUID(scheduled.id).version == 7
    assert scheduled.time == made.created_at
    assert (fired.type, fired.timer.status, fired.firing.occurrence) == (
        "minoots.timer.fired",
        pb.TIMER_STATUS_FIRED,
        1,
    )
    current = await door.stub.GetTimer(pb.TimerGetRequest(tenant_id="demo", timer_id=made.id), metadata=KEY)
    assert fired.timer == current


async def test_the_events_of_a_change_say_by_whom_and_what_was_missed(
    door: Door, database: Database, sql: asyncpg.Connection
) -> None:
    call = await door.follow(tenant_id="demo", topics=["timer.*"])
    asked = pb.TimerScheduleRequest(tenant_id="demo", requested_by="ann")
    asked.schedule.update({"every": "15m"})
    made = (await door.stub.ScheduleTimer(asked, metadata=KEY)).timer
    step = {"tenant_id": "demo", "timer_id": made.id, "requested_by": "bob"}
    await door.stub.PauseTimer(pb.TimerPauseRequest(**step), metadata=KEY)
    # An hour's pause.
    await sql.execute("update minoots.timers set fire_at = minoots.now() - interval '1 hour'")
    since = (await door.stub.GetTimer(pb.TimerGetRequest(tenant_id="demo", timer_id=made.id), metadata=KEY)).fire_at
    resumed = await door.stub.ResumeTimer(pb.TimerResumeRequest(**step), metadata=KEY)
    assert await Relay(database, door.broker, SystemClock()).tick() is not None
    events = await take(call, 4)
    found = {event.type.removeprefix("minoots.timer."): event for event in events}
    assert found.keys() == {"scheduled", "paused", "missed", "resumed"}
    assert [event.timer.version for event in events] == sorted(event.timer.version for event in events)
    missed = found["missed"].missed
    assert (missed.count, missed.reason, missed.from_time) == (5, "paused", since)
    assert missed.from_time.ToDatetime() < missed.to_time.ToDatetime() < resumed.fire_at.ToDatetime()
    assert resumed.missed == 5
    assert resumed == found["resumed"].timer
    assert "bob" in found["paused"].reason
    assert not found["paused"].HasField("missed")


async def test_nothing_is_missed_from_the_initial_metadata_on_and_nothing_earlier_comes(door: Door) -> None:
    await door.publish()
    call = await door.follow()
    wanted = [await door.publish() for _ in range(200)]
    assert ids(await take(call, 200)) == wanted


async def test_only_the_callers_tenant_is_heard(door: Door) -> None:
    call = await door.follow()
    for other in ("acme2", "acm", "acme-", "ACME", "acme:x"):
        await door.publish(tenant=other)
    mine = await door.publish()
    assert ids(await take(call, 1)) == [mine]
    await stays_silent(call)
    stub = door.stub.StreamTimerEvents
    error = await refusal(
        stub(pb.TimerEventStreamRequest(tenant_id="beta"), metadata=[("x-api-key", "mnt_one_tenant")])
    )
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    for tenant in ("*", ">", "acme.>", "a b"):
        error = await refusal(stub(pb.TimerEventStreamRequest(tenant_id=tenant), metadata=KEY))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal(stub(pb.TimerEventStreamRequest(tenant_id="acme")))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_of_one_tenant_shows_another_nothing(door: Door) -> None:
    call = await door.follow()
    await door.publish()
    (event,) = await take(call, 1)
    await door.publish()
    await stays_silent(await door.follow(tenant_id="beta", resume_token=event.resume_token))


async def test_topics_choose_what_comes(door: Door) -> None:
    published = ["timer.scheduled", "timer.fired", "delivery.dead", "delivery.delivered", "lane.opened"]
    expected = {
        ("timer.fired",): ["timer.fired"],
        ("delivery.*",): ["delivery.dead", "delivery.delivered"],
        ("timer.fired", "delivery.dead"): ["timer.fired", "delivery.dead"],
        ("timer.*", "timer.fired", "timer.fired"): ["timer.scheduled", "timer.fired"],
        (): published,
    }
    calls = {topics: await door.follow(topics=topics) for topics in expected}
    for kind in published:
        await door.publish(kind)
    for topics, kinds in expected.items():
        assert [event.type.removeprefix("minoots.") for event in await take(calls[topics], len(kinds))] == kinds
        await stays_silent(calls[topics], 0.1)


async def test_an_unknown_topic_is_refused_with_those_there_are(door: Door) -> None:
    for topic in ("timer", "timer.", "*", ">", "timer.>", "nothing.fired", "timer.fired ", ""):
        request = pb.TimerEventStreamRequest(tenant_id="acme", topics=["timer.fired", topic])
        error = await refusal(door.stub.StreamTimerEvents(request, metadata=KEY))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "delivery.*" in error.details()
        assert "timer.fired" in error.details()


def test_every_kind_is_a_topic() -> None:
    assert choose_topics(KINDS) == list(KINDS)
    assert choose_topics([]) == []
    with pytest.raises(MalformedRequest):
        choose_topics(["timer.fired", "x"])


async def test_what_others_put_on_the_subject_ends_nothing(door: Door) -> None:
    call = await door.follow()
    for junk in (
        b"",
        b"{",
        b"[]",
        b'{"id":1}',
        b"\xff",
        b'{"id":"x","type":"y","source":"z","time":"never","data":{"timer":7}}',
    ):
        await door.broker.js.publish(f"{door.broker.subject}.acme.timer.fired", junk)
    await door.broker.js.publish(f"{door.broker.subject}.acme.timer.fired", b"{}", headers={"Status": "409"})
    wanted = await door.publish()
    assert ids(await take(call, 1)) == [wanted]


# ---- where to begin ----


async def test_a_token_goes_on_after_its_event(door: Door) -> None:
    call = await door.follow()
    wanted = [await door.publish() for _ in range(10)]
    events = await take(call, 10)
    call.cancel()
    wanted.append(await door.publish())
    for seen in (0, 4, 9):
        again = await door.follow(resume_token=events[seen].resume_token)
        assert ids(await take(again, 10 - seen)) == wanted[seen + 1 :]
        await stays_silent(again, 0.1)


async def test_an_instant_goes_on_with_what_was_published_since(door: Door) -> None:
    await door.publish()
    await asyncio.sleep(0.05)
    since = datetime.now(UTC)
    await asyncio.sleep(0.05)
    wanted = [await door.publish() for _ in range(3)]
    call = await door.follow(from_time=timestamp(since))
    assert ids(await take(call, 3)) == wanted
    everything = await door.follow(from_time=timestamp(since - timedelta(days=400)))
    assert ids(await take(everything, 4))[1:] == wanted
    later = await door.follow(from_time=timestamp(since + timedelta(hours=1)))
    await door.publish()
    await stays_silent(later)


def timestamp(instant: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(instant)
    return made


async def test_what_is_no_token_is_refused(door: Door) -> None:
    for token in ("", "x", "1-", "-1", "1-99999999999999999999", "1-1-1", "ABC-1", "1-٣"):
        request = pb.TimerEventStreamRequest(tenant_id="acme", resume_token=token)
        error = await refusal(door.stub.StreamTimerEvents(request, metadata=KEY))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "resume token" in error.details()


async def test_a_token_of_a_former_stream_is_answered_with_a_notice(door: Door, nats: EmbeddedNats) -> None:
    call = await door.follow()
    await door.publish()
    (event,) = await take(call, 1)
    call.cancel()
    await comes_back_empty(nats, door.broker)
    wanted = [await door.publish() for _ in range(3)]
    notice, *events = await take(await door.follow(resume_token=event.resume_token), 4)
    assert (notice.type, notice.reason, notice.tenant_id, notice.id) == (
        "minoots.notice",
        "stream_replaced",
        "acme",
        "",
    )
    assert ids(events) == wanted
    assert ids(await take(await door.follow(resume_token=notice.resume_token), 3)) == wanted


async def test_a_token_past_the_end_is_answered_with_a_notice(door: Door) -> None:
    call = await door.follow()
    wanted = await door.publish()
    (event,) = await take(call, 1)
    incarnation, _ = event.resume_token.split("-")
    notice, again = await take(await door.follow(resume_token=f"{incarnation}-1000"), 2)
    assert (notice.reason, again.id) == ("stream_replaced", wanted)


async def test_a_token_older_than_the_stream_is_answered_with_a_notice(door: Door) -> None:
    call = await door.follow()
    wanted = [await door.publish() for _ in range(5)]
    events = await take(call, 5)
    await door.broker.js.purge_stream(door.broker.stream, seq=4)  # keeps the fourth and later
    notice, *rest = await take(await door.follow(resume_token=events[0].resume_token), 3)
    assert (notice.type, notice.reason) == ("minoots.notice", "expired")
    assert ids(rest) == wanted[3:]
    assert notice.resume_token == events[2].resume_token
    (first,) = await take(await door.follow(resume_token=events[2].resume_token), 1)
    assert first.id == wanted[3]


# ---- what happens to NATS in between ----


async def test_a_stream_that_is_wiped_during_a_call_is_said_and_followed(door: Door, nats: EmbeddedNats) -> None:
    calls = [
        await door.follow(),
        await door.follow(from_time=timestamp(datetime.now(UTC))),
        await door.follow(topics=["timer.*"]),
    ]
    before = await door.publish()
    for call in calls[:2]:
        assert ids(await take(call, 1)) == [before]
    await comes_back_empty(nats, door.broker)
    wanted = [await door.publish() for _ in range(20)]
    for call in calls[:2]:
        notice, *events = await take(call, 21)
        assert notice.reason == "stream_replaced"
        assert ids(events) == wanted
    assert ids(await take(calls[2], 22))[2:] == wanted
    for call in calls:
        assert not call.done()


async def test_a_stream_that_is_deleted_and_made_again_is_followed(door: Door) -> None:
    call = await door.follow()
    await door.publish()
    await take(call, 1)
    await door.broker.js.delete_stream(door.broker.stream)
    await asyncio.sleep(0.3)
    await makes_stream(door.broker)
    wanted = await door.publish()
    notice, event = await take(call, 2)
    assert (notice.reason, event.id) == ("stream_replaced", wanted)


async def test_a_nats_that_restarts_loses_no_event_and_needs_no_notice(door: Door, nats: EmbeddedNats) -> None:
    call = await door.follow()
    wanted: list[str] = []

    async def keep_publishing() -> None:
        for _ in range(300):
            wanted.append(await door.publish())
            await asyncio.sleep(0.005)

    publishing = asyncio.create_task(keep_publishing())
    for _ in range(2):
        await asyncio.sleep(0.5)
        await nats.kill()
        await asyncio.sleep(0.3)
        await nats.start()
    await asyncio.wait_for(publishing, 30)
    events = await take(call, 300, 30)
    assert "minoots.notice" not in {event.type for event in events}
    assert ids(events) == wanted


async def test_a_consumer_that_the_server_forgot_is_made_again_where_it_was(door: Door) -> None:
    call = await door.follow()
    wanted = [await door.publish() for _ in range(3)]
    assert ids(await take(call, 3)) == wanted
    for _ in range(3):
        for consumer in await door.broker.js.consumers_info(door.broker.stream):
            await door.broker.js.delete_consumer(door.broker.stream, consumer.name)
        wanted = [await door.publish() for _ in range(3)]
        assert ids(await take(call, 3)) == wanted


async def test_without_nats_or_events_the_refusal_says_what_is_missing(
    door: Door, database: Database, nats: EmbeddedNats
) -> None:
    follow = pb.TimerEventStreamRequest(tenant_id="acme")
    async with serving_door(database, None) as bare:
        error = await refusal(bare.stub.StreamTimerEvents(follow, metadata=KEY))
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "NATS_URL" in error.details()
    async with database.connection() as connection:
        await installation.switch_events(database, connection, on=False)
    error = await refusal(door.stub.StreamTimerEvents(follow, metadata=KEY))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "minoots events on" in error.details()
    async with database.connection() as connection:
        await installation.switch_events(database, connection, on=True)
    await door.broker.js.delete_stream(door.broker.stream)
    assert (await refusal(door.stub.StreamTimerEvents(follow, metadata=KEY))).code() is grpc.StatusCode.UNAVAILABLE
    await nats.kill()
    assert (await refusal(door.stub.StreamTimerEvents(follow, metadata=KEY))).code() is grpc.StatusCode.UNAVAILABLE


# ---- readers that are slow, go, or are sent away ----


async def test_calls_share_a_consumer_and_leave_none_behind(door: Door) -> None:
    async def consumers() -> int:
        return (await door.broker.stream_info()).state.consumer_count

    async def none() -> bool:
        return await consumers() == 0

    async def one() -> bool:
        return await consumers() == 1

    calls = [await door.follow() for _ in range(5)]
    await eventually(one)
    for call in calls:
        call.cancel()
    await eventually(none)


async def test_a_server_that_goes_ends_its_streams_at_once_and_says_where_to_go_on(door: Door) -> None:
    call = await door.follow()
    await door.publish()
    await take(call, 1)
    door.stop.set()
    error = await asyncio.wait_for(refusal(call), 2)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "resume_token" in error.details()
    await asyncio.wait_for(door.serving, 3)


async def test_a_deadline_ends_a_stream(door: Door) -> None:
    call = door.stub.StreamTimerEvents(pb.TimerEventStreamRequest(tenant_id="acme"), metadata=KEY, timeout=0.5)
    assert (await refusal(call)).code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def read(follower: Follower, count: int, seconds: float = 15) -> list[Event | Notice]:
    found: list[Event | Notice] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            assert not follower.is_over, found
            found += await follower.take(1)
    return found


@pytest.fixture
async def tail(broker: Broker) -> AsyncIterator[Tail]:
    made = Tail(broker)
    yield made
    await made.close()


async def test_a_reader_that_is_overtaken_is_told_where_to_resume_and_resumes_there(broker: Broker) -> None:
    tail = Tail(broker, held_bytes=200_000)
    async with Follower(tail, "acme", Wanted(), None) as slow, Follower(tail, "acme", Wanted(), None) as fast:
        wanted: list[str] = []
        seen: list[str] = []
        for _ in range(10):
            wanted += [await publish(broker, "timer.fired", pad="x" * 1_000) for _ in range(50)]
            seen += [e.envelope.id for e in await read(fast, 50) if isinstance(e, Event)]
            if len(wanted) == 50:
                first = await read(slow, 1)
        assert seen == wanted
        (notice,) = await slow.take(1)
        assert isinstance(notice, Notice)
        assert (notice.reason, notice.resume_token) == ("too_slow", first[-1].resume_token)
        assert slow.is_over
        assert not await slow.take(1)
    async with Follower(tail, "acme", Wanted(), notice.resume_token) as again:
        rest = await read(again, 500 - len(first))
    assert [e.envelope.id for e in [*first, *rest] if isinstance(e, Event)] == wanted
    await tail.close()


async def test_a_reader_far_behind_reads_the_stream_while_it_grows_without_loss(broker: Broker) -> None:
    tail = Tail(broker, held_bytes=100_000)
    wanted = [await publish(broker, "timer.fired") for _ in range(300)]
    since = datetime.now(UTC) - timedelta(hours=1)
    async with Follower(tail, "acme", Wanted(), since) as follower:
        found = await read(follower, 1)
        for _ in range(6):
            wanted += [await publish(broker, "timer.fired") for _ in range(100)]
            await publish(broker, "timer.fired", "beta")
            found += await read(follower, 90)
        found += await read(follower, len(wanted) - len(found))
        assert [e.envelope.id for e in found if isinstance(e, Event)] == wanted
        wanted = [await publish(broker, "timer.fired") for _ in range(3)]
        assert [e.envelope.id for e in await read(follower, 3) if isinstance(e, Event)] == wanted
    await tail.close()


async def test_a_quiet_tenants_reader_is_not_told_of_others_lost_events(broker: Broker, tail: Tail) -> None:
    async with Follower(tail, "acme", Wanted(), None) as follower:
        assert not await follower.take(0.3)
        for _ in range(50):
            await publish(broker, "timer.fired", "beta")

        async def moved_on() -> bool:
            await follower.take(0.01)
            return bool(follower.token and follower.token.endswith("-50"))

        await eventually(moved_on)
        await broker.js.purge_stream(broker.stream)
        for consumer in await broker.js.consumers_info(broker.stream):
            await broker.js.delete_consumer(broker.stream, consumer.name)
        wanted = await publish(broker, "timer.fired")
        (event,) = await read(follower, 1)
        assert isinstance(event, Event)
        assert event.envelope.id == wanted
