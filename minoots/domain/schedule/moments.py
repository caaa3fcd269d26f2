"""Local dates and times as people write them in a schedule: without an offset, read in a zone."""

import re
from datetime import UTC, date, datetime

_LOCAL = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def is_local(text: str) -> bool:
    """Whether this is written as a local time: "2026-12-24T18:00:00", seconds and the time itself optional."""
    return _LOCAL.fullmatch(text.strip()) is not None


def read_local(text: str) -> datetime:
    """The naive datetime; a fraction of a second is cut off. ValueError when there is no such time on any clock."""
    found = _LOCAL.fullmatch(text.strip())
    try:
        if not found:
            raise ValueError
        day = date.fromisoformat(found[1])
        if day.year > 8_999:
            raise ValueError
        hour, minute, second = (int(part or 0) for part in found.groups()[1:4])
        return datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001 - a wall clock's
    except ValueError:
        raise ValueError(f'"{text}" names no local time there is; write "2030-01-31T09:00:00"') from None


def has_fraction(text: str) -> bool:
    found = _LOCAL.fullmatch(text.strip())
    return bool(found and found[5] and found[5].strip("0"))


def is_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def wall_of(local: datetime) -> int:
    """Seconds of a naive datetime, as `wall.py` counts them."""
    return int(local.replace(tzinfo=UTC, microsecond=0).timestamp())
