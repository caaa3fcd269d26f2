"""A schedule's JSON read and checked, with every finding at once."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, cast

import msgspec

from minoots.domain.schedule.exclusion import WithoutDates
from minoots.domain.schedule.fields import (
    Fields,
    read_choice,
    read_duration,
    read_instant,
    read_text,
    read_whole,
)
from minoots.domain.schedule.lines import Line, ListLine, to_micros
from minoots.domain.schedule.moments import is_date, read_local
from minoots.domain.schedule.schedule import CatchUp, Schedule
from minoots.domain.schedule.specs import KINDS, SPEC_FIELDS, Setting, read_spec
from minoots.domain.schedule.zones import Zone, find_zone
from minoots.errors import Finding, InvalidTimer

SCHEDULE_BYTES = 64 * 1024
SPECS = 16
EXCLUDED = 1_000
# Somebody who has so many mistakes to mend is told of the rest afterwards.
_FINDINGS = 50
_MOST_OCCURRENCES = 1_000_000_000
_MOST_JITTER = timedelta(hours=24)
_WINDOW = timedelta(days=365)
_MOST_CAUGHT_UP = 100
_LEAST_WINDOW = timedelta(minutes=1)
_FIELDS = (
    "specs", "timezone", "exclude", "gap", "overlap", "startAt", "endAt", "maxOccurrences", "jitter", "catchUp",
    "whileRunning", "pauseAfterFailures",
)  # fmt: skip
_OF_SPEC_ALONE = tuple(name for name in SPEC_FIELDS if name not in _FIELDS)


def read_schedule(raw: bytes, pointer: str = "/schedule") -> Schedule:
    """The schedule of a JSON object, in full or short form; raises InvalidTimer with every finding below `pointer`."""
    if len(raw) > SCHEDULE_BYTES:
        raise InvalidTimer.at(pointer, f"the JSON of a schedule is at most {SCHEDULE_BYTES // 1024} KiB")
    try:
        values = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as broken:
        raise InvalidTimer.at(pointer, f"the schedule is no valid JSON: {broken}") from None
    if not isinstance(values, dict):
        raise InvalidTimer.at(
            pointer, 'a schedule is an object, as {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"}'
        )
    findings: list[Finding] = []
    schedule = _read(Fields(values, pointer, findings), values)
    if findings:
        raise InvalidTimer(findings)
    return schedule


def _read(fields: Fields, values: dict[str, Any]) -> Schedule:
    start_at, end_at = fields.take("startAt", read_instant), fields.take("endAt", read_instant)
    if start_at is not None and end_at is not None and end_at <= start_at:
        fields.refuse("endAt", "endAt is after startAt")
    gap = fields.take("gap", read_choice("shift", "skip"))
    overlap = fields.take("overlap", read_choice("first", "last", "both"))
    # In the short form the zone is the spec's own field, and read with it.
    zone = fields.take("timezone", _read_zone) if fields.has("specs") else None
    setting = Setting(zone, cast(Any, gap), cast(Any, overlap), start_at)
    lines = _read_specs(fields, setting)
    dates, excluded = _read_exclude(fields, setting, lines)
    jitter = fields.take("jitter", read_duration(timedelta(milliseconds=1), _MOST_JITTER))
    return Schedule(
        text=_canonical(values),
        lines=tuple(WithoutDates(line, dates) for line in lines) if dates else tuple(lines),
        excluded=tuple(excluded),
        gap=setting.gap,
        overlap=setting.overlap,
        start_at=start_at,
        end_at=end_at,
        max_occurrences=fields.take("maxOccurrences", read_whole(1, _MOST_OCCURRENCES)),
        jitter_ms=(jitter or timedelta()) // timedelta(milliseconds=1),
        catch_up=_read_catch_up(fields),
        while_running=cast(Any, fields.take("whileRunning", read_choice("allow", "skip", "queue")) or "allow"),
        pause_after_failures=fields.take("pauseAfterFailures", read_whole(1, 1_000)),
    )


def _read_zone(value: Any) -> Zone:
    return find_zone(read_text(value))


def _read_specs(fields: Fields, setting: Setting) -> list[Line]:
    if not fields.has("specs"):
        fields.refuse_unknown((*SPEC_FIELDS, *(name for name in _FIELDS if name != "timezone")), "a schedule")
        if not any(fields.has(kind) for kind in KINDS):
            detail = 'a schedule has one of cron, every, rrule and at, or several in specs: [{"cron": "0 9 * * *"}, …]'
            fields.findings.append(Finding(fields.pointer, detail))
            return []
        line = read_spec(fields, setting)
        return [] if line is None else [line]
    for name in _OF_SPEC_ALONE:
        if fields.has(name):
            fields.refuse(name, f"beside specs there is no {name}: put it into one of the specs")
    fields.refuse_unknown((*_FIELDS, *_OF_SPEC_ALONE), "a schedule")
    specs = fields.take("specs", _read_list("specs", 1, SPECS)) or []
    lines = [_read_one(spec, f"{fields.pointer}/specs/{index}", setting, fields) for index, spec in enumerate(specs)]
    return [line for line in lines if line is not None]


def _read_one(value: Any, pointer: str, setting: Setting, parent: Fields) -> Line | None:
    if not isinstance(value, dict):
        detail = 'a spec is an object, as {"cron": "0 9 * * MON-FRI"} or {"every": "15m"}'
        parent.findings.append(Finding(pointer, detail))
        return None
    fields = Fields(value, pointer, parent.findings)
    fields.refuse_unknown(SPEC_FIELDS, "a spec")
    return read_spec(fields, setting)


def _read_exclude(fields: Fields, setting: Setting, lines: list[Line]) -> tuple[list[date], list[Line]]:
    """Dates, and lines; a spec that names no zone has the schedule's, or the one that all its specs have."""
    zones = {line.zone for line in lines}
    inner = Setting(
        setting.zone or (zones.pop() if len(zones) == 1 else None), setting.gap, setting.overlap, setting.start_at
    )
    dates: list[date] = []
    instants: list[int] = []
    excluded: list[Line] = []
    specs = 0
    for index, value in enumerate(fields.take("exclude", _read_list("exclude", 0, EXCLUDED)) or []):
        pointer = f"{fields.pointer}/exclude/{index}"
        if len(fields.findings) >= _FINDINGS:
            break
        if isinstance(value, dict):
            specs += 1
            if specs > SPECS:
                fields.findings.append(Finding(pointer, f"exclude has at most {SPECS} specs beside dates and instants"))
                break
            line = _read_one(value, pointer, inner, fields)
            excluded += [line] if line is not None else []
            continue
        try:
            if is_date(read_text(value)):
                dates.append(read_local(value).date())
            else:
                instants.append(to_micros(read_instant(value)))
        except ValueError as wrong:
            fields.findings.append(Finding(pointer, f'{wrong}; exclude has dates ("2030-12-25"), instants and specs'))
    if instants:
        excluded.append(ListLine(instants, inner.zone or find_zone("UTC")))
    return sorted(set(dates)), excluded


