"""What a schedule leaves out: whole local dates, and the instants of other lines."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property

from minoots.domain.schedule.lines import SECOND, Line
from minoots.domain.schedule.steps import Steps
from minoots.domain.schedule.wall import DAY, EPOCH_DAY

# How many instants of an excluded line are passed one by one before it is asked anew at the instant in question.
_PASSED = 32


class WithoutDates:
    """A line without the instants that are on these dates in its zone; passes over a date at once."""

    def __init__(self, line: Line, dates: Sequence[date]) -> None:
        self.inner, self.zone = line, line.zone
        self._dates = sorted(dates)

    def between(self, after: int, until: int, steps: Steps) -> Iterator[int]:
        for low, high in self._open(after, until):
            yield from self.inner.between(low, high, steps)

    def count(self, after: int, until: int, steps: Steps) -> int:
        return sum(self.inner.count(low, high, steps) for low, high in self._open(after, until))

    def _open(self, after: int, until: int) -> Iterator[tuple[int, int]]:
        """What is left of (after, until], in pieces."""
        if after >= until:
            return
        for start, end in self._closed[max(0, bisect_left(self._closed, (after, after)) - 1) :]:
            # Closed is [start, end), in microseconds, and open pieces are (low, high].
            if start - 1 > after:
                yield after, min(start - 1, until)
            after = max(after, end - 1)
            if after >= until:
                return
        yield after, until

    @cached_property
    def _closed(self) -> list[tuple[int, int]]:
        """The instants [start, end) of the dates; a date is in pieces where a clock goes back over midnight."""
        pieces = []
        for day in self._dates:
            begin = (day.toordinal() - EPOCH_DAY) * DAY
            for span in self.zone.spans(begin - 2 * DAY, begin + 3 * DAY):
                start, end = max(span.start, begin - span.offset), min(span.end, begin + DAY - span.offset)
                if start < end:
                    pieces.append((start * SECOND, end * SECOND))
        return sorted(pieces)


class Excluded:
    """Asks of ascending instants whether a line has them too."""

    def __init__(self, line: Line, until: int, steps: Steps) -> None:
        self._line, self._until, self._steps = line, until, steps
        self._ahead: Iterator[int] = iter(())
        self._next: int | None = None
        self._is_open = True

    def has(self, instant: int) -> bool:
        for _ in range(_PASSED):
            if self._next is None or self._next >= instant:
                break
            self._advance(1)
        if self._is_open and (self._next is None or self._next < instant):
            self._ahead = self._line.between(instant - 1, self._until, self._steps)
            self._advance(_PASSED)
        return self._next == instant

    def _advance(self, cost: int) -> None:
        self._steps.spend(cost)
        self._next = next(self._ahead, None)
        self._is_open = self._next is not None
