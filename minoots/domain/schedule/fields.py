"""Reading a JSON object field by field, keeping every finding with its pointer."""

import difflib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from minoots.domain.duration import parse_duration, parse_instant
from minoots.domain.json_text import escape_step
from minoots.errors import Finding

T = TypeVar("T")

LAST_YEAR = 8_999


class Fields:
    """An object's fields; what is wrong goes to `findings`, so that all of it is told at once. Null is absent."""

    def __init__(self, values: dict[str, Any], pointer: str, findings: list[Finding]) -> None:
        self._values, self.pointer, self.findings = values, pointer, findings

    def take(self, name: str, read: Callable[[Any], T]) -> T | None:
        """The field as `read` makes it; None when it is absent, or wrong (ValueError becomes a finding)."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as wrong:
            self.refuse(name, str(wrong))
            return None

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def refuse(self, name: str, detail: str) -> None:
        self.findings.append(Finding(f"{self.pointer}/{escape_step(name)}", detail))

    def refuse_unknown(self, known: Sequence[str], what: str) -> None:
        for name in self._values:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else f": it has {', '.join(known)}"
                self.refuse(name, f'{what} has no field "{name[:80]}"{hint}')


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("this has to be text")
    return value


def read_choice(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in words:
            raise ValueError(f"this is one of {', '.join(words)}")
        return str(value)

    return read


def read_whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"this is a whole number from {low:,} to {high:,}")
        return value

    return read


def read_duration(least: timedelta, most: timedelta | None = None) -> Callable[[Any], timedelta]:
    """A reader of durations as `domain/duration.py` has them, within bounds."""

    def read(value: Any) -> timedelta:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError('a duration is written as "30s", "1h30m", "PT30S" or a number of milliseconds')
        duration = timedelta(milliseconds=parse_duration(value))
        if duration < least:
            raise ValueError(f"this is at least {_say(least)}")
        if most is not None and duration > most:
            raise ValueError(f"this is at most {_say(most)}")
        return duration

    return read


def read_instant(value: Any) -> datetime:
    instant = parse_instant(read_text(value))
    if instant.year > LAST_YEAR:
        raise ValueError("this has to be before the year 9000")
    return instant


def _say(duration: timedelta) -> str:
    for unit, word in (
        (timedelta(hours=1), "hour"),
        (timedelta(minutes=1), "minute"),
        (timedelta(seconds=1), "second"),
    ):
        if not duration % unit:
            count = duration // unit
            return f"{count} {word}{'' if count == 1 else 's'}"
    return f"{duration // timedelta(milliseconds=1)} milliseconds"