def _read_catch_up(parent: Fields) -> CatchUp:
    values = parent.take("catchUp", _read_object)
    if values is None:
        return CatchUp("latest", _WINDOW, _MOST_CAUGHT_UP)
    fields = Fields(values, f"{parent.pointer}/catchUp", parent.findings)
    fields.refuse_unknown(("policy", "window", "max"), "catchUp")
    policy = fields.take("policy", read_choice("latest", "all", "none")) or "latest"
    window = fields.take("window", read_duration(_LEAST_WINDOW))
    most = fields.take("max", read_whole(1, 1_000))
    return CatchUp(
        cast(Any, policy), window or (_LEAST_WINDOW if policy == "none" else _WINDOW), most or _MOST_CAUGHT_UP
    )


def _read_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError('catchUp is an object, as {"policy": "all", "window": "1d", "max": 10}')
    return value


def _read_list(name: str, least: int, most: int) -> Callable[[Any], list[Any]]:
    def read(value: Any) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise ValueError(f"{name} is a list of {least} to {most:,} entries")
        return value

    return read


def _canonical(values: dict[str, Any]) -> str:
    """Fields in a fixed order, without nulls; texts and numbers as given."""
    given = {name: values[name] for name in _FIELDS if values.get(name) is not None}
    if "specs" not in given:
        given.pop("timezone", None)
        given = {"specs": [{name: values[name] for name in SPEC_FIELDS if values.get(name) is not None}], **given}
    return msgspec.json.encode(_without_nulls(given)).decode()


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value
