"""Time zones: offsets and their changes, from the `tzdata` package.

The package's data is taken on purpose, not the machine's `/usr/share/zoneinfo`: nodes that run the same packages
compute the same instants whatever their machines hold, and a container without zone files works. A new release of the
zones is an upgrade of that package, on all nodes.

All computing is in whole seconds: `utc` since the Unix epoch, `wall` as a clock of the zone shows it, read as UTC.
A change at `utc` T from offset a to b skips the walls [T+a, T+b) when b > a, and repeats [T+b, T+a) when b < a.
"""

import difflib
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

DAY = 86_400
# Instants end before the year 9000 (`domain/timer.py`); the seconds of 9000-01-01T00:00:00Z.
END_OF_TIME = 221_845_392_000
# Nothing is computed before 1900-01-01T00:00:00Z, when few places had zones.
START_OF_TIME = -2_208_988_800


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a zone's offset: from `utc` on it is `after`; offsets in seconds east of UTC."""

    utc: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Span:
    """A time of one offset, `start` <= utc < `end`; `opening` and `closing` are the changes at its ends."""

    start: int
    end: int
    offset: int
    opening: Change | None
    closing: Change | None


class Zone:
    """An IANA time zone."""

    def __init__(self, name: str, rules: ZoneInfo) -> None:
        self.name = name
        self._rules = rules

    def offset(self, utc: int) -> int:
        return _offset(self._rules, utc)

    def spans(self, start: int, end: int) -> list[Span]:
        """The spans that touch [start, end), ascending and whole at the inner ends; the outermost are cut there.

        Changes up to two days outside are named too, for no change moves a clock by more than a day.
        """
        changes = self.changes(start - 2 * DAY, end + 2 * DAY)
        if not changes:
            return [Span(start - 2 * DAY, end + 2 * DAY, self.offset(start), None, None)]
        spans = [Span(start - 2 * DAY, changes[0].utc, changes[0].before, None, changes[0])]
        for opening, closing in zip(changes, [*changes[1:], None], strict=True):
            upto = closing.utc if closing else end + 2 * DAY
            spans.append(Span(opening.utc, upto, opening.after, opening, closing))
        return [span for span in spans if span.start < end and span.end > start]

    def changes(self, start: int, end: int) -> list[Change]:
        """The changes with start < utc < end."""
        years = range(_year(start), _year(end) + 1)
        return [change for year in years for change in _changes(self.name, year) if start < change.utc < end]


def find_zone(name: str) -> Zone:
    """The zone of an IANA name; ValueError names close matches."""
    if name not in zone_names():
        close = {
            folded: known for known in zone_names() for folded in (known.lower(), known.rpartition("/")[2].lower())
        }
        asked = name.lower().replace(" ", "_")
        found = list(dict.fromkeys(close[match] for match in difflib.get_close_matches(asked, close, n=3, cutoff=0.6)))
        hint = f"; did you mean {' or '.join(found)}?" if found else ': write an IANA name such as "Europe/Berlin"'
        raise ValueError(f'there is no time zone "{name[:80]}"{hint}')
    return _zone(name)


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every name that the `tzdata` package knows."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


@lru_cache(maxsize=1024)
def _zone(name: str) -> Zone:
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return Zone(name, ZoneInfo.from_file(file, key=name))


@lru_cache(maxsize=16_384)
def _changes(name: str, year: int) -> Sequence[Change]:
    """The changes within a year of UTC, found by looking at each day's start and then halving.

    Two changes within one day would hide each other; no zone has that, and a test looks at them all.
    """
    rules = _zone(name)._rules
    start, end = _year_start(year), _year_start(year + 1)
    found: list[Change] = []
    before = _offset(rules, start - 1)
    low = start - 1
    for high in (*range(start + DAY - 1, end - 1, DAY), end - 1):
        after = _offset(rules, high)
        if after != before:
            found.append(_halve(rules, low, high, before, after))
        low, before = high, after
    return tuple(found)


def _halve(rules: ZoneInfo, low: int, high: int, before: int, after: int) -> Change:
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(rules, middle) == before:
            low = middle
        else:
            high = middle
    return Change(high, before, after)


def _offset(rules: ZoneInfo, utc: int) -> int:
    offset = datetime.fromtimestamp(utc, rules).utcoffset()
    assert offset is not None
    return offset.days * DAY + offset.seconds


def _year(utc: int) -> int:
    return datetime.fromtimestamp(min(max(utc, START_OF_TIME), END_OF_TIME), UTC).year


def _year_start(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
