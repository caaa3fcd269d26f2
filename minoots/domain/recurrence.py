"""What a recurring timer does next: pure decisions over its schedule, its plan and the time."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

from minoots.domain.schedule import Schedule, following, jitter_of, never_fires, run_between, schedule_text

# How far ahead instants are computed. Few enough that a change of the zones' rules finds little that was planned by the
# old ones, enough that a schedule of seconds is planned twice a minute.
PLAN_INSTANTS = 32
PLAN_SPAN = timedelta(days=35)
# With fewer planned than this, more are computed while the others are still to come.
PLAN_LOW = 8
# One that is later than this is no longer simply late: catchUp decides.
ON_TIME = timedelta(seconds=60)
# So many firings beside the schedule in one step.
EXTRA_MOST = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """The next instants of a schedule, ascending; `ends` when none follows them."""

    instants: list[datetime]
    ends: bool


@dataclass(frozen=True, slots=True)
class Missed:
    """A run of occurrences that did not fire, the first and the last of them counted."""

    first: datetime
    last: datetime
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Occurrence:
    """An instant to fire: as the schedule has it, and as it was due. `is_scheduled` is false for one beside it."""

    nominal_at: datetime
    due_at: datetime
    is_scheduled: bool = True


@dataclass(frozen=True, slots=True)
class Recurring:
    """What is kept of a recurring timer that is about to fire, or that needs the planner.

    `queue` are its next instants, the nearest first; `free_at` is when the last of its firings ended; nothing is due
    before `not_before`. `schedule` is its JSON, with the hash that the database has of it.
    """

    id: UUID
    version: int
    status: str
    queue: list[datetime]
    planned_to: datetime | None
    plan_ends: bool
    jitter: timedelta
    runs: int
    while_running: str
    is_running: bool
    created_at: datetime
    now: datetime
    not_before: datetime | None = None
    is_held: bool = False
    skip_to: datetime | None = None
    extra_firings: int = 0
    free_at: datetime | None = None
    schedule: str = ""
    schedule_hash: int | None = None
    planned_for: int | None = None

    def due(self, nominal: datetime) -> datetime:
        """When this instant of the schedule is due: its jitter later, and not before it was created or resumed."""
        return max(nominal + self.jitter, self.created_at, self.not_before or self.created_at)


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of it: what fires, what is missed, and the queue that is left (its `drop` first go, `add` follow).

    `is_held`: it leaves the claims, and the planner looks into it. `canonical` is the schedule as every door shows it.
    """

    fire: list[Occurrence] = field(default_factory=list)
    missed: Missed | None = None
    drop: int = 0
    add: list[datetime] = field(default_factory=list)
    planned_to: datetime | None = None
    ends: bool | None = None
    is_held: bool = False
    jitter_ms: int | None = None
    extra: int = 0
    canonical: str | None = None
    failure: str | None = None


def plan_ahead(schedule: Schedule, after: datetime, runs: int = 0) -> Plan:
    """The instants after `after`: at least one if there is one, at most 32 and not more than 35 days apart.

    `runs` is how many have fired or are planned already, for `maxOccurrences`. Raises ScheduleTooSparse.
    """
    wanted = PLAN_INSTANTS
    if schedule.max_occurrences is not None:
        wanted = min(wanted, schedule.max_occurrences - runs)
    if wanted <= 0:
        return Plan([], True)
    found: list[datetime] = []
    for instant in islice(following(schedule, after), wanted):
        if found and instant - found[0] > PLAN_SPAN:
            return Plan(found, False)
        found.append(instant)
    is_whole = len(found) < wanted or (
        schedule.max_occurrences is not None and runs + len(found) >= schedule.max_occurrences
    )
    return Plan(found, is_whole)


def come_due(timer: Recurring) -> Step:
    """One that was claimed: it fires, unless the planner has to find out what is still to fire. Computes no instant."""
    nominal = timer.queue[0]
    due = timer.due(nominal)
    if timer.now - due > ON_TIME or (len(timer.queue) > 1 and timer.queue[1] + timer.jitter <= timer.now):
        return Step(is_held=True)
    if timer.is_running and timer.while_running != "allow":
        return Step(is_held=True)
    return Step(fire=[Occurrence(nominal, due)], drop=1)


def catch_up(timer: Recurring, schedule: Schedule) -> Step:
    """One that was held, and of which nothing runs that it has to wait for: what fires, what is missed, the plan.

    First comes what was due while a firing ran (`whileRunning`), then, in a step of its own, what else came due
    (`catchUp`). What is missed comes before what fires: it is one run.
    """
    until = timer.now - timer.jitter
    if timer.skip_to is not None:
        return _leave_out(timer, schedule, timer.skip_to, "paused")
    if not timer.queue or timer.queue[0] > until:
        return Step()
    if timer.while_running != "allow" and timer.free_at is not None:
        ran_to = min(until, timer.free_at - timer.jitter)
        if timer.queue[0] <= ran_to:
            if timer.while_running == "skip":
                return _leave_out(timer, schedule, ran_to, "running")
            return _let_fire(timer, schedule, ran_to, schedule.catch_up.max, "running")
    most = schedule.catch_up.max if schedule.catch_up.policy == "all" else 1
    return _let_fire(timer, schedule, until, most, "late")


