"""What a recurring timer does next, without a database."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.recurrence import (
    EXTRA_MOST,
    PLAN_INSTANTS,
    PLAN_SPAN,
    Recurring,
    catch_up,
    come_due,
    fire_beside,
    go_on,
    plan_ahead,
)
from minoots.domain.schedule import Schedule, read_schedule
from minoots.kernel.planning import decide_some

START = datetime(2027, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def schedule(**fields: Any) -> Schedule:
    return read_schedule(json.dumps({"every": "1m"} | fields).encode())


def timer(after: timedelta, **fields: Any) -> Recurring:
    """One whose next instants are each minute from START on, and for which it is `after` START now."""
    given: dict[str, Any] = {
        "id": UUID(int=7),
        "version": 3,
        "status": "scheduled",
        "queue": [START + n * MINUTE for n in range(4)],
        "planned_to": START + 3 * MINUTE,
        "plan_ends": False,
        "jitter": timedelta(0),
        "runs": 0,
        "while_running": "allow",
        "is_running": False,
        "created_at": START - MINUTE,
        "now": START + after,
    }
    return Recurring(**given | fields)


def test_what_is_due_fires_and_the_next_stays() -> None:
    step = come_due(timer(timedelta(milliseconds=3)))
    assert ([o.nominal_at for o in step.fire], step.drop, step.is_held, step.missed) == ([START], 1, False, None)


@pytest.mark.parametrize("after", [MINUTE, 61 * timedelta(seconds=1)])
def test_two_due_at_once_or_one_a_minute_late_are_held(after: timedelta) -> None:
    assert come_due(timer(after)).is_held
    assert come_due(timer(timedelta(seconds=61), queue=[START])).is_held
    assert not come_due(timer(timedelta(seconds=59), queue=[START])).is_held


def test_jitter_moves_what_is_due() -> None:
    step = come_due(timer(timedelta(seconds=70), jitter=timedelta(seconds=65)))
    assert [(o.nominal_at, o.due_at) for o in step.fire] == [(START, START + timedelta(seconds=65))]


@given(
    behind=st.integers(0, 5_000),
    most=st.integers(1, 50),
    policy=st.sampled_from(["latest", "all", "none"]),
    window=st.integers(1, 3_000),
    way=st.sampled_from(["allow", "skip", "queue"]),
    left_runs=st.one_of(st.none(), st.integers(1, 60)),
)
def test_every_instant_fires_waits_or_is_missed(
    behind: int, most: int, policy: str, window: int, way: str, left_runs: int | None
) -> None:
    known = schedule(
        catchUp={"policy": policy, "max": most, "window": f"{window}m"},
        whileRunning=way,
        **({} if left_runs is None else {"maxOccurrences": left_runs}),
    )
    now = timer(behind * MINUTE, while_running=way)
    step = catch_up(now, known)
    due = [START + n * MINUTE for n in range(behind + 1)]
    fired = [o.nominal_at for o in step.fire]
    left = [i for i in step.add if i <= now.now]
    missed = step.missed.count if step.missed else 0
    handed = [*fired, *left]
    assert handed == sorted(set(handed))
    assert set(handed) <= set(due)
    assert len(handed) <= (most if policy == "all" else 1)
    assert all(now.now - i <= window * MINUTE for i in handed)
    if left_runs is not None:
        assert len(handed) <= left_runs
    if step.missed:
        assert (step.missed.first, missed) == (due[0], due.index(step.missed.last) + 1)
        assert not handed or step.missed.last < handed[0]
    if left_runs is None or len(handed) < left_runs:
        assert missed + len(handed) == behind + 1
        assert next(i for i in step.add if i > now.now) == due[-1] + MINUTE
    assert not (way == "queue" and len(fired) > 1)


def test_a_plan_has_one_instant_at_least_and_spans_a_month_at_most() -> None:
    yearly = plan_ahead(read_schedule(b'{"cron": "0 0 1 1 *"}'), START)
    assert (yearly.instants, yearly.ends) == ([datetime(2028, 1, 1, tzinfo=UTC)], False)
    daily = plan_ahead(read_schedule(b'{"cron": "0 0 * * *"}'), START)
    assert len(daily.instants) == PLAN_INSTANTS
    weekly = plan_ahead(read_schedule(b'{"cron": "0 0 * * 1"}'), START)
    assert weekly.instants[-1] - weekly.instants[0] <= PLAN_SPAN
    assert not weekly.ends


@pytest.mark.parametrize("most", [1, 31, 32, 33, 100])
def test_plans_in_a_row_hold_as_many_as_may_fire(most: int) -> None:
    known = schedule(maxOccurrences=most)
    found: list[datetime] = []
    after, ends = START, False
    while not ends:
        plan = plan_ahead(known, after, len(found))
        found, ends = [*found, *plan.instants], plan.ends
        after = found[-1]
    assert found == [START + n * MINUTE for n in range(1, most + 1)]


def test_a_plan_goes_on_where_the_last_one_ended() -> None:
    step = go_on(timer(timedelta(0)), schedule())
    assert step.add[0] == START + 4 * MINUTE
    assert (step.drop, step.ends, step.planned_to) == (0, False, step.add[-1])


def test_what_never_fires_fails_at_its_first_plan() -> None:
    over = schedule(endAt="2026-06-01T00:00:00Z")
    step = go_on(timer(timedelta(0), queue=[], planned_to=None), over)
    assert step.failure


@pytest.mark.parametrize("policy", ["latest", "all", "none"])
def test_what_waited_in_the_queue_fires_one_after_the_other(policy: str) -> None:
    known = schedule(whileRunning="queue", catchUp={"policy": policy, "window": "1h"})
    now = timer(150 * timedelta(seconds=1), while_running="queue", free_at=START + timedelta(seconds=149))
    step = catch_up(now, known)
    assert [(o.nominal_at, o.due_at) for o in step.fire] == [(START, START + timedelta(seconds=149))]
    assert (step.add[:3], step.missed) == ([START + n * MINUTE for n in (1, 2, 3)], None)


def test_what_came_due_while_a_firing_ran_is_one_run_that_skip_leaves_out() -> None:
    now = timer(150 * timedelta(seconds=1), while_running="skip", free_at=START + timedelta(seconds=119))
    step = catch_up(now, schedule(whileRunning="skip"))
    assert step.missed is not None
    assert (step.missed.first, step.missed.last, step.missed.count) == (START, START + MINUTE, 2)
    assert (step.missed.reason, step.fire, step.add[0]) == ("running", [], START + 2 * MINUTE)


def test_one_that_was_resumed_is_late_from_then_on() -> None:
    resumed = START + timedelta(minutes=30)
    step = catch_up(timer(timedelta(minutes=30, seconds=1), not_before=resumed), schedule())
    assert [(o.nominal_at, o.due_at) for o in step.fire] == [(resumed, resumed)]
    assert come_due(timer(timedelta(minutes=30), queue=[START], not_before=resumed)).fire[0].due_at == resumed


def test_a_round_computes_for_a_while_and_leaves_the_rest() -> None:
    clock = iter(range(100))
    many = [
        replace(timer(timedelta(0)), id=UUID(int=n), schedule='{"every":"1m"}', queue=[], is_held=n < 5)
        for n in range(10)
    ]
    decided, later = decide_some(many, seconds=3, monotonic=lambda: next(clock))
    assert [t.id.int for t, _ in decided] == [5, 6, 7, 8]
    assert [i.int for i in later] == [9, 0, 1, 2, 3, 4]


def test_so_many_extra_firings_come_in_a_step() -> None:
    step = fire_beside(timer(timedelta(0), extra_firings=1_000_000))
    assert (len(step.fire), step.extra) == (EXTRA_MOST, EXTRA_MOST)
