"""The instants of a schedule: following one another, counted between two, or none at all."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from minoots.domain.duration import format_instant
from minoots.domain.schedule.exclusion import Excluded
from minoots.domain.schedule.lines import EARLIEST, LATEST, SECOND, to_instant, to_micros
from minoots.domain.schedule.schedule import Schedule
from minoots.domain.schedule.steps import ScheduleTooSparse, Steps

# What cannot be counted by arithmetic is walked, and not further than this in one go (1 to 2 s on one core).
MOST_WALKED = 1_000_000
# A count takes a few steps a day, so this is about a thousand years of days.
_COUNT_BUDGET = 4_000_000
# How many instants are looked at in one go for the last ones of a time.
_LOOK = 20_000
_ALL_EXCLUDED = "exclude leaves nothing of this schedule over: exclude less, or change the specs"


@dataclass(frozen=True, slots=True)
class Run:
    """The instants t with after < t <= until: how many (at least, unless `is_exact`), the first, and the last few."""

    count: int
    first: datetime | None
    kept: list[datetime]
    is_exact: bool = True


def following(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Nominal instants strictly after `after`: ascending, unique, aware UTC; ends when nothing can follow.

    Raises ScheduleTooSparse when the next instant cannot be found within the budget of steps.
    """
    for micros in instants(schedule, to_micros(after), LATEST):
        yield to_instant(micros)


def run_between(schedule: Schedule, after: datetime, until: datetime, keep: int) -> Run:
    """Count the instants in (after, until] without walking them, where that can be done, and give the last `keep`.

    Fixed distances and a single local rule are counted by arithmetic and by days, excluded dates included; several
    specs, and excluded instants or specs, are walked up to MOST_WALKED. Raises ScheduleTooSparse as `following`.
    """
    low, high = bounds(schedule, to_micros(after), to_micros(until))
    first = next(instants(schedule, low, high), None)
    if first is None:
        return Run(0, None, [])
    if len(schedule.lines) == 1 and not schedule.excluded:
        count, is_exact = schedule.lines[0].count(low, high, Steps(_COUNT_BUDGET)), True
    else:
        walked = instants(schedule, low, high)
        count = sum(1 for _ in islice(walked, MOST_WALKED))
        is_exact = next(walked, None) is None
    return Run(count, to_instant(first), [to_instant(one) for one in _last(schedule, low, high, keep)], is_exact)


def never_fires(schedule: Schedule, after: datetime) -> str | None:
    """A sentence that says why nothing can follow after this instant; None when something does."""
    try:
        if next(following(schedule, after), None) is not None:
            return None
        if schedule.end_at is not None and schedule.end_at <= after:
            return f"the schedule ended at {format_instant(schedule.end_at)}: give a later endAt, or none"
        low, _ = bounds(schedule, to_micros(after), LATEST)
        firsts = [next(line.between(low, LATEST, Steps()), None) for line in schedule.lines]
        if schedule.excluded and any(first is not None for first in firsts):
            return _ALL_EXCLUDED
    except ScheduleTooSparse:
        if schedule.excluded:
            return _ALL_EXCLUDED
        return "the next instant of this schedule cannot be found: its conditions hardly ever meet; give fewer of them"
    found = [first for first in firsts if first is not None]
    if schedule.end_at is not None and found:
        ends, comes = format_instant(schedule.end_at), format_instant(to_instant(min(found)))
        return f"the schedule ends at {ends}, before it first comes, at {comes}: give a later endAt, or none"
    return (
        f"nothing of this schedule comes after {format_instant(after)}: its instants are past, or its days never come"
    )


def instants(schedule: Schedule, after: int, until: int) -> Iterator[int]:
    """The union of the lines in (after, until], without what is excluded; in microseconds since the epoch."""
    low, high = bounds(schedule, after, until)
    if low >= high:
        return
    steps = Steps()
    excluded = [Excluded(line, high, steps) for line in schedule.excluded]
    last = None
    for micros in heapq.merge(*(line.between(low, high, steps) for line in schedule.lines)):
        if micros == last:
            continue
        last = micros
        # What is passed over costs steps where it is compared.
        if not any(line.has(micros) for line in excluded):
            steps.refill()
            yield micros


def bounds(schedule: Schedule, after: int, until: int) -> tuple[int, int]:
    """(after, until] cut to the schedule's own [startAt, endAt], and to the years that there are."""
    low, high = max(after, EARLIEST), min(until, LATEST)
    if schedule.start_at is not None:
        low = max(low, to_micros(schedule.start_at) - 1)
    if schedule.end_at is not None:
        high = min(high, to_micros(schedule.end_at))
    return low, max(low, high)


def _last(schedule: Schedule, low: int, high: int, keep: int) -> list[int]:
    """The last `keep` instants in (low, high]: looks back over ever longer times, halving one that holds too many."""
    short, long, width = 0, None, 60 * SECOND
    while keep > 0:
        begin = max(low, high - width)
        found = list(islice(instants(schedule, begin, high), _LOOK + 1))
        if len(found) > _LOOK:
            long = width
        elif len(found) >= keep or begin == low:
            return found[-keep:]
        else:
            short = width
        width = short * 4 if long is None else (short + long) // 2
    return []
