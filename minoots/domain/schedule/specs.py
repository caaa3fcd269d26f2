"""A spec of a schedule, read into a line: cron, every, rrule or at."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from minoots.domain.duration import parse_duration
from minoots.domain.schedule.cron import parse_cron
from minoots.domain.schedule.fields import Fields, read_duration, read_instant, read_text
from minoots.domain.schedule.lines import EARLIEST, LATEST, SECOND, EveryLine, Line, ListLine, to_micros
from minoots.domain.schedule.local_line import Gap, LocalLine, Overlap, Policy, choose_policy
from minoots.domain.schedule.moments import has_fraction, is_local, read_local, wall_of
from minoots.domain.schedule.recurrence import Recurrence
from minoots.domain.schedule.rrule_text import RuleText, read_rrule
from minoots.domain.schedule.steps import ScheduleTooSparse, Steps
from minoots.domain.schedule.wall import DAY, Listed
from minoots.domain.schedule.zones import Zone, find_zone
from minoots.errors import Finding

KINDS = ("cron", "every", "rrule", "at")
SPEC_FIELDS = ("cron", "every", "phase", "rrule", "dtstart", "at", "timezone")
_OWN = {"cron": (), "every": ("phase",), "rrule": ("dtstart",), "at": ()}
_INSTANTS = 1_000
# About 25,000 days of a daily rule; a count is resolved when a schedule is read, and then remembered.
_COUNT_BUDGET = 100_000


@dataclass(frozen=True, slots=True)
class Setting:
    """What a spec takes from its schedule; `zone` is None when the schedule names none."""

    zone: Zone | None
    gap: Gap | None
    overlap: Overlap | None
    start_at: datetime | None


def read_spec(fields: Fields, setting: Setting) -> Line | None:
    """The line of a spec; None when it has findings."""
    kinds = [kind for kind in KINDS if fields.has(kind)]
    named = fields.take("timezone", lambda value: find_zone(read_text(value)))
    if len(kinds) != 1:
        said = f", not {' and '.join(kinds)} together" if kinds else ""
        fields.findings.append(Finding(fields.pointer, f"a spec has exactly one of cron, every, rrule and at{said}"))
        return None
    (kind,) = kinds
    for name in ("phase", "dtstart"):
        if fields.has(name) and name not in _OWN[kind]:
            fields.refuse(name, f"{name} does not belong to {kind}")
    has_zone = fields.has("timezone") or setting.zone is not None
    zone = named or setting.zone or find_zone("UTC")
    if kind == "cron":
        return fields.take("cron", lambda value: _read_cron(value, zone, setting))
    if kind == "every":
        return _read_every(fields, zone, setting)
    if kind == "rrule":
        return _read_rrule(fields, zone, setting)
    return _read_at(fields, zone, setting, has_zone)


def _read_cron(value: Any, zone: Zone, setting: Setting) -> Line:
    rule = parse_cron(read_text(value))
    return LocalLine(rule, zone, choose_policy(setting.gap, setting.overlap, rule.is_hourly))


def _read_every(fields: Fields, zone: Zone, setting: Setting) -> Line | None:
    every = fields.take("every", read_duration(timedelta(seconds=1)))
    phase = fields.take("phase", _read_phase)
    if every is None:
        return None
    if phase is not None and phase >= every:
        fields.refuse("phase", "phase is shorter than every: it says how far after each whole multiple it comes")
    microsecond = timedelta(microseconds=1)
    if phase is None and setting.start_at is not None:
        return EveryLine(every // microsecond, to_micros(setting.start_at), zone)
    return EveryLine(every // microsecond, (phase or timedelta()) // microsecond, zone)


def _read_phase(value: Any) -> timedelta:
    """As any duration, but nothing is a phase too."""
    if value == 0 and not isinstance(value, bool):
        return timedelta()
    if isinstance(value, str) and "0" in value and not any(digit in value for digit in "123456789"):
        parse_duration(value.replace("0", "1"))
        return timedelta()
    return read_duration(timedelta())(value)


def _read_rrule(fields: Fields, zone: Zone, setting: Setting) -> Line | None:
    rule = fields.take("rrule", lambda value: read_rrule(read_text(value)))
    start = fields.take("dtstart", lambda value: _read_dtstart(value, zone))
    if not fields.has("dtstart"):
        fields.refuse("dtstart", 'an rrule counts from its dtstart: give it, as "2030-01-31T09:00:00"')
    if rule is None or start is None:
        return None
    return fields.take("rrule", lambda _: _rrule_line(rule, start, zone, setting))


def _read_dtstart(value: Any, zone: Zone) -> datetime:
    """The naive local datetime in the zone, whole seconds."""
    text = read_text(value)
    if is_local(text):
        return read_local(text)
    instant = read_instant(text)
    return (instant + timedelta(seconds=zone.offset(to_micros(instant) // SECOND))).replace(tzinfo=None, microsecond=0)


def _rrule_line(rule: RuleText, start: datetime, zone: Zone, setting: Setting) -> Line:
    recurrence = Recurrence(rule, start)
    policy = choose_policy(setting.gap, setting.overlap, recurrence.is_hourly)
    if rule.until and rule.until.is_utc:
        return LocalLine(recurrence, zone, policy, last=to_micros(rule.until.moment.replace(tzinfo=UTC)))
    if rule.until:
        return LocalLine(recurrence, zone, policy, last_wall=wall_of(rule.until.moment))
    if rule.count:
        return LocalLine(recurrence, zone, policy, last=_last_counted(rule, start, zone, policy))
    return LocalLine(recurrence, zone, policy)


@lru_cache(maxsize=4096)
def _last_counted(rule: RuleText, start: datetime, zone: Zone, policy: Policy) -> int | None:
    """The COUNT-th instant of a rule, or None when the years end first; counted by days, not by instants."""
    assert rule.count is not None
    line, steps = LocalLine(Recurrence(rule, start), zone, policy), Steps(_COUNT_BUDGET)
    left, low, width = rule.count, max(EARLIEST, (wall_of(start) - 2 * DAY) * SECOND), 366 * DAY * SECOND
    try:
        while (found := line.count(low, low + width, steps)) < left:
            left, low = left - found, low + width
            if low > LATEST:
                return None
            if not found:
                width *= 2
    except ScheduleTooSparse:
        raise ValueError(
            f"COUNT={rule.count} of this rule takes too long to count: leave it out and give maxOccurrences"
        ) from None
    # Within (low, low + width] by halving; each look is half of the former, so all together cost one more.
    while width > SECOND:
        half = width // 2
        found = line.count(low, low + half, Steps())
        if found < left:
            left, low, width = left - found, low + half, width - half
        else:
            width = half
    return low + width


def _read_at(fields: Fields, zone: Zone, setting: Setting, has_zone: bool) -> Line | None:
    values = fields.take("at", _read_list)
    if values is None:
        return None
    instants: list[int] = []
    walls: list[int] = []
    for index, value in enumerate(values):
        try:
            if has_zone and isinstance(value, str) and is_local(value):
                walls.append(_read_wall(value))
            else:
                instants.append(to_micros(read_instant(value)))
        except ValueError as wrong:
            fields.findings.append(Finding(f"{fields.pointer}/at/{index}", str(wrong)))
    if walls:
        local = LocalLine(Listed(walls), zone, choose_policy(setting.gap, setting.overlap, is_hourly=False))
        instants += local.between(EARLIEST, LATEST, Steps())
    return ListLine(instants, zone)


def _read_list(value: Any) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= _INSTANTS:
        raise ValueError(f"at is a list of 1 to {_INSTANTS:,} instants")
    return value


def _read_wall(text: str) -> int:
    if has_fraction(text):
        raise ValueError("a local time has whole seconds; give an instant with its offset for a fraction")
    return wall_of(read_local(text))
