"""What becomes of a timer that somebody changes, decided over its row alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from minoots.domain.change import Change, Kept, Timing, first_timing, move, pause, resume
from minoots.domain.moment import Moved
from minoots.domain.recurrence import Missed
from minoots.domain.schedule import read_schedule
from minoots.domain.timer import NewTimer
from minoots.domain.update import TimerUpdate, decide_put, decide_update
from minoots.errors import InvalidTimer, TimerStateConflict

ID = UUID("0199f5a2-6d6e-7c40-8a51-3c1f2b9a7e10")
NOW = datetime(2030, 1, 31, 8, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def hour(number: int) -> datetime:
    """The whole hour that many hours after eight."""
    return datetime(2030, 1, 31, 8, tzinfo=UTC) + number * HOUR


def kept(timing: Timing, now: datetime = NOW, runs: int = 0) -> Kept:
    return Kept(ID, 1, runs, now, timing)


def recurring(schedule: bytes = b'{"every":"1h"}', **fields: Any) -> Timing:
    return replace(first_timing(ID, read_schedule(schedule), NOW), **fields)


def timing_of(change: Change | None) -> Timing:
    assert change is not None
    assert change.timing is not None
    return change.timing


ONCE = Timing("scheduled", 1_000, hour(2))


@pytest.mark.parametrize("status", ["fired", "settled", "failed", "cancelled"])
def test_what_has_ended_is_not_changed(status: str) -> None:
    ended = kept(replace(ONCE, status=status))
    for decide in (
        lambda: pause(ended),
        lambda: resume(ended, False),
        lambda: move(ended, Moved(duration_ms=1)),
        lambda: decide_update(ended, TimerUpdate({})),
    ):
        with pytest.raises(TimerStateConflict) as refused:
            decide()
        assert refused.value.status == status


def test_a_new_schedule_is_planned_from_now_on() -> None:
    timing = first_timing(ID, read_schedule(b'{"every":"1h","jitter":"10m"}'), NOW)
    assert timing.fire_at == hour(1)
    assert list(timing.planned) == [hour(n) for n in range(2, 33)]
    assert (timing.planned_to, timing.plan_ends) == (hour(32), False)
    assert 0 < timing.jitter_ms <= 600_000
    assert timing.schedule == '{"specs":[{"every":"1h"}],"jitter":"10m"}'


def test_a_schedule_that_is_soon_over_ends_with_its_plan() -> None:
    timing = first_timing(ID, read_schedule(b'{"every":"1h","maxOccurrences":2}'), NOW)
    assert (timing.fire_at, list(timing.planned), timing.plan_ends) == (hour(1), [hour(2)], True)


@pytest.mark.parametrize(
    ("schedule", "runs"),
    [(b'{"every":"1h","endAt":"2030-01-31T08:45:00Z"}', 0), (b'{"every":"1h","maxOccurrences":3}', 3)],
)
def test_a_schedule_that_has_nothing_to_come_is_refused(schedule: bytes, runs: int) -> None:
    with pytest.raises(InvalidTimer) as refused:
        first_timing(ID, read_schedule(schedule), NOW, "/here", runs=runs)
    assert refused.value.findings[0].pointer == "/here"
    assert refused.value.detail


def test_what_came_due_in_a_pause_is_missed_however_long_it_was() -> None:
    paused = kept(recurring(b'{"every":"1s"}', status="paused"), NOW + timedelta(days=365))
    change = resume(paused, False)
    assert change is not None
    first = NOW + timedelta(seconds=1)
    assert change.missed == Missed(first, paused.now, 365 * 86_400, "paused")
    timing = timing_of(change)
    assert (timing.status, timing.fire_at, len(timing.planned)) == ("scheduled", paused.now + timedelta(seconds=1), 31)
    assert timing.planned_to == timing.planned[-1]


def test_jitter_is_waited_for_before_an_instant_counts_as_missed() -> None:
    timing = recurring(status="paused", jitter_ms=600_000)
    for minutes, missed in ((9, 0), (10, 1)):
        change = resume(kept(timing, hour(1) + timedelta(minutes=minutes)), False)
        assert change is not None
        assert (0 if change.missed is None else change.missed.count) == missed
        assert timing_of(change).fire_at == hour(1 + missed)


def test_a_schedule_that_ended_in_a_pause_has_nothing_more() -> None:
    timing = recurring(b'{"every":"1h","endAt":"2030-01-31T10:30:00Z"}', status="paused")
    change = resume(kept(timing, hour(9)), False)
    assert change is not None
    assert change.missed == Missed(hour(1), hour(2), 2, "paused")
    assert (timing_of(change).fire_at, timing_of(change).plan_ends) == (None, True)


def test_catching_up_leaves_it_to_the_planner() -> None:
    timing = recurring(status="paused")
    late = resume(kept(timing, hour(5)), True)
    assert late is not None
    assert late.missed is None
    assert timing_of(late) == replace(timing, status="scheduled", is_held=True)
    assert timing_of(resume(kept(timing), True)) == replace(timing, status="scheduled")


def test_a_timer_that_was_never_planned_is_left_to_the_planner() -> None:
    timing = Timing("paused", None, None, '{"every":"1h"}')
    assert resume(kept(timing), False) == Change("resumed", replace(timing, status="scheduled"))


def test_an_instant_moves_the_next_occurrence_and_drops_what_it_passes() -> None:
    between = hour(2) + timedelta(minutes=10)
    timing = timing_of(move(kept(recurring()), Moved(fire_at=between)))
    assert (timing.fire_at, timing.planned[0], timing.planned_to) == (between, hour(3), hour(32))
    beyond = timing_of(move(kept(recurring()), Moved(fire_at=hour(100))))
    assert (beyond.fire_at, list(beyond.planned), beyond.planned_to) == (hour(100), [], hour(100))
    sooner = timing_of(move(kept(recurring()), Moved(duration_ms=1_000)))
    assert (sooner.fire_at, sooner.planned[0]) == (NOW + timedelta(seconds=1), hour(2))
    assert sooner.duration_ms is None


def test_an_instant_just_past_never_fires_an_occurrence_twice() -> None:
    timing = timing_of(move(kept(recurring(), hour(1) + timedelta(seconds=30)), Moved(fire_at=hour(1))))
    assert timing.fire_at == hour(1) + timedelta(seconds=30)


def test_an_instant_long_past_is_refused_unless_it_is_the_same() -> None:
    past = NOW - timedelta(minutes=2)
    with pytest.raises(InvalidTimer) as refused:
        move(kept(ONCE), Moved(fire_at=past))
    assert refused.value.findings[0].pointer == "/fireAt"
    assert timing_of(move(kept(replace(ONCE, fire_at=past)), Moved(fire_at=past))).fire_at == past


def test_the_same_schedule_goes_on_undisturbed_and_another_does_not() -> None:
    # As Postgres spells it.
    timing = replace(
        recurring(b'{"every":"1h","jitter":"1h"}'), schedule='{"jitter": "1h", "specs": [{"every": "1h"}]}'
    )
    same = timing_of(move(kept(timing, hour(3)), Moved(schedule=read_schedule(b'{"every":"1h","jitter":"1h"}'))))
    assert same == timing
    other = timing_of(move(kept(timing, hour(3)), Moved(schedule=read_schedule(b'{"every":"2h"}'))))
    assert (other.fire_at, other.jitter_ms) == (hour(4), 0)


def test_a_change_of_fields_alone_moves_nothing() -> None:
    change = decide_update(kept(ONCE), TimerUpdate({"name": "x"}))
    assert change == Change("rescheduled", None, None, {"name": "x"})
    assert decide_update(kept(ONCE), TimerUpdate({})) is None


def test_a_recurring_timer_that_fires_once_from_now_on_has_no_schedule() -> None:
    update = TimerUpdate({}, Moved(fire_at=hour(4)), is_once=True)
    assert timing_of(decide_update(kept(recurring()), update)) == Timing("scheduled", None, hour(4))
    with pytest.raises(InvalidTimer):
        decide_update(kept(recurring()), TimerUpdate({}, is_once=True))
    assert decide_update(kept(ONCE), TimerUpdate({}, is_once=True)) is None


def test_a_put_replaces_everything() -> None:
    new = NewTimer("ann", "n", None, None, None, "{}", None, None, None, read_schedule(b'{"every":"1h"}'))
    change = decide_put(kept(replace(ONCE, status="paused")), new)
    assert change.fields == {
        "requested_by": "ann", "labels": "{}", "metadata": None, "action_bundle": None, "agent_binding": None,
    }  # fmt: skip
    assert timing_of(change) == recurring(status="paused")


THREE_TIMES = b'{"every":"1h","maxOccurrences":3}'


@pytest.mark.parametrize(
    ("there", "planned", "ends"),
    [
        (hour(2) - HOUR / 2, [hour(2), hour(3)], True),
        (hour(2) + HOUR / 2, [hour(3)], False),
        (hour(9), [], False),
    ],
)
def test_what_a_move_drops_may_still_come(there: datetime, planned: list[datetime], ends: bool) -> None:
    timing = recurring(THREE_TIMES)
    assert timing.plan_ends
    moved = timing_of(move(kept(timing), Moved(fire_at=there)))
    assert (moved.fire_at, list(moved.planned), moved.plan_ends) == (there, planned, ends)


def test_what_was_missed_in_a_pause_counts_for_no_occurrence() -> None:
    change = resume(kept(recurring(THREE_TIMES, status="paused"), hour(9)), False)
    assert change is not None
    timing = timing_of(change)
    assert (timing.fire_at, list(timing.planned), timing.plan_ends) == (hour(10), [hour(11), hour(12)], True)
