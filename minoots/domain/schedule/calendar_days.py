"""Which days an RRULE's BY parts leave over, asked day by day."""

import calendar
from datetime import date

from minoots.domain.schedule.rrule_text import RuleText


class DayFilter:
    """BYMONTH, BYWEEKNO, BYYEARDAY, BYMONTHDAY and BYDAY, as limits on a period's days.

    RFC 5545's table tells of expanding and limiting; both come to: of all days of the period, those that every given
    part allows. What DTSTART implies has been made explicit in the rule before.
    """

    def __init__(self, rule: RuleText) -> None:
        self._rule = rule
        self._plain = {day for n, day in rule.by_day if n == 0}
        self._numbered = {(n, day) for n, day in rule.by_day if n}
        # A numbered weekday counts within the month, or within the year for YEARLY without BYMONTH.
        self._counts_in_year = rule.frequency == "YEARLY" and not rule.by_month

    def keeps(self, ordinal: int) -> bool:
        rule, day = self._rule, date.fromordinal(ordinal)
        return (
            (not rule.by_month or day.month in rule.by_month)
            and (not rule.by_month_day or self._keeps_month_day(day))
            and (not rule.by_day or self._keeps_weekday(day))
            and (not rule.by_year_day or self._keeps_year_day(day))
            and (not rule.by_week or self._keeps_week(ordinal))
        )

    def _keeps_month_day(self, day: date) -> bool:
        by = self._rule.by_month_day
        return day.day in by or (by[0] < 0 and day.day - _month_length(day) - 1 in by)

    def _keeps_weekday(self, day: date) -> bool:
        weekday = day.weekday()
        if weekday in self._plain:
            return True
        if not self._numbered:
            return False
        if self._counts_in_year:
            place, length = day.timetuple().tm_yday, _year_length(day.year)
        else:
            place, length = day.day, _month_length(day)
        from_end = (length - place) // 7 + 1
        return ((place - 1) // 7 + 1, weekday) in self._numbered or (-from_end, weekday) in self._numbered

    def _keeps_year_day(self, day: date) -> bool:
        place = day.timetuple().tm_yday
        return place in self._rule.by_year_day or place - _year_length(day.year) - 1 in self._rule.by_year_day

    def _keeps_week(self, ordinal: int) -> bool:
        number, weeks = week_of(ordinal, self._rule.week_start)
        return number in self._rule.by_week or number - weeks - 1 in self._rule.by_week


def week_of(ordinal: int, week_start: int) -> tuple[int, int]:
    """The number of a day's week and how many its year has: week 1 is the first with four days in the year."""
    year = date.fromordinal(start_of_week(ordinal, week_start) + 3).year
    first = start_of_week(date(year, 1, 4).toordinal(), week_start)
    following = start_of_week(date(year + 1, 1, 4).toordinal(), week_start)
    return (ordinal - first) // 7 + 1, (following - first) // 7


def start_of_week(ordinal: int, week_start: int) -> int:
    return ordinal - (ordinal - 1 - week_start) % 7


def _month_length(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _year_length(year: int) -> int:
    return 366 if calendar.isleap(year) else 365
