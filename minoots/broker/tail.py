"""The end of the stream, read once for everybody in this process who follows events or waits for a timer's end.

A thousand readers with a consumer each cost NATS a thousand deliveries of one event, and this process a thousand
subscriptions. So one consumer reads what is published, what belongs to a tenant that somebody follows is held in memory
up to a bound, the oldest first out, and each reader has only a place in it. Who is behind that reads pieces of the
stream on its own (`follow.py`).
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import structlog

from minoots.broker.channel import Channel, Entry
from minoots.broker.events import Arrived
from minoots.broker.jetstream import Broker
from minoots.broker.reading import Break, StreamReader
from minoots.domain.places import Places

log = structlog.get_logger("minoots.events")

# What all channels of a process hold together.
HELD_BYTES: Final = 32 << 20
# How long the consumer stays when nobody needs it any more.
LINGER_S: Final = 2.0
# How many readers that are behind read from the stream at once.
CATCHING_UP: Final = 16
# A timer may have ended with these.
ENDINGS: Final = frozenset({"timer.settled", "timer.failed", "timer.cancelled", "timer.fired"})
_FAILED_S: Final = 1.0


class Tail:
    """Reads while somebody needs it. Channels are by tenant; `expect` is for single timers, without a channel."""

    def __init__(self, broker: Broker, places: Places | None = None, held_bytes: int = HELD_BYTES) -> None:
        self.broker = broker
        self.places = places or Places()
        self.behind = asyncio.Semaphore(CATCHING_UP)
        self._held_bytes = held_bytes
        self._prefix = f"{broker.subject}."
        # Which stream is read, and the sequence up to which all of it has been; unknown before it is open.
        self._incarnation: str | None = None
        self.position = -1
        self._reading: asyncio.Task[None] | None = None
        self._needed = 0
        self._channels: dict[str, Channel] = {}
        # Whose oldest entry goes next, and what is held.
        self._order: deque[Channel] = deque()
        self._held = 0
        self._expected: dict[str, set[Callable[[], None]]] = {}
        self.is_closing = False

    async def close(self) -> None:
        """Read no more."""
        self.end()
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def end(self) -> None:
        """The server goes away: everybody who follows is woken to say so."""
        self.is_closing = True
        for channel in self._channels.values():
            channel.wake()

    def join(self, tenant_id: str) -> Channel:
        """The tenant's channel; `leave` it afterwards. Raises TooManyFollow."""
        self.places.take(tenant_id)
        self._need()
        channel = self._channels.get(tenant_id)
        if channel is None:
            channel = self._channels[tenant_id] = Channel(self._incarnation, self.position)
        channel.readers += 1
        return channel

    def leave(self, tenant_id: str, channel: Channel) -> None:
        """One reader less; what a channel without readers still holds goes in its turn."""
        self.places.give_back(tenant_id)
        channel.readers -= 1
        if not channel.readers:
            del self._channels[tenant_id]
        self._need_less()

    @contextlib.contextmanager
    def expecting(self, timer_id: str, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` whenever an event comes with which this timer may have ended; it may come twice, or not."""
        self._need()
        self._expected.setdefault(timer_id, set()).add(wake)
        try:
            yield
        finally:
            wakes = self._expected[timer_id]
            wakes.discard(wake)
            if not wakes:
                del self._expected[timer_id]
            self._need_less()

    def _need(self) -> None:
        self._needed += 1
        if self._reading is None and not self.is_closing:
            self._reading = asyncio.create_task(self._read(), name="tail")

    def _need_less(self) -> None:
        self._needed -= 1
        if not self._needed:
            asyncio.get_running_loop().call_later(LINGER_S, self._rest)

    def _rest(self) -> None:
        if not self._needed and self._reading is not None:
            self._reading.cancel()
            self._reading = self._incarnation = None

    async def _read(self) -> None:
        reader = StreamReader(self.broker, [f"{self._prefix}>"])
        try:
            await reader.open()
            assert reader.incarnation is not None, "an open reader knows its stream"
            assert reader.place is not None, "and its place"
            self._incarnation, self.position = reader.incarnation, reader.place - 1
            for channel in self._channels.values():
                channel.begin_anew(self._incarnation, self.position)
                channel.wake()
            while True:
                try:
                    found = await reader.next()
                except Exception:
                    # What nobody expected: told, and read again from where it was.
                    log.exception("events.tail_failed")
                    await reader.close()
                    await asyncio.sleep(_FAILED_S)
                else:
                    self._take(found)
        finally:
            await reader.close()

    def _take(self, found: Arrived | Break) -> None:
        self._incarnation, self.position = found.incarnation, found.sequence
        if isinstance(found, Break):
            for channel in self._channels.values():
                self._hold(channel, Entry("", found))
                channel.begin_anew(found.incarnation, found.sequence)
            return
        tenant_id, _, kind = found.subject.removeprefix(self._prefix).partition(".")
        if found.marks is None:
            return
        if tenant_id in self._channels:
            self._hold(self._channels[tenant_id], Entry(kind, found))
        if kind in ENDINGS and found.marks.subject in self._expected:
            for wake in tuple(self._expected[found.marks.subject]):
                wake()

    def _hold(self, channel: Channel, entry: Entry) -> None:
        channel.append(entry)
        self._order.append(channel)
        self._held += entry.size
        while self._held > self._held_bytes:
            self._held -= self._order.popleft().drop_oldest()
