"""Cron expressions: parsed by cronsim, walked here day by day on the local calendar.

Five fields, or six with the seconds first. As in Debian's cron, a day matches when day of month OR day of week matches
if both are restricted, and when both match if one of them starts with `*`. cronsim's own iteration is not used: it
steps through instants one by one, where counting those of a year has to take a step a day.
"""

import calendar
import re
from collections.abc import Iterator
from datetime import date, datetime

from cronsim import CronSim, CronSimError

from minoots.domain.schedule.steps import MONTH_STEPS, Steps
from minoots.domain.schedule.wall import DayTimes, Times

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FIELDS = {
    "second": "seconds go from 0 to 59",
    "minute": "minutes go from 0 to 59",
    "hour": "hours go from 0 to 23",
    "day-of-month": "days of the month go from 1 to 31, or L for the last",
    "month": "months go from 1 to 12, or JAN to DEC",
    "day-of-week": "days of the week go from 0 to 7 (both Sunday), or SUN to SAT; MON#2 is the second, FRIL the last",
}
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
# cronsim takes "5L" and "5-7", not "FRIL" and "FRI-SUN".
_LAST_NAMED = re.compile(rf"\b({'|'.join(_DAYS)})L\b")
_TO_SUNDAY = re.compile(r"-SUN\b")
# Nothing new can come after a whole cycle of the Gregorian calendar.
_CYCLE = 400 * 12
_CHARACTERS = 1_000
# cronsim wants a date to begin at, also when it only parses.
_ANY_DATE = datetime(2000, 1, 1)  # noqa: DTZ001 - a wall clock's


class CronRule:
    """A cron expression as a local recurrence."""

    def __init__(self, parsed: CronSim, is_hourly: bool) -> None:
        self._months = parsed.months
        self._times = DayTimes(parsed.hours, parsed.minutes, parsed.seconds)
        self._is_match = parsed.match_day
        self.is_hourly = is_hourly

    def days(self, start: int, end: int, steps: Steps) -> Iterator[tuple[int, Times]]:
        if start >= end:
            return
        first = date.fromordinal(start)
        year, month, idle = first.year, first.month, 0
        while idle <= _CYCLE and date(year, month, 1).toordinal() < end:
            idle += 1
            if month in self._months:
                begin = date(year, month, 1).toordinal()
                length = calendar.monthrange(year, month)[1]
                for day in self._matching(max(begin, start), min(begin + length, end), steps):
                    idle = 0
                    yield day, self._times
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _matching(self, start: int, end: int, steps: Steps) -> Iterator[int]:
        steps.spend(MONTH_STEPS)
        return (day for day in range(start, end) if self._is_match(date.fromordinal(day)))


def parse_cron(text: str) -> CronRule:
    """The rule of an expression; ValueError says what to write."""
    if len(text) > _CHARACTERS:
        raise ValueError(f"a cron expression has at most {_CHARACTERS} characters")
    written = text.strip()
    if written.startswith("@"):
        if written.lower() not in NICKNAMES:
            raise ValueError(f'"{written}" is none of {", ".join(NICKNAMES)}')
        written = NICKNAMES[written.lower()]
    fields = written.upper().split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"a cron expression has 5 fields (minute, hour, day of month, month, day of week), or 6 with the seconds "
            f'first; this one has {len(fields)}: write for example "0 9 * * MON-FRI"'
        )
    fields[-1] = _TO_SUNDAY.sub("-7", _LAST_NAMED.sub(lambda found: f"{_DAYS.index(found[1])}L", fields[-1]))
    return CronRule(_parse_fields(fields), fields[-4].startswith("*"))


def _parse_fields(fields: list[str]) -> CronSim:
    try:
        return CronSim(" ".join(fields), _ANY_DATE)
    except CronSimError as wrong:
        name = str(wrong).removeprefix("Bad ")
    field = fields[len(fields) - 6 + list(_FIELDS).index(name)]
    if name == "day-of-month" and _is_readable([*fields[:-2], "*", fields[-1]]):
        raise ValueError(f'the day of the month "{field}" never comes in the months "{fields[-2]}"')
    hint = "; ? is written * here" if "?" in field else ""
    raise ValueError(f'"{field}" is no {name.replace("-", " ")} of a cron expression: {_FIELDS[name]}{hint}')


def _is_readable(fields: list[str]) -> bool:
    try:
        CronSim(" ".join(fields), _ANY_DATE)
    except CronSimError:
        return False
    return True