def _let_fire(timer: Recurring, schedule: Schedule, until: datetime, most: int, reason: str) -> Step:
    """Of what came due until then the latest `most` fire, as far as they are not older than the window.

    With `whileRunning: queue` the first of them, and the others stay in the queue; with `skip` the last.
    """
    first = timer.queue[0]
    came = run_between(schedule, first, until, most + 1)
    known = [first, *came.kept] if came.count <= most else came.kept
    fire = [i for i in known[-most:] if timer.now - timer.due(i) <= schedule.catch_up.window]
    if timer.while_running == "skip":
        fire = fire[-1:]
    if schedule.max_occurrences is not None:
        fire = fire[: max(0, schedule.max_occurrences - timer.runs)]
    later = [i for i in known if fire and i >= fire[0]]
    before = [i for i in known if not fire or i < fire[0]]
    fire, left = (fire[:1], fire[1:]) if timer.while_running == "queue" else (fire, [])
    missed = 1 + came.count - len(later)
    step = _plan_behind(timer, schedule, max(until, first), left, len(fire) + len(left))
    return replace(
        step,
        fire=[Occurrence(i, _due_in_queue(timer, i)) for i in fire],
        missed=Missed(first, before[-1], missed, reason) if missed else None,
    )


def _leave_out(timer: Recurring, schedule: Schedule, until: datetime, reason: str) -> Step:
    """All that came due until then is missed: it was paused, or a firing ran."""
    if timer.queue and timer.queue[0] > until:
        return Step()
    queued = timer.queue[:1]
    after = queued[0] if queued else timer.planned_to or timer.created_at
    came = run_between(schedule, after, until, 1)
    known = [*queued, *([came.first] if came.first else []), *came.kept]
    step = _plan_behind(timer, schedule, max(until, after), [], 0)
    if not queued and timer.planned_for != timer.schedule_hash:
        step = replace(step, **_as_read(timer, schedule))
    if not known:
        return step
    return replace(step, missed=Missed(known[0], known[-1], len(queued) + came.count, reason))


def _plan_behind(timer: Recurring, schedule: Schedule, after: datetime, left: list[datetime], fired: int) -> Step:
    """The queue anew: what is left, then the instants behind `after`."""
    plan = plan_ahead(schedule, after, timer.runs + fired)
    return Step(
        drop=len(timer.queue),
        add=[*left, *plan.instants],
        planned_to=plan.instants[-1] if plan.instants else after,
        ends=plan.ends,
    )


def _due_in_queue(timer: Recurring, nominal: datetime) -> datetime:
    """What waited for a firing was due when that had ended: it is not late for having waited."""
    due = timer.due(nominal)
    return max(due, timer.free_at) if timer.while_running == "queue" and timer.free_at is not None else due


def go_on(timer: Recurring, schedule: Schedule) -> Step:
    """More instants behind those that are planned; the first plan of a timer that was written by plain SQL.

    Raises ScheduleTooSparse.
    """
    after = timer.planned_to or (timer.queue[-1] if timer.queue else timer.created_at)
    plan = plan_ahead(schedule, after, timer.runs + len(timer.queue))
    if not plan.instants and not timer.queue and timer.planned_to is None:
        return Step(failure=never_fires(schedule, after) or "its schedule has no instant after its creation")
    step = Step(
        add=plan.instants,
        planned_to=plan.instants[-1] if plan.instants else after,
        ends=plan.ends,
        is_held=timer.is_held,
    )
    # Of a schedule that SQL has put in: it has not been read before.
    return step if timer.planned_for == timer.schedule_hash else replace(step, **_as_read(timer, schedule))


def plan_anew(timer: Recurring, schedule: Schedule) -> Step:
    """Plain SQL has put another schedule in: what was planned for the former one goes. Raises ScheduleTooSparse."""
    return replace(_plan_behind(timer, schedule, timer.now, [], 0), **_as_read(timer, schedule))


def _as_read(timer: Recurring, schedule: Schedule) -> dict[str, Any]:
    jitter = jitter_of(schedule, timer.id)
    return {"jitter_ms": jitter // timedelta(milliseconds=1), "canonical": schedule_text(schedule)}


def fire_beside(timer: Recurring) -> Step:
    """Firings that were asked for beside the schedule: at once, and the next occurrence stays where it is."""
    many = min(timer.extra_firings, EXTRA_MOST)
    beside = [Occurrence(timer.now, timer.now, is_scheduled=False)] * many
    return Step(fire=beside, extra=many, is_held=timer.is_held)
