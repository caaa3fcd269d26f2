"""Schedules in words: short for a list, whole for one timer."""

import json
from collections.abc import Mapping
from typing import Any

_SPECS = ("cron", "every", "rrule", "at")


def describe_schedule(schedule: Any) -> str:
    """All that it says: `cron 0 9 * * 1-5 Europe/Berlin, maxOccurrences 5`; None is no schedule, and no words."""
    if not isinstance(schedule, Mapping):
        return ""
    rest = [f"{name} {_word(value)}" for name, value in schedule.items() if name != "specs" and value is not None]
    return ", ".join([short_schedule(schedule), *rest])


def short_schedule(schedule: Any) -> str:
    """Its specs alone; the first, and how many there are, when it has many."""
    if not isinstance(schedule, Mapping):
        return ""
    specs = [spec for spec in schedule.get("specs") or () if isinstance(spec, Mapping)]
    if not specs:
        return _word(schedule)
    words = [_describe_spec(spec) for spec in specs]
    return " and ".join(words) if len(words) <= 2 else f"{words[0]} and {len(words) - 1} more"


def _describe_spec(spec: Mapping[str, Any]) -> str:
    kind = next((name for name in _SPECS if name in spec), None)
    if kind is None:
        return _word(spec)
    if kind == "at":
        instants = spec["at"] if isinstance(spec["at"], list) else [spec["at"]]
        return f"at {instants[0]}" if len(instants) == 1 else f"at {len(instants)} instants"
    zone = f" {spec['timezone']}" if spec.get("timezone") else ""
    others = [f" {name} {_word(spec[name])}" for name in ("dtstart", "phase") if spec.get(name) is not None]
    return f"{kind} {_word(spec[kind])}{zone}{''.join(others)}"


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
