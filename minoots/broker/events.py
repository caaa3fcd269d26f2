"""Reading a tenant's events from the stream, from a place on, through whatever happens to NATS in between."""

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from minoots.broker.jetstream import Broker
from minoots.broker.pull import ConsumerLost, PullConsumer
from minoots.domain.event import KINDS
from minoots.errors import BrokerUnavailable, MalformedRequest

log = structlog.get_logger("minoots.events")

Reason = Literal["stream_replaced", "expired"]

FAMILIES: Final = tuple(dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in KINDS))

_TOKEN = re.compile(r"([0-9a-z]{1,16})-(\d{1,19})", re.ASCII)
_BACKOFF_S = (0.1, 2.0)
# How often a reader that is behind looks whether the stream has dropped what it has not read yet.
_OVERTAKEN_S = 1.0
_AWAY = (nats.errors.Error, BrokerUnavailable, ConsumerLost, TimeoutError, OSError)


class Envelope(msgspec.Struct, frozen=True):
    """A CloudEvents 1.0 envelope as the relay publishes it; `data` is `{timer, firing?, delivery?, reason?}`."""

    id: str
    type: str
    source: str
    time: str
    data: dict[str, Any]
    subject: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `body` is the envelope as it was published, `kind` as in `timer.fired`."""

    kind: str
    resume_token: str
    envelope: Envelope
    body: bytes


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the stream itself; reading goes on by itself after `resume_token`.

    `stream_replaced`: NATS lost its data and the stream is another one. `expired`: events were dropped from the stream
    before this reader came to them.
    """

    reason: Reason
    resume_token: str


