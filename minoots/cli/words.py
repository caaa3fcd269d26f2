"""Timers in words: spans and instants as people say them, and what a timer is up to."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from minoots.domain.duration import parse_instant

Shown = Mapping[str, Any]
"""A timer, firing, delivery or attempt as REST shows it; what a newer server adds is passed by."""

_UNITS = ((31_536_000, "y"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_WAITING = ("scheduled", "paused")
# What an ended timer's time is told from, by status.
_SINCE = {"fired": "firedAt", "settled": "settledAt", "failed": "settledAt", "cancelled": "cancelledAt"}


def span(seconds: float) -> str:
    """A length of time in its two largest units: 12 ms, 3.2 s, 45 s, 3 min 20 s, 2 d 4 h."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms" if seconds < 0.9995 else "1 s"
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest = round(seconds)
    for place, (size, unit) in enumerate(_UNITS):
        if rest >= size:
            many, rest = divmod(rest, size)
            size, smaller = _UNITS[place + 1] if place + 1 < len(_UNITS) else (1, "")
            few = rest // size if smaller else 0
            return f"{many} {unit} {few} {smaller}" if few else f"{many} {unit}"
    return "0 s"


def instant(value: Any) -> datetime | None:
    """An instant of the wire; None where there is none, or none that can be read."""
    try:
        return parse_instant(value) if isinstance(value, str) else None
    except ValueError:
        return None


def local(moment: datetime) -> str:
    """An instant on the reader's own clock, with its offset: 2030-01-31 10:00:00 +01:00."""
    try:
        there = moment.astimezone()
    except (OverflowError, OSError):
        there = moment.astimezone(UTC)
    offset = f"{there:%z}"
    return f"{there:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


def due(timer: Shown, now: datetime) -> str:
    """Where the timer stands in time: in 25 s, late by 4 s, 5 min ago."""
    status = str(timer.get("status"))
    fire_at = instant(timer.get("fireAt"))
    if status in _WAITING and fire_at is not None:
        ahead = (fire_at - now).total_seconds()
        if status == "paused":
            return "paused"
        if ahead < 0 and recurs(timer) and timer["schedule"].get("jitter"):
            # It fires its jitter after the instant of its schedule, and how much that is the timer does not show.
            return "within its jitter"
        return f"in {span(ahead)}" if ahead >= 0 else f"late by {span(-ahead)}"
    if status in _WAITING and recurs(timer):
        # It is being planned, or its schedule is used up and its last firing not over yet.
        return "paused" if status == "paused" else "none planned"
    since = instant(timer.get(_SINCE.get(status, ""))) or instant(timer.get("firedAt"))
    return f"{span(max((now - since).total_seconds(), 0))} ago" if since else "–"


def lateness(timer: Shown) -> str | None:
    """How late it fired; None when it has not. A recurring one's firings say it themselves: its fireAt is the next."""
    if recurs(timer):
        return None
    fired, asked = instant(timer.get("firedAt")), instant(timer.get("fireAt"))
    if fired is None or asked is None:
        return None
    return f"late by {span((fired - asked).total_seconds())}"


def recurs(timer: Shown) -> bool:
    """Whether it has a schedule, and so does not end when it fires."""
    return timer.get("schedule") is not None


def fired_late(firing: Shown) -> str:
    """How late this firing was."""
    return f"late by {span(float(firing.get('latenessMs') or 0) / 1000)}"


def has_actions(timer: Shown) -> bool:
    """Whether anything is to be done when it fires."""
    bundle = timer.get("actionBundle")
    return bool(timer.get("agentBinding")) or bool(isinstance(bundle, dict) and bundle.get("actions"))


def has_ended(timer: Shown) -> bool:
    """Whether nothing more will happen by itself."""
    status = timer.get("status")
    return status in ("settled", "failed", "cancelled") or (status == "fired" and not has_actions(timer))


def describe_attempt(attempt: Shown) -> str:
    """One try: `retry, 503 in 12 ms: service unavailable`."""
    text = str(attempt.get("outcome"))
    if attempt.get("statusCode") is not None:
        text += f", {attempt['statusCode']}"
    if attempt.get("durationMs") is not None:
        text += f" in {span(attempt['durationMs'] / 1000)}"
    reason = attempt.get("error") or (attempt.get("excerpt") if attempt.get("outcome") != "delivered" else None)
    return f"{text}: {reason}" if reason else text
