"""What follows for a delivery from how an attempt ended."""

import random
from datetime import timedelta

import pytest

from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry, Verdict, judge
from minoots.domain.retry import RetryPolicy

ANSWER = Answer(12, 503, "busy")


def verdict(
    outcome: Outcome, attempts: int = 1, age: timedelta = timedelta(), policy: RetryPolicy | None = None
) -> Verdict:
    return judge(outcome, attempts, age, policy or RetryPolicy(), random.Random(1))


@pytest.mark.parametrize("attempts", [1, 8, 1000])
def test_delivered_ends_a_delivery_at_any_attempt(attempts: int) -> None:
    assert verdict(Delivered(ANSWER), attempts, timedelta(days=900)) == Verdict("delivered")


@pytest.mark.parametrize("attempts", [1, 8])
def test_rejected_ends_it_for_good_whatever_the_policy_allows(attempts: int) -> None:
    assert verdict(Rejected("HTTP 410", ANSWER), attempts) == Verdict("dead", reason="HTTP 410")


def test_a_failure_waits_for_its_retry() -> None:
    for attempts in range(1, 8):
        found = verdict(Retry("HTTP 503", ANSWER), attempts)
        assert found.status == "pending"
        assert found.reason is None
        assert found.wait is not None
        assert timedelta() <= found.wait <= RetryPolicy().longest_wait(attempts)


def test_the_last_attempt_gives_up_and_says_after_how_many() -> None:
    assert verdict(Retry("HTTP 503", ANSWER), 8) == Verdict("dead", reason="gave up after 8 attempts: HTTP 503")
    once = RetryPolicy(max_attempts=1)
    assert verdict(Retry("HTTP 503", ANSWER), 1, policy=once) == Verdict(
        "dead", reason="gave up after 1 attempt: HTTP 503"
    )


def test_attempts_past_the_last_give_up_too() -> None:
    assert verdict(Retry("HTTP 503", ANSWER), 9).status == "dead"


def test_a_retry_that_would_come_too_late_is_not_waited_for() -> None:
    policy = RetryPolicy(max_age_ms=60_000, backoff_initial_ms=10_000, backoff_multiplier=1)
    assert verdict(Retry("HTTP 503", ANSWER), 1, timedelta(seconds=49), policy).status == "pending"
    late = verdict(Retry("HTTP 503", ANSWER), 1, timedelta(seconds=60), policy)
    assert late == Verdict("dead", reason="gave up at the age of 60.0 s: HTTP 503")


def test_the_same_chance_draws_the_same_wait() -> None:
    assert verdict(Retry("x", ANSWER), 3) == verdict(Retry("x", ANSWER), 3)
