"""How an attempt ended, as a value, and what follows for its delivery."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from minoots.domain.retry import RetryPolicy

# Attempts that ended without a record use up no attempt of the policy, but not for ever.
UNKNOWN_MOST = 20
# A receiver may ask to be left alone for so long, whatever the policy's own bound is.
AFTER_MOST = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of the other end's answer: HTTP status, how long it took, the beginning of what it said."""

    duration_ms: int = 0
    status_code: int | None = None
    excerpt: str | None = None


@dataclass(frozen=True, slots=True)
class Directive:
    """What the receiver asks of the timer, if it let it: to fire again so much later, or to end its schedule."""

    snooze: timedelta | None = None
    cancel_schedule: bool = False


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took it."""

    answer: Answer
    directive: Directive | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later; `after` is how long the receiver asks to be left alone.

    `is_ours`: the failure is this side's, and says nothing of the destination.
    """

    error: str
    answer: Answer
    after: timedelta | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """No use in trying again."""

    error: str
    answer: Answer


Outcome = Delivered | Retry | Rejected


@dataclass(frozen=True, slots=True)
class Heard:
    """No attempt: its receiver acknowledged it, or did not in time, which is the `error`."""

    error: str | None = None
    answer: Answer = Answer()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the delivery: `pending` with a wait, `delivered`, or `dead` with a reason.

    With acknowledgement it is `awaiting` with the time that the receiver has, and `confirmed` in the end.
    """

    status: Literal["pending", "delivered", "dead", "awaiting", "confirmed"]
    wait: timedelta | None = None
    reason: str | None = None


def awaited(verdict: Verdict, ack_timeout_ms: int | None) -> Verdict:
    """The verdict where the receiver has so long to acknowledge: that it took the delivery is not the end."""
    if ack_timeout_ms is None or verdict.status != "delivered":
        return verdict
    return Verdict("awaiting", wait=timedelta(milliseconds=ack_timeout_ms))


def judge(outcome: Outcome, attempts: int, age: timedelta, policy: RetryPolicy, rng: random.Random) -> Verdict:
    """The verdict after so many attempts (this one counted, those without a record not) at this age of the firing.

    A receiver that asks to be left alone makes a wait longer, up to AFTER_MOST, never shorter.
    """
    match outcome:
        case Delivered():
            return Verdict("delivered")
        case Rejected(error=error):
            return Verdict("dead", reason=error)
        case Retry(error=error, after=after):
            if attempts >= policy.attempts():
                tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
                return Verdict("dead", reason=f"gave up after {tries}: {error}")
            wait = policy.draw_wait(attempts, rng)
            if after is not None:
                wait = max(wait, min(after, AFTER_MOST))
            if policy.is_too_old(age + wait):
                return Verdict("dead", reason=f"gave up at the age of {age.total_seconds():.1f} s: {error}")
            return Verdict("pending", wait=wait)
