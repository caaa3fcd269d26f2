"""When a failed delivery is tried again."""

import random
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.limits import YEAR_MS
from minoots.domain.retry import RetryPolicy

POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.none() | st.integers(1, 1000),
    backoff_initial_ms=st.none() | st.integers(0, YEAR_MS),
    backoff_multiplier=st.none() | st.floats(1, 1000),
    backoff_max_ms=st.none() | st.integers(0, YEAR_MS),
)


def bounds(policy: RetryPolicy, attempts: int) -> list[timedelta]:
    return [policy.longest_wait(failures) for failures in range(1, attempts)]


def test_the_default_is_eight_attempts_within_about_28_hours() -> None:
    policy = RetryPolicy()
    assert policy.attempts() == 8
    waits = bounds(policy, policy.attempts())
    seconds = [wait.total_seconds() for wait in waits]
    assert seconds == pytest.approx([5, 25, 125, 625, 3_125, 15_625, 78_125])
    assert timedelta(hours=27) < sum(waits, timedelta()) < timedelta(hours=28)


@given(POLICIES)
def test_no_number_of_attempts_overflows(policy: RetryPolicy) -> None:
    most = timedelta(milliseconds=24 * 3_600_000 if policy.backoff_max_ms is None else policy.backoff_max_ms)
    for failures in (1, 2, 30, 1000, 10**9):
        assert timedelta() <= policy.longest_wait(failures) <= most


@given(POLICIES)
def test_waits_never_become_shorter(policy: RetryPolicy) -> None:
    waits = bounds(policy, 40)
    assert waits == sorted(waits)


@given(POLICIES, st.integers(1, 1000), st.integers())
def test_jitter_stays_between_nothing_and_the_bound(policy: RetryPolicy, failures: int, seed: int) -> None:
    assert timedelta() <= policy.draw_wait(failures, random.Random(seed)) <= policy.longest_wait(failures)


def test_jitter_uses_the_whole_range() -> None:
    rng = random.Random(7)
    drawn = [RetryPolicy().draw_wait(1, rng).total_seconds() for _ in range(500)]
    assert min(drawn) < 0.25
    assert max(drawn) > 4.75
    assert 2.0 < sum(drawn) / len(drawn) < 3.0


def test_a_policy_decides_for_itself() -> None:
    policy = RetryPolicy(max_attempts=3, backoff_initial_ms=100, backoff_multiplier=2, backoff_max_ms=350)
    assert policy.attempts() == 3
    assert [wait / timedelta(milliseconds=1) for wait in bounds(policy, 5)] == pytest.approx([100, 200, 350, 350])


def test_no_initial_wait_means_none_at_all() -> None:
    assert bounds(RetryPolicy(backoff_initial_ms=0), 20) == [timedelta()] * 19
    assert bounds(RetryPolicy(backoff_max_ms=0), 20) == [timedelta()] * 19


def test_a_delivery_is_too_old_past_its_age_only() -> None:
    policy = RetryPolicy(max_age_ms=1000)
    assert not policy.is_too_old(timedelta(seconds=1))
    assert policy.is_too_old(timedelta(seconds=1, microseconds=1))
    assert not RetryPolicy().is_too_old(timedelta(days=10_000))


@pytest.mark.parametrize(
    "written",
    [
        '{"maxAttempts":0}',
        '{"maxAttempts":1001}',
        '{"maxAttempts":"3"}',
        '{"maxAgeMs":0}',
        '{"backoffInitialMs":-1}',
        '{"backoffMultiplier":0.99}',
        '{"backoffMultiplier":1001}',
        '{"backoffMaxMs":31536000001}',
        '{"maxAttempt":1}',
        "[]",
    ],
)
def test_a_policy_out_of_its_bounds_is_refused(written: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(written, type=RetryPolicy)
