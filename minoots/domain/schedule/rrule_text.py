"""RRULE text (RFC 5545, section 3.3.10) read into its parts."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_PARTS = (
    "FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY", "BYHOUR",
    "BYMINUTE", "BYSECOND", "BYSETPOS",
)  # fmt: skip
# Smallest and largest value; a third True allows counting from the end, -1 being the last.
_RANGES = {
    "BYMONTH": (1, 12, False),
    "BYWEEKNO": (1, 53, True),
    "BYYEARDAY": (1, 366, True),
    "BYMONTHDAY": (1, 31, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    # RFC 5545 knows a second 60; UTC as computers keep it does not.
    "BYSECOND": (0, 59, False),
    "BYSETPOS": (1, 366, True),
}
# Where RFC 5545 says MUST NOT.
_FORBIDDEN = {
    "BYWEEKNO": ("MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"),
    "BYYEARDAY": ("MONTHLY", "WEEKLY", "DAILY"),
    "BYMONTHDAY": ("WEEKLY",),
}
_BYDAY = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)
_NUMBER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_UNTIL = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", re.ASCII)
_CHARACTERS = 4_000
_MOST_INTERVAL = 1_000_000


@dataclass(frozen=True, slots=True)
class Until:
    """The last moment of a rule: an instant (`is_utc`) or a wall; a bare date means the whole day."""

    moment: datetime
    is_utc: bool


@dataclass(frozen=True, slots=True)
class RuleText:
    """The parts of an RRULE; empty where it has none. Weekdays are (n, 0 for Monday … 6), n 0 for every one."""

    frequency: str
    interval: int = 1
    count: int | None = None
    until: Until | None = None
    week_start: int = 0
    by_month: tuple[int, ...] = ()
    by_week: tuple[int, ...] = ()
    by_year_day: tuple[int, ...] = ()
    by_month_day: tuple[int, ...] = ()
    by_day: tuple[tuple[int, int], ...] = ()
    by_hour: tuple[int, ...] = ()
    by_minute: tuple[int, ...] = ()
    by_second: tuple[int, ...] = ()
    by_position: tuple[int, ...] = ()


def read_rrule(text: str) -> RuleText:
    """The parts of a rule; ValueError says what is wrong with the first that is."""
    if len(text) > _CHARACTERS:
        raise ValueError(f"an RRULE has at most {_CHARACTERS} characters")
    parts: dict[str, str] = {}
    for piece in text.strip().upper().removeprefix("RRULE:").strip(";").split(";"):
        name, equals, value = (side.strip() for side in piece.partition("="))
        if not equals or not value:
            raise ValueError(f'"{piece}" is no part of an RRULE: write it as "FREQ=WEEKLY;BYDAY=MO,FR"')
        if name not in _PARTS:
            raise ValueError(f"{name} is no part of an RRULE that is known here; there are {', '.join(_PARTS)}")
        if name in parts:
            raise ValueError(f"{name} is given twice")
        parts[name] = value
    rule = RuleText(**{_FIELD[name]: _READ[name](name, value) for name, value in _with_frequency(parts).items()})
    _check(rule, parts)
    return rule


def _with_frequency(parts: dict[str, str]) -> dict[str, str]:
    if "FREQ" not in parts:
        raise ValueError(f"FREQ is required: one of {', '.join(FREQUENCIES)}")
    return parts


def _check(rule: RuleText, parts: dict[str, str]) -> None:
    for name, frequencies in _FORBIDDEN.items():
        if name in parts and rule.frequency in frequencies:
            raise ValueError(f"{name} does not go with FREQ={rule.frequency} (RFC 5545, section 3.3.10)")
    if any(n for n, _ in rule.by_day) and (rule.frequency not in ("YEARLY", "MONTHLY") or rule.by_week):
        raise ValueError(
            "a weekday with a number, as 2MO, goes with FREQ=MONTHLY or YEARLY only, and not with BYWEEKNO"
        )
    if rule.frequency == "MONTHLY" and any(abs(n) > 5 for n, _ in rule.by_day):
        raise ValueError("a month has at most five of each weekday: BYDAY goes from -5 to 5")
    if rule.count is not None and rule.until is not None:
        raise ValueError("COUNT and UNTIL exclude each other; give one of them")
    if rule.by_position and not any(name.startswith("BY") and name != "BYSETPOS" for name in parts):
        raise ValueError("BYSETPOS chooses among what another BY part gives, as in BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1")


def _frequency(name: str, value: str) -> str:
    if value not in FREQUENCIES:
        raise ValueError(f"FREQ={value} is none of {', '.join(FREQUENCIES)}")
    return value


def _positive(name: str, value: str) -> int:
    number = _number(name, value)
    most = _MOST_INTERVAL if name == "INTERVAL" else 999_999_999
    if not 1 <= number <= most:
        raise ValueError(f"{name} is a whole number from 1 to {most}, not {value}")
    return number


def _weekday(name: str, value: str) -> int:
    if value not in WEEKDAYS:
        raise ValueError(f"{name}={value} is none of {', '.join(WEEKDAYS)}")
    return WEEKDAYS.index(value)


def _numbers(name: str, value: str) -> tuple[int, ...]:
    low, high, is_signed = _RANGES[name]
    numbers = tuple(_number(name, one) for one in value.split(","))
    for number in numbers:
        if not (low <= number <= high or (is_signed and low <= -number <= high)):
            bounds = f"{low} to {high}" + (f" or -{high} to -{low}" if is_signed else "")
            raise ValueError(f"{name} goes from {bounds}, and {number} does not")
    return tuple(sorted(set(numbers)))


def _weekdays(name: str, value: str) -> tuple[tuple[int, int], ...]:
    days = []
    for one in value.split(","):
        found = _BYDAY.fullmatch(one.strip())
        if not found or (found[1] and not 1 <= abs(int(found[1])) <= 53):
            raise ValueError(f'"{one}" is no weekday of an RRULE: write MO, or 2MO for the second, -1FR for the last')
        days.append((int(found[1] or 0), WEEKDAYS.index(found[2])))
    return tuple(sorted(set(days)))


def _until(name: str, value: str) -> Until:
    found = _UNTIL.fullmatch(value)
    try:
        if not found:
            raise ValueError
        day = date(int(found[1]), int(found[2]), int(found[3]))
        clock = (int(found[4]), int(found[5]), int(found[6])) if found[4] else (23, 59, 59)
        moment = datetime(day.year, day.month, day.day, *clock)  # noqa: DTZ001 - is_utc says which clock
    except ValueError:
        raise ValueError(
            f"UNTIL={value} is no moment: write 20301231T235959Z, 20301231T235959 (local) or 20301231 (the whole day)"
        ) from None
    return Until(moment, found[7] == "Z")


def _number(name: str, value: str) -> int:
    if not _NUMBER.fullmatch(value.strip()):
        raise ValueError(f'{name} takes whole numbers, and "{value}" is none')
    return int(value)


_FIELD = dict(
    zip(
        _PARTS,
        (
            "frequency", "interval", "count", "until", "week_start", "by_month", "by_week", "by_year_day",
            "by_month_day", "by_day", "by_hour", "by_minute", "by_second", "by_position",
        ),
        strict=True,
    )
)  # fmt: skip
_READ: dict[str, Callable[[str, str], Any]] = dict.fromkeys(_RANGES, _numbers) | {
    "FREQ": _frequency,
    "INTERVAL": _positive,
    "COUNT": _positive,
    "UNTIL": _until,
    "WKST": _weekday,
    "BYDAY": _weekdays,
}