class EventReader:
    """One tenant's events, in the order of the stream, each at least once.

        async with EventReader(broker, "demo", ["timer.*"], resume=None) as reader:
            async for event in reader: ...

    Making one raises MalformedRequest; entering it BrokerUnavailable, while there is no NATS or no stream. In the
    block nothing is missed: events published from then on are read, however late. `resume` is a token that an event
    carried (what came after it), an instant (what was published since), or None (what comes from now on). NATS may go,
    come back, or come back empty: the reader waits and goes on, with a Notice where events may be missing.
    """

    def __init__(self, broker: Broker, tenant_id: str, topics: Sequence[str], resume: str | datetime | None) -> None:
        prefix = f"{broker.subject}.{tenant_id}."
        self._broker = broker
        self._prefix = prefix
        self._filters = [prefix + kind for kind in choose_topics(topics)]
        # Which stream, by the instant of its making, and the next sequence of interest in it.
        self._incarnation: str | None = None
        self._place: int | datetime | None = resume if isinstance(resume, datetime) else None
        self._not_before = self._place if isinstance(self._place, datetime) else None
        if isinstance(resume, str):
            self._incarnation, self._place = parse_token(resume)
        self._consumer: PullConsumer | None = None
        self._ready: deque[Event | Notice] = deque()
        self._backoff_s = _BACKOFF_S[0]
        # Where events were jumped over that may have been ours, until it was looked whether the stream dropped them.
        self._gap: int | None = None
        self._looked_at = 0.0
        self._left_at = 0.0

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except NotFoundError:
            raise BrokerUnavailable("NATS has no stream of events at the moment; try again in a moment") from None
        except _AWAY as away:
            await self._drop()
            raise BrokerUnavailable from away
        except BaseException:
            await self._drop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._drop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event | Notice:
        """Raises BrokerUnavailable only when the connection was closed for good."""
        while not self._ready:
            try:
                await self._read_on()
            except _AWAY as away:
                await self._drop()
                if self._broker.client.is_closed:
                    raise BrokerUnavailable from away
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S[1])
        return self._ready.popleft()

    async def _read_on(self) -> None:
        """One message, if one comes. Our place moves last: what fails before that is read again."""
        if self._consumer is None:
            await self._open()
            return
        waited_s = time.monotonic() - self._left_at
        message = await self._consumer.next()
        if message is None:
            await self._move_past_others()
            return
        sequence = message.metadata.sequence.stream
        if message.metadata.num_pending or waited_s > _OVERTAKEN_S:
            self._note_gap(sequence)
        if self._gap is not None and time.monotonic() - self._looked_at > _OVERTAKEN_S:
            self._tell_if_overtaken(await self._broker.stream_info(), sequence)
        if self._not_before is None or message.metadata.timestamp >= self._not_before:
            self._ready.extend(self._events_in(message))
        self._place = sequence + 1
        self._backoff_s = _BACKOFF_S[0]
        self._left_at = time.monotonic()

    def _events_in(self, message: Msg) -> list[Event]:
        """None for what somebody else published and nobody can read."""
        sequence = message.metadata.sequence.stream
        try:
            # json, not msgspec: it reads numbers beyond the doubles, which plain SQL can write into a timer.
            envelope = msgspec.convert(json.loads(message.data), Envelope)
        except (ValueError, RecursionError):
            log.warning("events.unreadable", subject=message.subject, sequence=sequence)
            return []
        return [Event(message.subject.removeprefix(self._prefix), self._token(sequence), envelope, message.data)]

    async def _open(self) -> None:
        """A consumer at our place; the stream is looked at before and after, lest it was replaced in between."""
        while self._consumer is None:
            info = await self._broker.stream_info()
            start = self._settle_place(info)
            consumer = PullConsumer(self._broker, self._filters, start)
            try:
                await consumer.open()
                is_same = incarnation_of(await self._broker.stream_info()) == self._incarnation
            except BaseException:
                await consumer.close()
                raise
            if is_same:
                self._consumer = consumer
            else:
                await consumer.close()

    def _settle_place(self, info: StreamInfo) -> int | datetime:
        """Where to start in this stream, with a notice where that is not where we would have gone on."""
        incarnation = incarnation_of(info)
        first, last = max(info.state.first_seq, 1), info.state.last_seq
        is_other = self._incarnation not in (None, incarnation)
        place: int | datetime = last + 1 if self._place is None else self._place
        reason: Reason | None = None
        # A place past the end is of a stream that has lost its end: a power cut can do that to NATS.
        if is_other or (isinstance(place, int) and place > last + 1):
            reason, place = "stream_replaced", first
        elif isinstance(place, int) and place < first:
            reason, place = "expired", first
        self._incarnation, self._place = incarnation, place
        if reason is not None:
            self._ready.append(Notice(reason, self._token(first - 1)))
        self._gap, self._left_at = None, time.monotonic()
        return place

    async def _move_past_others(self) -> None:
        """Nothing came for a while: what the stream held before we asked was of others, so our place is after it."""
        info = await self._broker.stream_info()
        if self._gap is not None and isinstance(self._place, int):
            self._tell_if_overtaken(info, self._place)
        if self._consumer is not None and await self._consumer.has_read_all():
            self._place = info.state.last_seq + 1

    def _note_gap(self, sequence: int) -> None:
        """A reader that is behind and jumps over sequences: they are others' events, or ours that were dropped."""
        if self._gap is None and isinstance(self._place, int) and self._place < sequence:
            self._gap = self._place

    def _tell_if_overtaken(self, info: StreamInfo, sequence: int) -> None:
        """A full stream drops its oldest events: a reader that is slower than that misses some, and is told."""
        if self._gap is not None and info.state.first_seq > self._gap:
            self._ready.append(Notice("expired", self._token(sequence - 1)))
        self._gap, self._looked_at = None, time.monotonic()

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

    def _token(self, sequence: int) -> str:
        return f"{self._incarnation}-{sequence}"


def choose_topics(topics: Sequence[str]) -> list[str]:
    """The last parts of the subjects, without overlaps, which NATS refuses; raises MalformedRequest."""
    unknown = [topic for topic in topics if topic not in KINDS and topic not in FAMILIES]
    if unknown:
        raise MalformedRequest(f"there is no topic {unknown[0]!r}; there are {', '.join((*FAMILIES, *KINDS))}")
    wanted = dict.fromkeys(topics)
    return [t for t in wanted if t in FAMILIES or f"{t.partition('.')[0]}.*" not in wanted] or [">"]


def parse_token(text: str) -> tuple[str, int]:
    """The incarnation and the next sequence; raises MalformedRequest for what is no token of ours."""
    found = _TOKEN.fullmatch(text)
    if found is None or int(found[2]) >= 2**63:
        raise MalformedRequest("this is no resume token; use one that an event carried, as it was")
    return found[1], int(found[2]) + 1


def incarnation_of(info: StreamInfo) -> str:
    """The stream by the instant it was made, in microseconds since 1970 to the base of 36."""
    assert info.created is not None, "NATS did not say when the stream was made"
    number = round(info.created.timestamp() * 1_000_000)
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
