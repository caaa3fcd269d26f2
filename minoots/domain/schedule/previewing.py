"""A schedule's next instants as people read them: local time, and what a zone's change did."""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice

from minoots.domain.schedule.exclusion import WithoutDates
from minoots.domain.schedule.lines import SECOND, Line, to_instant, to_micros
from minoots.domain.schedule.local_line import LocalLine
from minoots.domain.schedule.occurrences import following
from minoots.domain.schedule.schedule import Schedule
from minoots.domain.schedule.steps import Steps
from minoots.domain.schedule.wall import DAY
from minoots.domain.schedule.zones import Change, Zone


@dataclass(frozen=True, slots=True)
class Instant:
    """An instant to come: in UTC, as RFC 3339 with its zone's offset, and a remark."""

    at: datetime
    local: str
    note: str | None


def preview(schedule: Schedule, after: datetime, count: int) -> list[Instant]:
    """The next `count` instants, from `following` itself; raises ScheduleTooSparse as it does."""
    shown: list[Instant] = []
    before = after
    most = count if schedule.max_occurrences is None else min(count, schedule.max_occurrences)
    for at in islice(following(schedule, after), most):
        line = _line_of(schedule, to_micros(at))
        shown.append(Instant(at, _local(at, line.zone), _note(line, before, at)))
        before = at
    return shown


def _line_of(schedule: Schedule, micros: int) -> Line:
    """The first of the lines that has this instant."""
    found = next(line for line in schedule.lines if line.count(micros - 1, micros, Steps()))
    return found.inner if isinstance(found, WithoutDates) else found


def _local(at: datetime, zone: Zone) -> str:
    offset = timezone(timedelta(seconds=zone.offset(_seconds(at))))
    return at.astimezone(offset).isoformat(timespec="auto")


def _note(line: Line, before: datetime, at: datetime) -> str | None:
    zone, second = line.zone, _seconds(at)
    # Of a schedule that comes once in many years, the last one is told about.
    changes = zone.changes(max(_seconds(before), second - 366 * DAY), second + 1)
    notes = []
    if isinstance(line, LocalLine):
        notes = [note for change in changes for note in _gap_notes(line, change, second)]
        notes += _overlap_notes(zone, second)
    if changes and zone.offset(second) != zone.offset(_seconds(before)):
        notes.append(f"clocks change before this: the offset is now {_offset(zone.offset(second))}")
    return "; ".join(notes) or None


def _gap_notes(line: LocalLine, change: Change, second: int) -> list[str]:
    """What became of the rule's times that a change skips."""
    skipped = line.skipped(change, Steps())
    if skipped is None:
        return []
    gone = f"{_clock(skipped)} does not exist on {_day(skipped)} in {line.zone.name}"
    if line.policy.gap == "skip":
        return [f"{gone}: left out"]
    lands = change.utc + change.after
    if change.utc == second and not line.names(lands, Steps()):
        where = _clock(lands) if lands // DAY == skipped // DAY else f"{_day(lands)} {_clock(lands)}"
        return [f"{gone}: moved to {where}"]
    return []


def _overlap_notes(zone: Zone, second: int) -> list[str]:
    """Whether the instant's wall comes twice, and which of the two it is."""
    wall = second + zone.offset(second)
    for change in zone.changes(second - 2 * DAY, second + 2 * DAY):
        if change.utc + change.after <= wall < change.utc + change.before:
            which = "first" if second < change.utc else "second"
            return [f"{_clock(wall)} comes twice on {_day(wall)} in {zone.name}: this is the {which}"]
    return []


def _seconds(at: datetime) -> int:
    return to_micros(at) // SECOND


def _clock(wall: int) -> str:
    text = to_instant(wall * SECOND).strftime("%H:%M:%S")
    return text.removesuffix(":00")


def _day(wall: int) -> str:
    return to_instant(wall * SECOND).date().isoformat()


def _offset(seconds: int) -> str:
    sign = "-" if seconds < 0 else "+"
    return f"{sign}{abs(seconds) // 3600:02}:{abs(seconds) // 60 % 60:02}"
