"""The stream from a place on, message by message, through whatever happens to NATS in between."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from minoots.broker.events import Arrived, Reason, incarnation_of, read_marks, settle_place
from minoots.broker.jetstream import Broker
from minoots.broker.pull import ConsumerLost, PullConsumer
from minoots.errors import BrokerUnavailable

log = structlog.get_logger("minoots.events")

# What a NATS that is away, or comes back, looks like.
AWAY: Final = (nats.errors.Error, NotFoundError, BrokerUnavailable, ConsumerLost, TimeoutError, OSError)

_BACKOFF_S = (0.1, 2.0)
# How often a reader that is behind looks whether the stream has dropped what it has not read yet.
_OVERTAKEN_S = 1.0


@dataclass(frozen=True, slots=True)
class Break:
    """The stream is another one, or has dropped what was not read yet; it goes on after `sequence`."""

    reason: Reason
    incarnation: str
    sequence: int


class StreamReader:
    """Messages under these subjects in the order of the stream, each at least once, from where it was opened on.

    NATS may go, come back, or come back empty: the reader waits and goes on, with a Break where some may be missing.
    """

    def __init__(self, broker: Broker, filters: Sequence[str]) -> None:
        self._broker = broker
        self._filters = list(filters)
        # Which stream, by the instant of its making, and the next sequence of interest in it.
        self.incarnation: str | None = None
        self.place: int | None = None
        self._consumer: PullConsumer | None = None
        self._ready: deque[Arrived | Break] = deque()
        self._backoff_s = _BACKOFF_S[0]
        # Where messages were jumped over that may have been ours, until it was looked whether the stream dropped them.
        self._gap: int | None = None
        self._looked_at = 0.0
        self._left_at = 0.0

    async def open(self) -> None:
        """Be at the stream's end, or where the reader was; waits for NATS and its stream."""
        while self._consumer is None:
            try:
                await self._open()
            except AWAY:
                await self._rest()

    async def next(self) -> Arrived | Break:
        """The next message, whenever it comes."""
        while not self._ready:
            try:
                await self._read_on()
            except AWAY:
                await self._rest()
        return self._ready.popleft()

    async def close(self) -> None:
        """Let the consumer go; the place stays."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

    async def _rest(self) -> None:
        await self.close()
        await asyncio.sleep(self._backoff_s)
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S[1])

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
        self._ready.append(arrived(message, self.incarnation or ""))
        self.place = sequence + 1
        self._backoff_s = _BACKOFF_S[0]
        self._left_at = time.monotonic()

    async def _open(self) -> None:
        """A consumer at our place; the stream is looked at before and after, lest it was replaced in between."""
        while self._consumer is None:
            start = self._settle(await self._broker.stream_info())
            consumer = PullConsumer(self._broker, self._filters, start)
            try:
                await consumer.open()
                is_same = incarnation_of(await self._broker.stream_info()) == self.incarnation
            except BaseException:
                await consumer.close()
                raise
            if is_same:
                self._consumer = consumer
            else:
                await consumer.close()

    def _settle(self, info: StreamInfo) -> int:
        self.incarnation, place, reason = settle_place(info, self.incarnation, self.place)
        assert isinstance(place, int), "only a reader that begins at an instant has one"
        self.place = place
        if reason is not None:
            self._ready.append(Break(reason, self.incarnation, place - 1))
        self._gap, self._left_at = None, time.monotonic()
        return place

    async def _move_past_others(self) -> None:
        """Nothing came for a while: what the stream held before we asked was of others, so our place is after it."""
        info = await self._broker.stream_info()
        if self._gap is not None and self.place is not None:
            self._tell_if_overtaken(info, self.place)
        if self._consumer is not None and await self._consumer.has_read_all():
            self.place = info.state.last_seq + 1

    def _note_gap(self, sequence: int) -> None:
        """A reader that is behind and jumps over sequences: they are others' messages, or ours that were dropped."""
        if self._gap is None and self.place is not None and self.place < sequence:
            self._gap = self.place

    def _tell_if_overtaken(self, info: StreamInfo, sequence: int) -> None:
        """A full stream drops its oldest messages: a reader that is slower than that misses some, and is told."""
        if self._gap is not None and info.state.first_seq > self._gap:
            self._ready.append(Break("expired", self.incarnation or "", sequence - 1))
        self._gap, self._looked_at = None, time.monotonic()


def arrived(message: Msg, incarnation: str) -> Arrived:
    """The message with what decides who gets it."""
    place = message.metadata
    try:
        marks = read_marks(message.data)
    except (msgspec.DecodeError, RecursionError):
        log.warning("events.unreadable", subject=message.subject, sequence=place.sequence.stream)
        marks = None
    return Arrived(incarnation, place.sequence.stream, message.subject, message.data, place.timestamp, marks)
