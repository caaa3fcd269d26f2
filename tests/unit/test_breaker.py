"""The breaker of a lane: when it opens, how it is tried, when it closes."""

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.breaker import FAILURES, OPEN_MOST, Breaker, Seen, after, longest_wait, see
from minoots.domain.outcome import Answer, Delivered, Rejected, Retry

FAILED = Seen(True, "HTTP 503")
WORKED = Seen(False)
SAYS_NOTHING = Seen(None)

attempts = st.lists(
    st.builds(Seen, st.sampled_from([True, False, None]), st.just("HTTP 500"), st.booleans()), max_size=40
)
breakers = st.one_of(
    st.builds(Breaker, st.just("closed"), st.integers(0, FAILURES - 1), st.integers(0, 100)),
    st.builds(Breaker, st.sampled_from(["open", "half_open"]), st.integers(FAILURES, 500), st.integers(1, 10_000)),
)


def rng() -> random.Random:
    return random.Random(7)


def test_failures_in_a_row_open_it_with_the_last_reason() -> None:
    step = after(Breaker(), [FAILED] * (FAILURES - 1) + [Seen(True, "no connection")], rng())
    assert (step.kind, step.breaker.state, step.breaker.reason) == ("opened", "open", "no connection")
    assert step.wait is not None
    assert timedelta() <= step.wait <= longest_wait(1)


def test_one_success_between_them_keeps_it_closed() -> None:
    step = after(Breaker(), [FAILED] * (FAILURES - 1) + [WORKED] + [FAILED] * (FAILURES - 1), rng())
    assert (step.kind, step.breaker.state, step.breaker.failures) == (None, "closed", FAILURES - 1)


def test_failures_are_counted_over_batches() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker = after(breaker, [FAILED], rng()).breaker
    assert breaker.state == "closed"
    assert after(breaker, [FAILED], rng()).kind == "opened"


def test_what_comes_in_late_changes_nothing_while_it_is_open() -> None:
    opened = Breaker("open", 12, 2, "HTTP 500")
    assert after(opened, [WORKED, FAILED], rng()).breaker == opened


def test_a_success_closes_it_and_only_the_probe_opens_it_again() -> None:
    """A probe may outlast its lease's first span, and another be the probe by then."""
    tried = Breaker("half_open", 10, 1, "HTTP 500")
    assert after(tried, [FAILED], rng()).breaker == tried
    assert after(tried, [WORKED], rng()).breaker == Breaker()
    assert after(tried, [Seen(False, is_probe=True)], rng()).breaker == Breaker()
    again = after(tried, [Seen(True, "HTTP 502", is_probe=True)], rng())
    assert (again.kind, again.breaker.state, again.breaker.openings) == ("opened", "open", 2)


def test_a_probe_that_never_went_out_is_followed_by_another_at_once() -> None:
    step = after(Breaker("half_open", 10, 3), [Seen(None, is_probe=True)], rng())
    assert (step.kind, step.breaker.state, step.breaker.openings, step.wait) == (None, "open", 3, timedelta())


def test_the_wait_doubles_up_to_a_bound() -> None:
    bounds = [longest_wait(n) for n in range(1, 8)]
    assert [b.total_seconds() for b in bounds] == [2, 4, 8, 16, 32, 60, 60]
    assert longest_wait(10**9) == OPEN_MOST


def test_what_counts_against_the_destination() -> None:
    assert see(Delivered(Answer(1, 200))).failed is False
    assert see(Retry("HTTP 404", Answer(1, 404))).failed is True
    assert see(Retry("no complete answer within 5 s", Answer(5000))).failed is True
    assert see(Rejected("HTTP 410: gone", Answer(1, 410))).failed is False
    assert see(Rejected("this version cannot run it", Answer())).failed is None


@given(breakers, attempts, st.integers())
def test_whatever_comes_it_stays_within_its_rules(breaker: Breaker, seen: list[Seen], seed: int) -> None:
    step = after(breaker, seen, random.Random(seed))
    assert step.breaker.state != "closed" or step.breaker.failures < FAILURES
    assert step.kind != "closed" or (breaker.state == "half_open" and step.breaker == Breaker())
    if step.kind == "opened":
        assert step.breaker.state == "open"
        assert step.wait is not None
        assert timedelta() <= step.wait <= OPEN_MOST
    if breaker.state == "open":
        assert step.breaker == breaker
