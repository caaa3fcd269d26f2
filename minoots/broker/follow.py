"""One reader's way through a tenant's events: from the stream while it is behind, else from the shared tail."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from nats.js.errors import NotFoundError

from minoots.broker.channel import Channel, Entry
from minoots.broker.events import Arrived, Event, Marks, Notice, Wanted, parse_token, settle_place
from minoots.broker.reading import AWAY, Break
from minoots.broker.span import read_span
from minoots.broker.tail import Tail
from minoots.errors import BrokerUnavailable

# What a reader takes at a time ends with the event that fills it.
TAKE_BYTES: Final = 16 << 10
# How many entries are looked through before others have their turn.
_LOOK: Final = 500
# Between looks at a NATS that is away, or a stream whose end the tail has not reached.
_PAUSE_S: Final = 0.3


class Follower:
    """One tenant's events, in the order of the stream, each at least once.

        async with Follower(tail, "demo", Wanted(["timer.*"]), resume=None) as follower:
            while not follower.is_over: found = await follower.take(15)

    Making one raises MalformedRequest; entering it TooManyFollow, or BrokerUnavailable without NATS or its stream. In
    the block nothing is missed: events published from then on are read, however late. `resume` is a token that an event
    carried (what came after it), an instant (what was published since), or None (what comes from now on). NATS may go,
    come back, or come back empty: the reader waits and goes on, with a Notice where events may be missing.

    It holds no more than a piece of 64 KiB and an event while it is behind, and nothing when it is not: then it has a
    place among what the tail holds. Is it still there when the tail has to let that go, it is told where to resume
    (too_slow), and is over.
    """

    def __init__(self, tail: Tail, tenant_id: str, wanted: Wanted, resume: str | datetime | None) -> None:
        self._tail = tail
        self._tenant_id = tenant_id
        self._wanted = wanted
        self._filters = [f"{tail.broker.subject}.{tenant_id}.{topic}" for topic in wanted.topics or (">",)]
        self._incarnation: str | None = None
        self._place: int | datetime | None = resume if isinstance(resume, datetime) else None
        self._not_before = resume if isinstance(resume, datetime) else None
        if isinstance(resume, str):
            self._incarnation, self._place = parse_token(resume)
        self._notice: Notice | None = None
        self._channel: Channel | None = None
        # The number of the next entry in the channel; None while behind.
        self._next: int | None = None
        self._news = asyncio.Event()
        self.is_over = False

    async def __aenter__(self) -> Self:
        self._channel = self._tail.join(self._tenant_id)
        try:
            info = await self._tail.broker.stream_info()
        except BaseException as error:
            self._leave()
            if isinstance(error, NotFoundError):
                raise BrokerUnavailable("NATS has no stream of events at the moment; try again in a moment") from None
            if isinstance(error, AWAY):
                raise BrokerUnavailable from error
            raise
        self._incarnation, self._place, reason = settle_place(info, self._incarnation, self._place)
        if reason is not None:
            self._notice = Notice(reason, self.token or "")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.forget(self._news)
            self._tail.leave(self._tenant_id, channel)

    @property
    def token(self) -> str | None:
        """Where to resume: what comes after it was not taken yet. None while it is an instant that is not found yet."""
        return f"{self._incarnation}-{self._place - 1}" if isinstance(self._place, int) else None

    def end(self) -> None:
        """Whoever waits in `take` waits no longer."""
        self.is_over = True
        self._news.set()

    async def take(self, patience_s: float) -> Sequence[Event | Notice]:
        """What comes next, up to about 16 KiB or 64 KiB; nothing when that takes longer, or the reader is over."""
        if self._tail.is_closing:
            self.is_over = True
        if self.is_over:
            return ()
        if self._notice is not None:
            notice, self._notice = self._notice, None
            return (notice,)
        assert self._channel is not None, "take inside of the block"
        if self._next is None and isinstance(self._place, int) and self._incarnation is not None:
            self._next = self._channel.number_after(self._incarnation, self._place - 1)
        if self._next is None:
            return await self._take_from_stream()
        if self._next >= self._channel.end:
            await self._wait(self._channel, patience_s)
        return self._take_held(self._channel, self._next)

    async def _wait(self, channel: Channel, patience_s: float) -> None:
        self._news.clear()
        channel.notify(self._news)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._news.wait()
        channel.forget(self._news)

    def _take_held(self, channel: Channel, number: int) -> Sequence[Event | Notice]:
        """From what the tail holds; never waits."""
        if number < channel.first:
            self.is_over = True
            return (Notice("too_slow", self.token or ""),)
        found: list[Event | Notice] = []
        size = 0
        last = min(channel.end, number + _LOOK)
        while number < last and size < TAKE_BYTES:
            if one := self._pass(channel[number]):
                found.append(one)
                size += len(one.body) if isinstance(one, Event) else 0
            number += 1
        self._next = number
        if number == channel.end and self._incarnation == channel.incarnation and isinstance(self._place, int):
            # All that the tail has read was others', or not wanted.
            self._place = max(self._place, self._tail.position + 1)
        return found

    def _pass(self, entry: Entry) -> Event | Notice | None:
        """Move our place past this entry; None when there is nothing to show of it."""
        what = entry.what
        if isinstance(what, Break):
            self._incarnation, self._place = what.incarnation, what.sequence + 1
            return Notice(what.reason, self.token or "")
        # What is below our place was read from the stream.
        if not isinstance(self._place, int) or what.sequence < self._place:
            return None
        self._place = what.sequence + 1
        return self._event(entry.kind, what)

    async def _take_from_stream(self) -> Sequence[Event | Notice]:
        """A piece of the stream. NATS away is waited for."""
        try:
            async with self._tail.behind:
                span = await read_span(self._tail.broker, self._filters, self._incarnation, self._place)
        except AWAY:
            await self._pause()
            return ()
        found: list[Event | Notice] = []
        self._incarnation = span.incarnation
        if span.reason is not None and isinstance(span.begins_at, int):
            found.append(Notice(span.reason, f"{span.incarnation}-{span.begins_at - 1}"))
        prefix = f"{self._tail.broker.subject}.{self._tenant_id}."
        for message in span.messages:
            if event := self._event(message.subject.removeprefix(prefix), message):
                found.append(event)
        self._place = span.next_sequence
        if not span.messages:
            # At the stream's end, and the tail is not there yet.
            await self._pause()
        return found

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PAUSE_S):
                await self._news.wait()

    def _event(self, kind: str, what: Arrived) -> Event | None:
        """None for what this reader does not want, or is older than it asked for."""
        marks: Marks | None = what.marks
        if marks is None or not self._wanted.takes(kind, marks):
            return None
        if self._not_before is not None and what.at < self._not_before:
            return None
        return Event(kind, f"{what.incarnation}-{what.sequence}", what.body)
