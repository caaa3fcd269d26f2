"""Durations and instants as people write them."""

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from functools import lru_cache

from minoots.domain.limits import DURATION_MS

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SHORT = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])", re.ASCII)
# ISO 8601 durations without years and months, which have no length of their own.
_ISO = re.compile(
    r"P(?:(?P<w>\d+(?:\.\d+)?)W)?(?:(?P<d>\d+(?:\.\d+)?)D)?"
    r"(?:T(?:(?P<h>\d+(?:\.\d+)?)H)?(?:(?P<m>\d+(?:\.\d+)?)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:([Zz])|([+-])(\d\d):(\d\d))", re.ASCII
)


def parse_duration(value: str | int | float) -> int:
    """Milliseconds of `"30s"`, `"1h30m"`, `"PT30S"` or a number of milliseconds; ValueError says what to write."""
    if isinstance(value, str):
        ms = _parse_text(value.strip())
    elif value != value or value in (float("inf"), float("-inf")) or value != int(value):
        raise ValueError("a duration in milliseconds is a whole number")
    else:
        ms = int(value)
    if ms <= 0:
        raise ValueError("a duration must be longer than 0")
    if ms > DURATION_MS:
        raise ValueError("the duration is too long: a timer must fire before the year 9000")
    return ms


# The same few are asked for again and again.
@lru_cache(maxsize=1024)
def _parse_text(text: str) -> int:
    if len(text) > 100:
        raise ValueError('a duration is written as "30s", "1h30m", "PT30S" or a number of milliseconds')
    if re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError(
            f'"{text}" has no unit: write "{text}s" for seconds, or {text} without quotes for milliseconds'
        )
    if _SHORT.fullmatch(text):
        parts = _PART.findall(text)
        if len({unit for _, unit in parts}) == len(parts):
            return _total(parts)
    iso = _ISO.fullmatch(text.upper())
    if iso and any(iso.groups()) and not text.upper().endswith("T"):
        return _total([(number, unit) for unit, number in iso.groupdict().items() if number])
    raise ValueError('a duration is written as "30s", "1h30m", "PT30S" or a number of milliseconds')


def _total(parts: list[tuple[str, str]]) -> int:
    """Whole milliseconds; what is finer is rounded up, so that "0.1ms" is not nothing."""
    total = sum((Fraction(number) * _UNITS[unit] for number, unit in parts), Fraction())
    return min(math.ceil(total), DURATION_MS + 1)


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant with its offset, as aware UTC; cut to microseconds. ValueError says what to write."""
    found = _INSTANT.fullmatch(text.strip())
    if not found:
        raise ValueError(
            'an instant is written with its offset, as "2030-01-31T09:00:00Z" or "2030-01-31T09:00:00+01:00"'
        )
    year, month, day, hour, minute, second = (int(g) for g in found.groups()[:6])
    micro = int((found[7] or "0").ljust(9, "0")[:6])
    try:
        offset = UTC
        if found[9]:
            hours, minutes = int(found[10]), int(found[11])
            if hours > 23 or minutes > 59:
                raise ValueError
            span = timedelta(hours=hours, minutes=minutes)
            offset = timezone(span if found[9] == "+" else -span)
        return datetime(year, month, day, hour, minute, second, micro, tzinfo=offset).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f'"{text}" names no instant there is') from None


def format_instant(instant: datetime) -> str:
    """As `minoots.iso` writes it: UTC, microseconds, Z."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
