"""The latest events of one tenant, held once for all who follow it."""

import asyncio
from dataclasses import dataclass

from minoots.broker.events import Arrived
from minoots.broker.reading import Break

# What an event takes in memory beside its body.
_ENTRY_BYTES = 600


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it arrived, or a break in the stream; `kind` as in `timer.fired`, empty for a break."""

    kind: str
    what: Arrived | Break

    @property
    def size(self) -> int:
        """Bytes that holding it takes."""
        return _ENTRY_BYTES + (len(self.what.body) if isinstance(self.what, Arrived) else 0)


class Channel:
    """Entries by their number, which counts up from 0 and is never given again; the oldest go when memory is short.

    In the stream `incarnation`, everything of the tenant that the tail has read after the sequence `floor` is among
    the entries from the number `base` on.
    """

    def __init__(self, incarnation: str | None, floor: int) -> None:
        self.incarnation = incarnation
        self.floor = floor
        self.base = 0
        self.first = 0
        self.end = 0
        self.readers = 0
        self._entries: dict[int, Entry] = {}
        self._waiting: set[asyncio.Event] = set()

    def __getitem__(self, number: int) -> Entry:
        return self._entries[number]

    def append(self, entry: Entry) -> None:
        """Hold it, and wake who waits."""
        self._entries[self.end] = entry
        self.end += 1
        self.wake()

    def drop_oldest(self) -> int:
        """Forget the oldest entry; the bytes that became free."""
        entry = self._entries.pop(self.first)
        if self.first >= self.base:
            self.floor = entry.what.sequence
            self.base = self.first + 1
        self.first += 1
        return entry.size

    def begin_anew(self, incarnation: str, floor: int) -> None:
        """From here on what comes follows on `floor`, not on what was before."""
        self.incarnation, self.floor, self.base = incarnation, floor, self.end

    def number_after(self, incarnation: str, sequence: int) -> int | None:
        """Where a reader goes on that has seen all up to this sequence; None when it is not all held here."""
        if incarnation != self.incarnation or sequence < self.floor:
            return None
        low, high = self.base, self.end
        while low < high:
            middle = (low + high) // 2
            if self._entries[middle].what.sequence <= sequence:
                low = middle + 1
            else:
                high = middle
        return low

    def notify(self, news: asyncio.Event) -> None:
        """Set it, once, when something comes."""
        self._waiting.add(news)

    def forget(self, news: asyncio.Event) -> None:
        """It waits no longer."""
        self._waiting.discard(news)

    def wake(self) -> None:
        """Everybody who waits."""
        for news in self._waiting:
            news.set()
        self._waiting.clear()
