"""RRULE as a local recurrence that starts looking wherever it is asked, not at DTSTART.

dateutil walks from DTSTART, which for an old rule costs more with every day; here the phase of INTERVAL is arithmetic,
so an instant in a thousand years costs what the first one does. What RFC 5545 leaves open is done as dateutil does it,
with which the tests compare: BYWEEKNO without BYDAY means the whole week, and DTSTART itself comes only when the rule
names it.
"""

import calendar
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime

from minoots.domain.schedule.calendar_days import DayFilter, start_of_week
from minoots.domain.schedule.lattice import UNITS, Lattice, choose
from minoots.domain.schedule.rrule_text import RuleText
from minoots.domain.schedule.steps import DAY_STEPS, MONTH_STEPS, Steps
from minoots.domain.schedule.wall import DayTimes, Times


def explicit(rule: RuleText, start: datetime) -> RuleText:
    """The same rule with what it takes from DTSTART written out."""
    frequency = rule.frequency
    if not (rule.by_week or rule.by_year_day or rule.by_month_day or rule.by_day):
        if frequency == "YEARLY":
            rule = replace(rule, by_month=rule.by_month or (start.month,), by_month_day=(start.day,))
        elif frequency == "MONTHLY":
            rule = replace(rule, by_month_day=(start.day,))
        elif frequency == "WEEKLY":
            rule = replace(rule, by_day=((0, start.weekday()),))
    if frequency not in UNITS and not rule.by_hour:
        rule = replace(rule, by_hour=(start.hour,))
    if frequency not in ("MINUTELY", "SECONDLY") and not rule.by_minute:
        rule = replace(rule, by_minute=(start.minute,))
    if frequency != "SECONDLY" and not rule.by_second:
        rule = replace(rule, by_second=(start.second,))
    return rule


class Recurrence:
    """A rule from DTSTART on, without COUNT and UNTIL."""

    def __init__(self, rule: RuleText, start: datetime) -> None:
        self.is_hourly = rule.frequency in UNITS and not rule.by_hour
        self._rule = rule = explicit(rule, start)
        self._filter = DayFilter(rule)
        self._start_day = start.toordinal()
        self._start_time = start.hour * 3600 + start.minute * 60 + start.second
        self._times: Times = DayTimes(
            rule.by_hour or range(24), rule.by_minute or range(60), rule.by_second or range(60)
        )
        self._lattice = Lattice(rule, start) if rule.frequency in UNITS else None

    def days(self, start: int, end: int, steps: Steps) -> Iterator[tuple[int, Times]]:
        start = max(start, self._start_day)
        for period in self._periods(start, end, steps):
            for day, times in self._days_of(period):
                if day >= end:
                    return
                if day == self._start_day:
                    times = times[bisect_left(times, self._start_time) :]
                if day >= start and times:
                    yield day, times

    def _days_of(self, period: Sequence[int]) -> Iterator[tuple[int, Times]]:
        kept = (day for day in period if self._filter.keeps(day))
        if self._lattice:
            lattice = self._lattice
            yield from ((day, lattice.times(day)) for day in kept)
        elif self._rule.by_position:
            yield from choose(list(kept), self._times, self._rule.by_position)
        else:
            yield from ((day, self._times) for day in kept)

    def _periods(self, start: int, end: int, steps: Steps) -> Iterator[Sequence[int]]:
        """The days of each period that INTERVAL takes, from the one that holds `start` to `end`, in order."""
        if start >= end:
            return iter(())
        if self._rule.frequency == "YEARLY":
            return self._years(start, end, steps)
        if self._rule.frequency == "MONTHLY":
            return self._months(start, end, steps)
        if self._rule.frequency == "WEEKLY":
            return self._weeks(start, end, steps)
        return self._single_days(start, end, steps)

    def _years(self, start: int, end: int, steps: Steps) -> Iterator[Sequence[int]]:
        months = self._rule.by_month or range(1, 13)
        begin, first, last = (date.fromordinal(day).year for day in (self._start_day, start, end - 1))
        for year in range(_next(begin, self._rule.interval, first), last + 1, self._rule.interval):
            steps.spend(MONTH_STEPS * len(months))
            yield [day for month in months for day in _days_of_month(year, month)]

    def _months(self, start: int, end: int, steps: Steps) -> Iterator[Sequence[int]]:
        begin, first, last = (_month_number(day) for day in (self._start_day, start, end - 1))
        for number in range(_next(begin, self._rule.interval, first), last + 1, self._rule.interval):
            year, month = divmod(number, 12)
            is_named = not self._rule.by_month or month + 1 in self._rule.by_month
            steps.spend(MONTH_STEPS if is_named else 1)
            if is_named:
                yield _days_of_month(year, month + 1)

    def _weeks(self, start: int, end: int, steps: Steps) -> Iterator[Sequence[int]]:
        begin, first = (start_of_week(day, self._rule.week_start) for day in (self._start_day, start))
        step = 7 * self._rule.interval
        for week in range(_next(begin, step, first), end, step):
            steps.spend(3 * DAY_STEPS)
            yield range(week, week + 7)

    def _single_days(self, start: int, end: int, steps: Steps) -> Iterator[Sequence[int]]:
        day = self._next_day(start, end)
        while day < end:
            steps.spend(DAY_STEPS)
            yield (day,)
            day = self._next_day(day + 1, end)

    def _next_day(self, day: int, end: int) -> int:
        """The first day from `day` on that INTERVAL takes, past months that are not named; `end` when none is left."""
        while day < end:
            day = self._lattice.next_day(day) if self._lattice else _next(self._start_day, self._rule.interval, day)
            if day >= end:
                break
            found = date.fromordinal(day)
            if not self._rule.by_month or found.month in self._rule.by_month:
                return day
            later = [month for month in self._rule.by_month if month > found.month]
            year, month = (found.year, later[0]) if later else (found.year + 1, self._rule.by_month[0])
            day = date(year, month, 1).toordinal()
        return end


def _next(begin: int, step: int, least: int) -> int:
    """The first of begin, begin + step, … that is at least `least`."""
    return begin + max(0, -(-(least - begin) // step)) * step


def _month_number(day: int) -> int:
    found = date.fromordinal(day)
    return found.year * 12 + found.month - 1


def _days_of_month(year: int, month: int) -> range:
    begin = date(year, month, 1).toordinal()
    return range(begin, begin + calendar.monthrange(year, month)[1])
