"""Frequencies below a day (HOURLY, MINUTELY, SECONDLY), and BYSETPOS."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from math import gcd

from minoots.domain.schedule.rrule_text import RuleText
from minoots.domain.schedule.wall import DAY, EPOCH_DAY, Times

UNITS = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
# So many phases together have at most a day's seconds, for there are INTERVAL of them and each has every INTERVAL-th.
_KNOWN = 400


class Lattice:
    """Every INTERVAL-th hour, minute or second since DTSTART on the local clock, and the times within each.

    A day's times depend on its phase alone: how far it is from DTSTART, modulo INTERVAL.
    """

    def __init__(self, rule: RuleText, start: datetime) -> None:
        self._unit = UNITS[rule.frequency]
        self._interval = rule.interval
        seconds = (start.toordinal() - EPOCH_DAY) * DAY + start.hour * 3600 + start.minute * 60 + start.second
        self._start = seconds // self._unit
        self._hours = frozenset(rule.by_hour or range(24))
        self._minutes = frozenset(rule.by_minute or range(60))
        self._seconds = frozenset(rule.by_second or range(60))
        self._is_plain = self._unit == 1 and not (rule.by_hour or rule.by_minute or rule.by_second)
        self._within = self._offsets(rule)
        self._known: dict[int, Times] = {}
        if not self._can_come():
            raise ValueError(
                "this rule never comes: INTERVAL never meets the hours, minutes and seconds that BY parts name"
            )

    def times(self, day: int) -> Times:
        """The seconds of a day at which the rule comes, ascending."""
        units = DAY // self._unit
        phase = ((day - EPOCH_DAY) * units - self._start) % self._interval
        first = -phase % self._interval
        if self._is_plain:
            return range(first, DAY, self._interval)
        if phase not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            taken = (unit * self._unit for unit in range(first, units, self._interval))
            self._known[phase] = tuple(at + one for at in taken if self._is_named(at) for one in self._within)
        return self._known[phase]

    def next_day(self, day: int) -> int:
        """The first day from `day` on that INTERVAL touches."""
        units = DAY // self._unit
        phase = ((day - EPOCH_DAY) * units - self._start) % self._interval
        return day + (-phase % self._interval) // units

    def _offsets(self, rule: RuleText) -> tuple[int, ...]:
        """The seconds within one unit, after BYSETPOS."""
        minutes = sorted(self._minutes) if self._unit == 3600 else [0]
        seconds = sorted(self._seconds) if self._unit > 1 else [0]
        within = tuple(minute * 60 + second for minute in minutes for second in seconds)
        if rule.by_position:
            within = tuple(time for _, times in choose([0], within, rule.by_position) for time in times)
        return within

    def _is_named(self, second: int) -> bool:
        """Whether the BY parts that are coarser than the unit, or its own, name this second of the day."""
        if second // 3600 not in self._hours:
            return False
        if self._unit < 3600 and second // 60 % 60 not in self._minutes:
            return False
        return self._unit > 1 or second % 60 in self._seconds

    def _can_come(self) -> bool:
        """Over all days INTERVAL meets exactly the units of a day that lie apart by what both counts share."""
        units = DAY // self._unit
        shared = gcd(self._interval, units)
        met = range(self._start % shared, units, shared)
        return bool(self._within) and any(self._is_named(unit * self._unit) for unit in met)


def choose(days: Sequence[int], times: Times, positions: Sequence[int]) -> Iterator[tuple[int, Times]]:
    """BYSETPOS: of all (day, time) of a period in order, the n-th, -1 being the last."""
    total, width = len(days) * len(times), len(times)
    places = {position - 1 if position > 0 else total + position for position in positions}
    chosen: dict[int, list[int]] = {}
    for place in sorted(place for place in places if 0 <= place < total):
        chosen.setdefault(days[place // width], []).append(times[place % width])
    yield from chosen.items()
