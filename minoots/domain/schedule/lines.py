"""Sources of instants on the UTC line, in microseconds since the Unix epoch: fixed distances, and lists.

A source (`Line`) gives instants in (after, until] from wherever it is asked, and counts them without walking.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from minoots.domain.schedule.steps import Steps
from minoots.domain.schedule.zones import END_OF_TIME, START_OF_TIME, Zone

SECOND = 1_000_000
EARLIEST, LATEST = START_OF_TIME * SECOND, END_OF_TIME * SECOND - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Line(Protocol):
    """A source of instants, ascending and unique."""

    zone: Zone
    """Where its local times are; for UTC's own line, where they are shown and dates are excluded."""

    def between(self, after: int, until: int, steps: Steps) -> Iterator[int]:
        """The instants t with after < t <= until; raises ScheduleTooSparse when the steps are used up."""

    def count(self, after: int, until: int, steps: Steps) -> int:
        """How many these are."""


class EveryLine:
    """Each instant that is `phase` modulo `every`, both in microseconds, whatever clocks do."""

    def __init__(self, every: int, phase: int, zone: Zone) -> None:
        self._every, self._phase, self.zone = every, phase % every, zone

    def between(self, after: int, until: int, steps: Steps) -> Iterator[int]:
        first = after - (after - self._phase) % self._every + self._every
        yield from range(first, until + 1, self._every)

    def count(self, after: int, until: int, steps: Steps) -> int:
        return (until - self._phase) // self._every - (after - self._phase) // self._every


class ListLine:
    """The instants of a list."""

    def __init__(self, instants: Sequence[int], zone: Zone) -> None:
        self._instants, self.zone = sorted(set(instants)), zone

    def between(self, after: int, until: int, steps: Steps) -> Iterator[int]:
        yield from self._instants[bisect_right(self._instants, after) : bisect_right(self._instants, until)]

    def count(self, after: int, until: int, steps: Steps) -> int:
        return bisect_right(self._instants, until) - bisect_right(self._instants, after)


def to_micros(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def to_instant(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)
