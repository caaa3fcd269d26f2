"""Following one timer until it ends: asks often while something happens, and gently otherwise."""

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
from minoots.cli.show import say, status_text
from minoots.cli.words import Shown, describe_attempt, due, has_actions, has_ended, instant, lateness, span

_SHORTEST: Final = 0.2
_LONGEST: Final = 5.0
_GROWTH: Final = 1.4
# A server that is being restarted is waited for.
_AWAY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Sight:
    """The timer at one moment, as it came and as it reads, with its latest firing where it has one with actions."""

    answer: bytes
    timer: Shown
    firing: Shown | None


def follow(api: Api, timer_id: str, timeout: float | None) -> Iterator[Sight]:
    """The timer each time it was asked for, the last when it has ended; CommandStopped when the time is up."""
    deadline = None if timeout is None else time.monotonic() + timeout
    sight = _look(api, timer_id)
    last_seen, pause = time.monotonic(), _SHORTEST
    while True:
        yield sight
        if has_ended(sight.timer):
            return
        _sleep(min(pause, _until_due(sight.timer)), deadline, sight.timer)
        try:
            before, sight = sight, _look(api, timer_id)
        except Unreachable as away:
            if time.monotonic() - last_seen > _AWAY_SECONDS:
                raise
            if time.monotonic() - last_seen < pause + 2 * _SHORTEST:
                print(f"minoots: {away.sentence.split(';')[0]}; waiting for it", file=sys.stderr)  # noqa: T201
            pause = 1.0
            continue
        last_seen = time.monotonic()
        is_still = (before.timer, before.firing) == (sight.timer, sight.firing)
        pause = min(pause * _GROWTH, _LONGEST) if is_still else _SHORTEST


def exit_code(timer: Shown) -> int:
    """0 when it ended well."""
    return ENDED_BADLY if timer.get("status") in ("failed", "cancelled") else 0


class Narrator:
    """Says what changed since the last look, once each."""

    def __init__(self) -> None:
        self._said: set[tuple[Any, ...]] = set()

    def tell(self, sight: Sight) -> None:
        """Print what is new: what the firing did comes before the end that follows from it."""
        timer, firing = sight.timer, sight.firing
        if has_ended(timer) and firing is not None:
            if self._is_new("timer", "fired", firing.get("occurrence")):
                self._line(instant(timer.get("firedAt")), "fired", lateness(timer) or "")
            self._tell_deliveries(firing)
            self._tell_timer(timer)
        else:
            self._tell_timer(timer)
            self._tell_deliveries(firing or {})

    def _tell_timer(self, timer: Shown) -> None:
        status = str(timer.get("status"))
        if not self._is_new("timer", status, timer.get("occurrence")):
            return
        happened = {"fired": "firedAt", "settled": "settledAt", "failed": "settledAt", "cancelled": "cancelledAt"}
        self._line(instant(timer.get(happened.get(status, ""))), status, _remark(status, timer))

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


def _look(api: Api, timer_id: str) -> Sight:
    """The timer first, then its firing: so an ended timer comes with all that its firing did."""
    answer = api.get(timer_path(timer_id))
    timer = json.loads(answer)
    firing = None
    if (timer.get("occurrence") or 0) > 0 and has_actions(timer):
        firing = json.loads(api.get(timer_path(timer_id, "firings", timer["occurrence"])))
    return Sight(answer, timer, firing)


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
