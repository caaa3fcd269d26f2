"""How long what ended is kept, by the status it ended with, and the text that says so."""

from dataclasses import dataclass, fields
from datetime import timedelta

from minoots.domain.duration import parse_duration

LONGEST = timedelta(days=36_500)
SHORTEST = timedelta(seconds=1)

# The tenant that stands for all that have no rule of their own; no tenant can have this name.
EVERYONE = "*"


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep for how long after its end; None: for ever. `fired` is a timer that had no actions."""

    settled: timedelta | None = timedelta(days=30)
    failed: timedelta | None = timedelta(days=90)
    cancelled: timedelta | None = timedelta(days=30)
    fired: timedelta | None = timedelta(days=30)


STATUSES = tuple(field.name for field in fields(Retention))


def parse_retention(text: str) -> dict[str, timedelta | None]:
    """`30d` or `off` for every status, `settled=30d,failed=off` for some: what it says of each status it names.

    Raises ValueError with what to write.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 1 and "=" not in text:
        return dict.fromkeys(STATUSES, parse_keep(text))
    said: dict[str, timedelta | None] = {}
    for part in parts:
        status, equals, keep = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f'write "{part}" as status=time, as in settled=30d,failed=90d; or one time for all')
        if status not in STATUSES:
            raise ValueError(f'"{status}" is no status that a timer ends with; there are {", ".join(STATUSES)}')
        if status in said:
            raise ValueError(f"{status} is there twice")
        said[status] = parse_keep(keep)
    return said


def parse_keep(text: str) -> timedelta | None:
    """`30d`, `12h`, `P30D`, or `off` for ever (None); ValueError says what to write."""
    if text.strip().lower() == "off":
        return None
    try:
        keep = timedelta(milliseconds=parse_duration(text))
    except ValueError:
        raise ValueError(f'"{text}" is no time to keep; write it as 30d, 12h or 10s, or off to keep for ever') from None
    if not SHORTEST <= keep <= LONGEST:
        raise ValueError(f'"{text}" is out of range: keep for 1s to 36500d, or off to keep for ever')
    return keep
