"""What a local recurrence is: for each day, the times at which it comes; no zones, no instants.

Walls are whole seconds since 1970-01-01T00:00:00 of a clock that knows no changes; days are ordinals as
`date.toordinal` counts them.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Protocol, overload

from minoots.domain.schedule.steps import Steps

DAY = 86_400
EPOCH_DAY = date(1970, 1, 1).toordinal()

Times = Sequence[int]


class Rule(Protocol):
    """A local recurrence."""

    is_hourly: bool
    """Whether it means elapsed time (every hour or part of one) rather than an hour of the day."""

    def days(self, start: int, end: int, steps: Steps) -> Iterator[tuple[int, Times]]:
        """The days in [start, end) with their times: ascending, no day empty; times in seconds of the day, ascending.

        Raises ScheduleTooSparse when the steps are used up.
        """


class DayTimes(Sequence[int]):
    """Every combination of hours, minutes and seconds, as seconds of the day, without storing up to 86,400 of them."""

    __slots__ = ("_hours", "_inner", "_length", "_minutes", "_seconds")

    def __init__(self, hours: Iterable[int], minutes: Iterable[int], seconds: Iterable[int]) -> None:
        self._hours, self._minutes, self._seconds = (tuple(sorted(set(part))) for part in (hours, minutes, seconds))
        self._inner = len(self._minutes) * len(self._seconds)
        self._length = len(self._hours) * self._inner

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        hour, rest = divmod(index % self._length, self._inner)
        minute, second = divmod(rest, len(self._seconds))
        return self._hours[hour] * 3600 + self._minutes[minute] * 60 + self._seconds[second]

    def __iter__(self) -> Iterator[int]:
        return self.since(0)

    def since(self, least: int) -> Iterator[int]:
        """The times from `least` on, without a look at the hours before."""
        for hour in self._hours[bisect_left(self._hours, least // 3600) :]:
            for minute in self._minutes:
                start = hour * 3600 + minute * 60
                for second in self._seconds:
                    if start + second >= least:
                        yield start + second


class Listed:
    """A list of walls as a rule."""

    is_hourly = False

    def __init__(self, listed: Iterable[int]) -> None:
        self._times: dict[int, list[int]] = {}
        for wall in sorted(set(listed)):
            self._times.setdefault(day_of(wall), []).append(wall % DAY)

    def days(self, start: int, end: int, steps: Steps) -> Iterator[tuple[int, Times]]:
        yield from ((day, times) for day, times in self._times.items() if start <= day < end)


def day_of(wall: int) -> int:
    """The ordinal of a wall's day."""
    return wall // DAY + EPOCH_DAY


def walls(rule: Rule, start: int, end: int, steps: Steps) -> Iterator[int]:
    """The walls of a rule in [start, end), ascending."""
    for day, times in rule.days(day_of(start), day_of(end - 1) + 1, steps):
        midnight = (day - EPOCH_DAY) * DAY
        for time in times if midnight >= start else _since(times, start - midnight):
            if midnight + time >= end:
                return
            yield midnight + time


def count_walls(rule: Rule, start: int, end: int, steps: Steps) -> int:
    """How many walls a rule has in [start, end); a step a day, however many walls the day has."""
    total = 0
    for day, times in rule.days(day_of(start), day_of(end - 1) + 1, steps):
        steps.spend()
        midnight = (day - EPOCH_DAY) * DAY
        total += len(times)
        if midnight < start:
            total -= bisect_left(times, start - midnight)
        if midnight + DAY > end:
            total -= len(times) - bisect_left(times, end - midnight)
    return total


def _since(times: Times, least: int) -> Iterable[int]:
    return times.since(least) if isinstance(times, DayTimes) else times[bisect_left(times, least) :]


def first_wall(rule: Rule, start: int, end: int, steps: Steps) -> int | None:
    """The first wall of a rule in [start, end)."""
    return next(walls(rule, start, end, steps), None)
