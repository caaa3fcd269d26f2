"""When a timer fires: the ways to say it, of which a request has one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from minoots.domain.duration import parse_duration, parse_instant
from minoots.domain.schedule import Schedule, read_schedule
from minoots.errors import Finding, InvalidTimer

NOTHING = msgspec.Raw(b"null")
WAYS = ("duration", "fire_at", "schedule", "cron", "every")
_EXAMPLES = {
    "duration": '"30s"',
    "fire_at": '"2030-01-31T09:00:00Z"',
    "schedule": '{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}',
}


@dataclass(frozen=True, slots=True)
class Moved:
    """When it is to fire: exactly one of these is set.

    `pointer` says where in the request the schedule stood. Whether an instant is past only the database's clock knows.
    """

    duration_ms: int | None = None
    fire_at: datetime | None = None
    schedule: Schedule | None = None
    pointer: str = "/schedule"


def given(request: object, ways: Sequence[str] = WAYS) -> list[str]:
    """Which of the ways the request uses, by the names of its fields; null counts as nothing."""
    return [way for way in ways if not is_nothing(getattr(request, way))]


def is_nothing(value: object) -> bool:
    """Not there, or null."""
    if value is None or value is NOTHING or value is msgspec.UNSET:
        return True
    return isinstance(value, msgspec.Raw) and bytes(value).strip() in (b"", b"null")


def read_moment(request: Any, findings: list[Finding], ways: Sequence[str] = WAYS) -> Moved | None:
    """The one way that is given, of those that this request has; `cron` or `every`, with a `timezone`, is a schedule.

    None after adding to the findings what is wrong with it.
    """
    used = given(request, ways)
    if len(used) != 1:
        findings.append(Finding("/" + _wire(used[0] if used else ways[0]), _one_of(ways, used)))
        return None
    (way,) = used
    if way not in ("cron", "every") and not is_nothing(request.timezone):
        findings.append(
            Finding("/timezone", "timezone goes with cron; an instant has its offset, a schedule its zones")
        )
        return None
    try:
        if way == "duration":
            return Moved(duration_ms=parse_duration(request.duration))
        if way == "fire_at":
            return Moved(fire_at=_instant(request.fire_at))
    except ValueError as wrong:
        findings.append(Finding("/" + _wire(way), str(wrong)))
        return None
    try:
        if way == "schedule":
            return Moved(schedule=read_schedule(bytes(request.schedule), "/schedule"))
        short = {way: getattr(request, way)}
        if not is_nothing(request.timezone):
            short["timezone"] = request.timezone
        return Moved(schedule=read_schedule(msgspec.json.encode(short), ""), pointer=f"/{way}")
    except InvalidTimer as refused:
        findings += refused.findings
        return None


def _one_of(ways: Sequence[str], used: Sequence[str]) -> str:
    words = " or ".join(f"{_wire(way)} ({example})" for way, example in _EXAMPLES.items() if way in ways)
    if len(used) < 2:
        return f"give either {words}"
    return f"give either {words}; this has {' and '.join(map(_wire, used))}"


def _wire(way: str) -> str:
    return "fireAt" if way == "fire_at" else way


def _instant(text: str) -> datetime:
    instant = parse_instant(text)
    if instant.year >= 9000:
        raise ValueError("a timer must fire before the year 9000")
    return instant
