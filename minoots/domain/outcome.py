"""How an attempt ended, as a value, and what follows for its delivery."""

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from minoots.domain.retry import RetryPolicy

# Attempts that ended without a record use up no attempt of the policy, but not for ever.
UNKNOWN_MOST = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of the other end's answer: HTTP status, how long it took, the beginning of what it said."""

    duration_ms: int = 0
    status_code: int | None = None
    excerpt: str | None = None


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver took it."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Retry:
    """It may work later."""

    error: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class Rejected:
    """No use in trying again."""

    error: str
    answer: Answer


Outcome = Delivered | Retry | Rejected


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the delivery: `pending` with a wait, `delivered`, or `dead` with a reason."""

    status: Literal["pending", "delivered", "dead"]
    wait: timedelta | None = None
    reason: str | None = None


def judge(outcome: Outcome, attempts: int, age: timedelta, policy: RetryPolicy, rng: random.Random) -> Verdict:
    """The verdict after so many attempts (this one counted, those without a record not) at this age of the firing."""
    match outcome:
        case Delivered():
            return Verdict("delivered")
        case Rejected(error=error):
            return Verdict("dead", reason=error)
        case Retry(error=error):
            if attempts >= policy.attempts():
                tries = "1 attempt" if attempts == 1 else f"{attempts} attempts"
                return Verdict("dead", reason=f"gave up after {tries}: {error}")
            wait = policy.draw_wait(attempts, rng)
            if policy.is_too_old(age + wait):
                return Verdict("dead", reason=f"gave up at the age of {age.total_seconds():.1f} s: {error}")
            return Verdict("pending", wait=wait)
