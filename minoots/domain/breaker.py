"""The circuit breaker of a lane, as a pure state machine: closed, open, half-open with one probe.

`FAILURES` in a row open it: a receiver that fails one attempt in three at random does so about once in sixty thousand
attempts. While it is open nothing goes out. Then one attempt, the probe, tries it: when that works the lane is closed,
else it is open again, for at most twice as long as the time before. Each wait is drawn evenly from zero to its bound
(full jitter: Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from minoots.domain.outcome import Delivered, Outcome, Retry

FAILURES = 10
OPEN_FIRST = timedelta(seconds=2)
OPEN_MOST = timedelta(seconds=60)
REASON_CHARACTERS = 300

State = Literal["closed", "open", "half_open"]
Kind = Literal["opened", "closed"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """How a lane stands. `failures` in a row; `openings` since it last worked; `reason` is the last failure's."""

    state: State = "closed"
    failures: int = 0
    openings: int = 0
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One attempt as the lane counts it: `failed` is None for what says nothing of the destination."""

    failed: bool | None
    error: str | None = None
    is_probe: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What became of the breaker. `kind` when it opened or closed; `wait` until a probe, when it is open now."""

    breaker: Breaker
    kind: Kind | None = None
    wait: timedelta | None = None


def see(outcome: Outcome, *, is_probe: bool = False) -> Seen:
    """Time-outs, broken connections and answers that are tried again count against the destination.

    An answer that ends the delivery (410) is one: the destination works. What never left us says nothing.
    """
    if isinstance(outcome, Delivered):
        return Seen(False, is_probe=is_probe)
    if isinstance(outcome, Retry) and outcome.is_ours:
        return Seen(None, is_probe=is_probe)
    if isinstance(outcome, Retry):
        return Seen(True, outcome.error[:REASON_CHARACTERS], is_probe)
    return Seen(None if outcome.answer.status_code is None else False, is_probe=is_probe)


def after(breaker: Breaker, attempts: Iterable[Seen], rng: random.Random) -> Step:
    """The breaker after these attempts, in their order; at most one change, for what is open counts nothing more."""
    step = Step(breaker)
    for seen in attempts:
        if step.breaker.state == "closed" and step.kind is None:
            step = _closed(step.breaker, seen, rng)
        # An action may outlast the first span of its lease, and another be sent as the probe: a success is one.
        elif step.breaker.state == "half_open" and (seen.is_probe or seen.failed is False):
            step = _probed(step.breaker, seen, rng)
    return step


def _closed(breaker: Breaker, seen: Seen, rng: random.Random) -> Step:
    if seen.failed is None:
        return Step(breaker)
    if not seen.failed:
        return Step(Breaker())
    failed = replace(breaker, failures=breaker.failures + 1, reason=seen.error)
    return _open(failed, rng) if failed.failures >= FAILURES else Step(failed)


def _probed(breaker: Breaker, seen: Seen, rng: random.Random) -> Step:
    if seen.failed is None:
        # It never went out: open as before, and the next probe may go at once.
        return Step(replace(breaker, state="open"), wait=timedelta())
    if not seen.failed:
        return Step(Breaker(), "closed")
    return _open(replace(breaker, failures=breaker.failures + 1, reason=seen.error), rng)


def _open(breaker: Breaker, rng: random.Random) -> Step:
    openings = breaker.openings + 1
    return Step(replace(breaker, state="open", openings=openings), "opened", longest_wait(openings) * rng.random())


def longest_wait(openings: int) -> timedelta:
    """The bound of the wait after so many openings in a row; no overflow at any number."""
    return min(OPEN_FIRST * (1 << min(openings - 1, 16)), OPEN_MOST)
