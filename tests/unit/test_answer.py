"""What an answer means: how long to wait, what it asks of the timer, whether it is tried again."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from minoots.domain.outcome import AFTER_MOST, Answer, Directive, Rejected, Retry, judge
from minoots.domain.retry import RetryPolicy
from minoots.orchestrator.actions.answer import failure_of, read_after, read_directive

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def after(status: int = 503, **fields: str) -> float | None:
    """In seconds."""
    headers = CIMultiDict({name.replace("_", "-"): value for name, value in fields.items()})
    found = read_after(status, headers, NOW)
    return None if found is None else found.total_seconds()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 1), ("120", 120), ("007", 7), ("86400", 86_400), ("999999999", 86_400), ("0", None), ("", None),
        ("-1", None), ("+1", None), ("1.5", None), ("1e3", None), ("١", None), ("soon", None), ("1 2", None),
        ("9" * 11, None), ("9" * 4000, None), ("1, 2", None),
        ("Sun, 22 Nov 2026 12:00:30 GMT", 30), ("Sunday, 22-Nov-26 12:01:00 GMT", 60), ("Sun Nov 22 12:00:05 2026", 5),
        ("Sun, 22 Nov 2026 11:59:59 GMT", None), ("Sun, 22 Nov 2099 12:00:00 GMT", 86_400),
        ("Sun, 99 Nov 2026 12:00:00 GMT", None), ("Sun, 22 Nov 2026 12:00:30 +0900", None),
        ("2026-11-22T12:00:30Z", None),
        ("Sun, 22 Nov 2026 99:99:99 GMT", None), ("Sun, 22 Foo 2026 12:00:30 GMT", None),
        ("Sun, 00 Nov 0000 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_nonsense_is_ignored(text: str, seconds: float | None) -> None:
    assert after(Retry_After=text) == seconds


def test_a_date_counts_from_the_answers_own_clock() -> None:
    """A receiver whose clock is an hour ahead does not make us wait for an hour."""
    ahead = NOW + timedelta(hours=1)
    said = {
        "Date": format_datetime(ahead, usegmt=True),
        "Retry_After": format_datetime(ahead + timedelta(seconds=9), usegmt=True),
    }
    assert after(**said) == 9
    assert after(429, Date=said["Date"], X_RateLimit_Reset=str(EPOCH + 3600 + 9)) == 10, "rounded down by the sender"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30.5", 30), (str(EPOCH + 60), 61), (str(EPOCH - 60), None), (str(EPOCH + 10**6), 86_400),
     (str(EPOCH * 1000), None), ("0", None), ("-5", None), ("later", None), ("1e9", None), ("9" * 30, None)],
)  # fmt: skip
def test_a_rate_limits_reset_is_a_span_or_an_instant(text: str, seconds: float | None) -> None:
    assert after(429, X_RateLimit_Reset=text) == seconds
    assert after(403, X_RateLimit_Reset=text, X_RateLimit_Remaining="0") == seconds
    assert after(500, X_RateLimit_Reset=text, X_RateLimit_Remaining="7") is None, "there is room left"
    assert after(500, X_RateLimit_Reset=text) is None


def test_retry_after_counts_before_a_reset_unless_it_is_nonsense() -> None:
    assert after(429, Retry_After="3", X_RateLimit_Reset="30") == 3
    assert after(429, Retry_After="soon", X_RateLimit_Reset="30") == 30


@given(st.text(max_size=40), st.text(max_size=20), st.text(max_size=40), st.sampled_from([301, 403, 429, 503]))
def test_whatever_a_receiver_writes_there_is_read_within_bounds(one: str, two: str, three: str, status: int) -> None:
    found = after(status, Retry_After=one, X_RateLimit_Reset=two, X_RateLimit_Remaining="0", Date=three)
    assert found is None or 0 < found <= 86_400


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_redirect_is_a_failure_and_says_so(status: int) -> None:
    found = failure_of(status, Answer(status_code=status), None)
    assert isinstance(found, Retry)
    assert "not followed" in found.error


@pytest.mark.parametrize(
    "status", [101, 400, 401, 403, 404, 408, 409, 422, 425, 429, 451, 499, 500, 502, 503, 504, 599, 999]
)
def test_what_may_be_mended_is_tried_again(status: int) -> None:
    span = timedelta(seconds=5)
    assert failure_of(status, Answer(), span) == Retry(f"HTTP {status}", Answer(), span)


def test_gone_is_gone() -> None:
    assert isinstance(failure_of(410, Answer(), timedelta(seconds=5)), Rejected)


def wait_after(asked: timedelta | None, policy: RetryPolicy | None = None) -> timedelta | None:
    return judge(Retry("x", Answer(), asked), 3, timedelta(), policy or RetryPolicy(), random.Random(7)).wait


def test_a_receiver_makes_a_wait_longer_and_never_shorter() -> None:
    drawn = wait_after(None)
    assert drawn is not None
    assert wait_after(drawn / 2) == drawn
    assert wait_after(drawn * 2) == drawn * 2
    assert wait_after(timedelta(days=40)) == AFTER_MOST


def test_a_wait_that_would_come_too_late_is_not_waited_for_whoever_asks() -> None:
    verdict = judge(
        Retry("x", Answer(), timedelta(hours=1)), 1, timedelta(), RetryPolicy(max_age_ms=60_000), random.Random(1)
    )
    assert verdict.status == "dead"


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"minoots": {"snooze": "2h"}}', Directive(timedelta(hours=2))),
        (b'{"minoots": {"snooze": 1500}, "ok": true}', Directive(timedelta(seconds=1.5))),
        (b'{"minoots": {"snooze": "PT30S"}}', Directive(timedelta(seconds=30))),
        (b'{"minoots": {"cancelSchedule": true}}', Directive(cancel_schedule=True)),
        (b'{"minoots": {"cancelSchedule": true, "snooze": "2h"}}', Directive(cancel_schedule=True)),
        (b'{"minoots": {"cancelSchedule": false}}', None),
        (b'{"minoots": {}}', None), (b'{"minoots": null}', None), (b'{"minoots": "snooze"}', None),
        (b"", None), (b"ok", None),
        (b'{"minoots": {"snooze": "soon"}}', None), (b'{"minoots": {"snooze": "-2h"}}', None),
        (b'{"minoots": {"snooze": 0}}', None), (b'{"minoots": {"snooze": 1e400}}', None),
        (b'{"minoots": {"snooze": "9999999w"}}', None),
        (b'{"minoots": {"cancelSchedule": "yes"}}', None), (b'[{"minoots": {"snooze": "2h"}}]', None),
        (b'{"minoots": {"snooze": "2h"}', None), (b'\xff{"minoots"', None), (b'{"minoots":' + b"[" * 60_000, None),
    ],
)  # fmt: skip
def test_what_an_answer_asks_of_the_timer(body: bytes, asked: Directive | None) -> None:
    assert read_directive(body) == asked
