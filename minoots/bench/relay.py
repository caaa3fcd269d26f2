"""`relay`: a filled outbox, one relay: how fast it drains, and whether each timer's events keep order."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from minoots.bench import loading
from minoots.bench.figures import Result
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

MEASURED = "events a second, from the first message's instant in the stream to the empty outbox"
PATIENCE_S = 20.0
FETCHED = 1_000
# Of one timer: its events have to come out in this order.
EVENTS_A_TIMER = 10

# Rows come timer by timer in turn, so that a timer's events are far apart as well as in one batch.
_FILL = """
insert into minoots.outbox (tenant_id, timer_id, kind, data)
select 'bench-0', timer.id, 'timer.rescheduled',
       ('{"timer":{"id":"' || timer.id || '","version":' || version || ',"note":"' || repeat('x', $2::int)
        || '"}}')::json
  from generate_series(1, $3::int) version,
       (select minoots.uuid7() as id from generate_series(1, $1::int)) as timer
 order by version / 2, timer.id, version
"""


@dataclass(frozen=True, slots=True)
class RelayParameters:
    """`events` of about `size` bytes each, ten of each timer."""

    events: int = 200_000
    size: int = 1_024


class _Timer(msgspec.Struct):
    id: str
    version: int


class _Data(msgspec.Struct):
    timer: _Timer


class _Envelope(msgspec.Struct):
    id: str
    data: _Data


_envelope = msgspec.json.Decoder(_Envelope)


@dataclass(slots=True)
class _Read:
    """What the stream holds: how often each event, how many came before an earlier one of their timer, since when."""

    events: dict[str, int]
    disordered: int
    began_s: float


async def run(stage: Stage, parameters: RelayParameters) -> Result:
    """The relay alone, in a process of its own."""
    async with stage.installation() as made:
        stage.bar.step("filling the outbox")
        filled = await _fill(made, parameters)
        await loading.settle(made, "outbox")
        async with stage.roles(made, stage.groups("relay")) as processes:
            stage.bar.step("relaying", of=filled)
            with stage.sampler(processes) as sampler:
                ended_s = await _until_drained(stage, made, filled)
            left = await _left(made)
        stage.bar.step("reading the stream back", of=filled)
        read = await _read_back(stage, made)
        copies = sum(read.events.values())
        return Result(
            scenario="relay",
            parameters=asdict(parameters),
            roles=[process.name for process in processes],
            measured=MEASURED,
            counts={"events": filled, "published": copies, "left": left, "disordered": read.disordered},
            per_second=(filled - left) / (ended_s - read.began_s) if copies else None,
            processes=sampler.usage,
            lost=filled - left - len(read.events),
            duplicates=copies - len(read.events),
        )


async def _fill(made: Installation, parameters: RelayParameters) -> int:
    """How many rows there are."""
    timers = max(1, parameters.events // EVENTS_A_TIMER)
    around = len(json.dumps({"timer": {"id": "0" * 36, "version": 10, "note": ""}}, separators=(",", ":")))
    async with made.connection() as connection:
        await connection.execute(made.sql(_FILL), timers, max(0, parameters.size - around), EVENTS_A_TIMER, timeout=600)
        count: int = await connection.fetchval(made.sql("select count(*) from minoots.outbox"))
        return count


async def _until_drained(stage: Stage, made: Installation, filled: int) -> float:
    """The instant (seconds since 1970) at which the outbox was empty, or at which nothing had moved for long."""
    client = await nats.connect(made.servers.nats_url)
    try:
        js, done, moved_at = client.jetstream(), 0, time.monotonic()
        while done < filled and time.monotonic() - moved_at < PATIENCE_S:
            before = done
            try:
                done = (await js.stream_info(made.settings.broker.stream)).state.messages
            except NotFoundError:
                done = 0  # the relay makes the stream as it begins
            moved_at = time.monotonic() if done != before else moved_at
            stage.bar.at(done)
            await asyncio.sleep(0.05 if done < filled * 0.98 else 0.005)
    finally:
        await client.close()
    async with made.connection() as connection:
        # The last batch is in the stream; it leaves the outbox with the relay's commit.
        while await connection.fetchval(made.sql("select exists (select from minoots.outbox)")):
            if time.monotonic() - moved_at > PATIENCE_S:
                break
            await asyncio.sleep(0.005)
    return time.time()


async def _left(made: Installation) -> int:
    async with made.connection() as connection:
        count: int = await connection.fetchval(made.sql("select count(*) from minoots.outbox"), timeout=120)
        return count


async def _read_back(stage: Stage, made: Installation) -> _Read:
    newest: dict[str, int] = {}
    read = _Read({}, 0, 0.0)
    async for message in _messages(made):
        if not read.began_s:
            read.began_s = message.metadata.timestamp.timestamp()
        event = _envelope.decode(message.data)
        read.events[event.id] = read.events.get(event.id, 0) + 1
        timer = event.data.timer
        # An event that comes again is a repetition; one that comes after a later one of its timer is out of order.
        if timer.version < newest.get(timer.id, 0) and read.events[event.id] == 1:
            read.disordered += 1
        newest[timer.id] = max(newest.get(timer.id, 0), timer.version)
        if len(read.events) % FETCHED == 0:
            stage.bar.at(len(read.events))
    return read


async def _messages(made: Installation) -> AsyncIterator[Any]:
    """Everything on the installation's stream, in its order."""
    broker = made.settings.broker
    client = await nats.connect(made.servers.nats_url)
    try:
        js = client.jetstream()
        try:
            left = (await js.stream_info(broker.stream)).state.messages
        except NotFoundError:
            return
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True)
        consumer = await js.pull_subscribe(f"{broker.subject}.>", stream=broker.stream, config=config)
        while left > 0:
            fetched = await consumer.fetch(min(FETCHED, left), timeout=10)
            left -= len(fetched)
            for message in fetched:
                yield message
    finally:
        await client.close()
