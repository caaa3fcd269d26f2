"""What becomes of a timer that somebody changes: pure decisions over its row as it was read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from minoots.domain.moment import Moved
from minoots.domain.recurrence import Missed, plan_ahead
from minoots.domain.schedule import (
    Schedule,
    ScheduleTooSparse,
    jitter_of,
    never_fires,
    read_schedule,
    run_between,
    schedule_text,
)
from minoots.errors import InvalidTimer, TimerStateConflict

# An instant that is later than this is no slip of a clock.
PAST_MOST = timedelta(minutes=1)
_MS = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Timing:
    """The columns that say when a timer fires. `planned` are the instants after `fire_at`, ascending."""

    status: str
    duration_ms: int | None
    fire_at: datetime | None
    schedule: str | None = None
    planned: Sequence[datetime] = ()
    planned_to: datetime | None = None
    plan_ends: bool = False
    jitter_ms: int = 0
    is_held: bool = False

    @property
    def jitter(self) -> timedelta:
        return self.jitter_ms * _MS


@dataclass(frozen=True, slots=True)
class Kept:
    """A timer as it was read at `now`, the database's. `runs` counts the occurrences of its schedule that fired."""

    id: UUID
    version: int
    runs: int
    now: datetime
    timing: Timing


@dataclass(frozen=True, slots=True)
class Change:
    """What to write: `kind` is the event's, `fields` are new values by column, JSON as text.

    Without `timing` nothing moves.
    """

    kind: str
    timing: Timing | None = None
    missed: Missed | None = None
    fields: dict[str, str | None] | None = None


def check_open(kept: Kept, step: str) -> None:
    """Raises TimerStateConflict for a timer that does not wait; `step` as in "cannot be paused"."""
    status = kept.timing.status
    if status not in ("scheduled", "paused"):
        raise TimerStateConflict(status, f"the timer is {status}; only a timer that waits can be {step}")


def pause(kept: Kept) -> Change | None:
    """None when it is paused already."""
    check_open(kept, "paused")
    if kept.timing.status == "paused":
        return None
    return Change("paused", replace(kept.timing, status="paused"))


def resume(kept: Kept, catch_up: bool) -> Change | None:
    """None when it is scheduled already. May take long: it counts what came due of a recurring timer."""
    check_open(kept, "resumed")
    timing = kept.timing
    if timing.status == "scheduled":
        return None
    going = replace(timing, status="scheduled")
    until = kept.now - timing.jitter
    if timing.schedule is None or (timing.fire_at is not None and timing.fire_at > until):
        return Change("resumed", going)
    if catch_up:
        return Change("resumed", replace(going, is_held=timing.fire_at is not None))
    return _skip(kept, going, until)


def _skip(kept: Kept, going: Timing, until: datetime) -> Change:
    """Go on with the first instant after `until`; those before it are missed."""
    first = going.fire_at
    start = first or going.planned_to
    if start is None or (first is None and going.plan_ends):
        # The planner has not seen it yet, or there is nothing more to come: nothing was missed.
        return Change("resumed", going)
    schedule = read_schedule((going.schedule or "").encode())
    came = run_between(schedule, start, until, 1)
    count = came.count + (first is not None)
    last = came.kept[-1] if came.kept else first
    missed = Missed(first or came.first or start, last or start, count, "paused") if count else None
    try:
        plan = plan_ahead(schedule, max(until, start), kept.runs)
    except ScheduleTooSparse as sparse:
        raise InvalidTimer.at("/schedule", str(sparse)) from None
    return Change("resumed", _planned(going, plan.instants, max(until, start), plan.ends), missed)


def move(kept: Kept, moved: Moved, is_once: bool = False) -> Change:
    """Another instant or schedule. `is_once`: a recurring timer fires once from now on. Raises InvalidTimer.

    May take long: a schedule is planned.
    """
    check_open(kept, "changed")
    if moved.schedule is not None:
        return Change("rescheduled", recur(kept, moved.schedule, moved.pointer))
    at = _instant(kept, moved)
    if kept.timing.schedule is None or is_once:
        return Change("rescheduled", Timing(kept.timing.status, moved.duration_ms, at))
    # An instant just past may have fired already, and none fires twice: it is now.
    at = max(at, kept.now)
    later = [instant for instant in kept.timing.planned if instant > at]
    last = max(at, kept.timing.planned_to or at)
    # What leaves the plan unfired leaves maxOccurrences something: the planner finds out again where the plan ends.
    ends = kept.timing.plan_ends and len(later) == len(kept.timing.planned)
    return Change(
        "rescheduled",
        replace(kept.timing, fire_at=at, planned=later, planned_to=last, plan_ends=ends, is_held=False),
    )


def _instant(kept: Kept, moved: Moved) -> datetime:
    if moved.duration_ms is not None:
        return kept.now + moved.duration_ms * _MS
    assert moved.fire_at is not None, "one of the three is set"
    if moved.fire_at < kept.now - PAST_MOST and moved.fire_at != kept.timing.fire_at:
        raise InvalidTimer.at("/fireAt", "fireAt is more than a minute in the past")
    return moved.fire_at


def recur(kept: Kept, schedule: Schedule, pointer: str = "/schedule") -> Timing:
    """The schedule in the place of what there was, planned anew; one that is the same goes on undisturbed.

    Raises InvalidTimer when it can never fire.
    """
    text = schedule_text(schedule)
    if kept.timing.schedule is not None and schedule_text(read_schedule(kept.timing.schedule.encode())) == text:
        return kept.timing
    return first_timing(kept.id, schedule, kept.now, pointer, kept.timing.status, kept.runs)


def first_timing(
    timer_id: UUID,
    schedule: Schedule,
    now: datetime,
    pointer: str = "/schedule",
    status: str = "scheduled",
    runs: int = 0,
) -> Timing:
    """The plan of a schedule that begins now; raises InvalidTimer when it can never fire. May take long."""
    try:
        plan = plan_ahead(schedule, now, runs)
    except ScheduleTooSparse as sparse:
        raise InvalidTimer.at(pointer, str(sparse)) from None
    if not plan.instants:
        used_up = f"maxOccurrences is {schedule.max_occurrences}, and the timer has fired {runs} times already"
        raise InvalidTimer.at(pointer, never_fires(schedule, now) or used_up)
    timing = Timing(status, None, None, schedule=schedule_text(schedule))
    return own_jitter(_planned(timing, plan.instants, now, plan.ends), schedule, timer_id)


def own_jitter(timing: Timing, schedule: Schedule, timer_id: UUID) -> Timing:
    """The same plan for the timer of this id: its jitter is its own, and the same for all its occurrences."""
    assert timing.fire_at is not None, "a plan begins with an instant"
    return replace(timing, jitter_ms=jitter_of(schedule, timer_id, timing.fire_at) // _MS)


def _planned(timing: Timing, instants: Sequence[datetime], after: datetime, ends: bool) -> Timing:
    return replace(
        timing,
        fire_at=instants[0] if instants else None,
        planned=list(instants[1:]),
        planned_to=instants[-1] if instants else after,
        plan_ends=ends,
        is_held=False,
    )
