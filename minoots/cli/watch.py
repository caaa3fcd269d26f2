"""Following one timer until it ends: asks often while something happens, and gently otherwise.

A recurring timer does not end with its first firing. It is followed firing by firing, from the one on that is under way
when the watch begins, until it ends; or, when a number was asked for, until as many that began after have ended.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from minoots.cli.client import Api, timer_path
from minoots.cli.exits import ENDED_BADLY, CommandStopped, Unreachable, printable
from minoots.cli.schedule_words import short_schedule
from minoots.cli.show import say, status_text
from minoots.cli.words import (
    Shown,
    describe_attempt,
    due,
    fired_late,
    has_actions,
    has_ended,
    instant,
    lateness,
    recurs,
    span,
)

_SHORTEST: Final = 0.2
_LONGEST: Final = 5.0
_GROWTH: Final = 1.4
# A server that is being restarted is waited for.
_AWAY_SECONDS: Final = 60.0
# So many firings of a recurring timer are followed at once; when there are more, the latest.
FIRINGS_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class Sight:
    """The timer at one moment, as it came and as it reads, with those firings that may have changed since the last.

    `is_over`: all that was to be followed has ended. `has_failed`: a firing that was asked for has.
    """

    answer: bytes
    timer: Shown
    firings: tuple[Shown, ...]
    is_over: bool
    has_failed: bool = False


def follow(api: Api, timer_id: str, timeout: float | None, firings: int | None = None) -> Iterator[Sight]:
    """The timer each time it was asked for, the last when it has ended; CommandStopped when the time is up."""
    deadline = None if timeout is None else time.monotonic() + timeout
    watcher = _Watcher(api, timer_id, firings)
    sight = watcher.look()
    last_seen, pause = time.monotonic(), _SHORTEST
    while True:
        yield sight
        if sight.is_over:
            return
        _sleep(min(pause, _until_due(sight.timer)), deadline, sight.timer)
        try:
            before, sight = sight, watcher.look()
        except Unreachable as away:
            if time.monotonic() - last_seen > _AWAY_SECONDS:
                raise
            if time.monotonic() - last_seen < pause + 2 * _SHORTEST:
                print(f"minoots: {away.sentence.split(';')[0]}; waiting for it", file=sys.stderr)  # noqa: T201
            pause = 1.0
            continue
        last_seen = time.monotonic()
        is_still = (before.timer, before.firings) == (sight.timer, sight.firings)
        pause = min(pause * _GROWTH, _LONGEST) if is_still else _SHORTEST


def exit_code(sight: Sight) -> int:
    """0 when it ended well."""
    is_bad = sight.has_failed or (has_ended(sight.timer) and sight.timer.get("status") in ("failed", "cancelled"))
    return ENDED_BADLY if is_bad else 0


class _Watcher:
    """Looks at one timer, and remembers which of its firings are to be looked at again."""

    def __init__(self, api: Api, timer_id: str, wanted: int | None) -> None:
        self._api = api
        self._timer_id = timer_id
        self._wanted = wanted
        # Of a recurring timer: the latest firing that has been seen, those that go on, and how many have ended.
        self._seen: int | None = None
        self._open: list[int] = []
        self._ended = 0
        self._has_failed = False

    def look(self) -> Sight:
        """The timer first, then its firings: so an ended timer comes with all that they did."""
        answer = self._api.get(timer_path(self._timer_id))
        timer = json.loads(answer)
        latest = timer.get("occurrence") or 0
        if not recurs(timer):
            only = [self._firing(latest)] if latest > 0 and has_actions(timer) else []
            return Sight(answer, timer, tuple(only), is_over=has_ended(timer))
        firings = self._look_at_firings(latest)
        if self._wanted is None:
            return Sight(answer, timer, firings, is_over=has_ended(timer))
        is_enough = self._ended >= self._wanted
        # Asked for a number of firings, the timer's own end matters only when it came before them.
        return Sight(answer, timer, firings, is_over=is_enough or has_ended(timer), has_failed=self._has_failed)

    def _look_at_firings(self, latest: int) -> tuple[Shown, ...]:
        if self._seen is None:
            self._seen = latest
            under_way = [latest] if latest > 0 and self._wanted is None else []
            self._open = [n for n in under_way if self._firing(n).get("status") == "dispatching"]
        new = range(self._seen + 1, latest + 1)
        if self._wanted is not None:
            new = new[: self._wanted - self._ended - len(self._open)]
        firings = tuple(self._firing(occurrence) for occurrence in [*self._open, *new][-FIRINGS_MOST:])
        # Only now: when the server went away in between, the next look is to see the same.
        self._seen = latest
        self._open = [firing["occurrence"] for firing in firings if firing.get("status") == "dispatching"]
        self._ended += len(firings) - len(self._open)
        self._has_failed = self._has_failed or any(firing.get("status") == "failed" for firing in firings)
        return firings

    def _firing(self, occurrence: int) -> Shown:
        firing: Shown = json.loads(self._api.get(timer_path(self._timer_id, "firings", occurrence)))
        return firing


class Narrator:
    """Says what changed since the last look, once each."""

    def __init__(self, firings: int | None = None) -> None:
        self._said: set[tuple[Any, ...]] = set()
        self._wanted = firings
        # Of a recurring timer, as they were told last.
        self._standing: tuple[Any, ...] = ()
        self._missed: int | None = None

    def tell(self, sight: Sight) -> None:
        """Print what is new: what the firing did comes before the end that follows from it."""
        timer = sight.timer
        if recurs(timer):
            self._tell_recurring(timer, sight.firings)
        elif has_ended(timer) and sight.firings:
            if self._is_new("timer", "fired", sight.firings[0].get("occurrence")):
                self._line(instant(timer.get("firedAt")), "fired", lateness(timer) or "")
            self._tell_deliveries(sight.firings[0])
            self._tell_timer(timer)
        else:
            self._tell_timer(timer)
            for firing in sight.firings:
                self._tell_deliveries(firing)

    def _tell_recurring(self, timer: Shown, firings: tuple[Shown, ...]) -> None:
        """Its firings one by one; the timer itself when it comes to another state or schedule, or misses some."""
        for firing in firings:
            occurrence, ended = firing.get("occurrence"), firing.get("status")
            if self._is_new("fired", occurrence):
                self._line(instant(firing.get("firedAt")), "fired", f"occurrence {occurrence}", fired_late(firing))
            self._tell_deliveries(firing)
            if firing.get("deliveries") and ended != "dispatching" and self._is_new("ended", occurrence):
                self._line(instant(firing.get("settledAt")), str(ended), f"occurrence {occurrence}")
        missed = timer.get("missed") or 0
        if self._missed is not None and missed > self._missed:
            self._line(None, "missed", f"{missed - self._missed}, {missed} in all")
        self._missed = missed
        standing = (timer.get("status"), timer.get("schedule"))
        if standing != self._standing:
            self._line(_since(timer), str(timer.get("status")), _recurring_remark(timer, self._wanted))
        elif timer.get("status") == "scheduled" and any(self._is_new("next", f.get("occurrence")) for f in firings):
            self._line(None, "", f"next: {due(timer, datetime.now(UTC))}")
        self._standing = standing

    def _tell_timer(self, timer: Shown) -> None:
        status = str(timer.get("status"))
        # A waiting one is told again when it was changed: its instant may be another.
        version = timer.get("version") if status in ("scheduled", "paused") else None
        if not self._is_new("timer", status, timer.get("occurrence"), *([version] if version is not None else [])):
            return
        self._line(_since(timer), status, _remark(status, timer))

    def _tell_deliveries(self, firing: Shown) -> None:
        for delivery in firing.get("deliveries") or ():
            key = (firing.get("occurrence"), delivery.get("actionId"))
            for attempt in delivery.get("attempts") or ():
                if self._is_new("attempt", *key, attempt.get("attempt")):
                    text = (
                        f"  {delivery.get('actionId')}, attempt {attempt.get('attempt')}: {describe_attempt(attempt)}"
                    )
                    self._line(instant(attempt.get("startedAt")), "", text + _next_attempt(delivery, attempt))
            status = delivery.get("status")
            if status != "pending" and self._is_new("delivery", *key, status):
                ended = instant(delivery.get("deliveredAt") or delivery.get("deadAt"))
                self._line(
                    ended, "", f"  {delivery.get('actionId')} is {status}", str(delivery.get("deadReason") or "")
                )

    def _is_new(self, *fact: Any) -> bool:
        is_new = fact not in self._said
        self._said.add(fact)
        return is_new

    def _line(self, at: datetime | None, status: str, *remarks: str) -> None:
        """A line under the instant at which it happened; under the present one where it has none."""
        parts: list[Any] = [(f"{(at or datetime.now(UTC)).astimezone():%H:%M:%S}  ", "dim")]
        if status:
            parts.append(status_text(status))
        if remark := printable(": ".join(r for r in remarks if r)):
            parts.append(f"  {remark}" if status else remark)
        say(Text.assemble(*parts))


def _since(timer: Shown) -> datetime | None:
    happened = {"fired": "firedAt", "settled": "settledAt", "failed": "settledAt", "cancelled": "cancelledAt"}
    return instant(timer.get(happened.get(str(timer.get("status")), "")))


def _recurring_remark(timer: Shown, wanted: int | None) -> str:
    """What a recurring timer does, and when the watch ends; of an ended one, why."""
    if timer.get("status") != "scheduled":
        return _remark(str(timer.get("status")), timer)
    until = "until it ends, or Ctrl-C" if wanted is None else f"for {wanted} firing{'s' if wanted > 1 else ''}"
    return f"{short_schedule(timer.get('schedule'))}, next: {due(timer, datetime.now(UTC))}; watching {until}"


def _remark(status: str, timer: Shown) -> str:
    if status == "scheduled":
        return f"due {due(timer, datetime.now(UTC))}"
    if status == "fired":
        return lateness(timer) or ""
    if status == "cancelled":
        by, why = timer.get("cancelledBy"), timer.get("cancelReason")
        return f"by {by}" + (f": {why}" if why else "") if by else ""
    return str(timer.get("failureReason") or "")


def _next_attempt(delivery: Shown, attempt: Shown) -> str:
    """When it is tried again, behind the latest attempt of a delivery that goes on."""
    again = instant(delivery.get("nextAttemptAt"))
    if again is None or delivery.get("status") != "pending" or attempt.get("attempt") != delivery.get("attemptCount"):
        return ""
    return f"; again in {span(max((again - datetime.now(UTC)).total_seconds(), 0))}"


def _until_due(timer: Shown) -> float:
    fire_at = instant(timer.get("fireAt"))
    if timer.get("status") != "scheduled" or fire_at is None:
        return _LONGEST
    ahead = (fire_at - datetime.now(UTC)).total_seconds()
    return max(ahead + 0.02, _SHORTEST) if ahead > 0 else _LONGEST


def _sleep(seconds: float, deadline: float | None, timer: Shown) -> None:
    if deadline is not None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise CommandStopped(f"the timer is still {timer.get('status')}; the time to watch it is up", ENDED_BADLY)
        seconds = min(seconds, left)
    time.sleep(seconds)
