"""The planner: computes instants ahead, catches up, ends what is used up; beside the claims, never in one."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import structlog

from minoots.domain.recurrence import PLAN_LOW, Recurring, Step, catch_up, fire_beside, go_on, plan_anew
from minoots.domain.schedule import Schedule, ScheduleTooSparse, read_schedule
from minoots.errors import InvalidTimer
from minoots.store import recurring
from minoots.store.database import ROW_ERRORS, Database, describe_refusal
from minoots.store.recurring import Attention

log = structlog.get_logger("minoots.kernel")

BATCH = 200
INTERVAL_S = 0.1
INTERVAL_MOST_S = 0.25
# What the kernel asked for and nobody got to: bounded, for the rows tell by themselves when they need a plan.
ASKED_MOST = 10_000
# How long one round computes.
DECIDE_S = 1.0

_read = lru_cache(maxsize=4_096)(lambda text: read_schedule(text.encode()))


@dataclass(frozen=True, slots=True)
class PlanRound:
    """What one round did: timers `looked` at, `moved` on, `ended` because their schedule is used up, `failed`;
    `is_more`: the next is to follow at once."""

    looked: int
    moved: int = 0
    ended: int = 0
    failed: int = 0
    is_more: bool = False


class Planner:
    """Gives recurring timers what their claim must not cost. Any number of planners share a database."""

    def __init__(self, database: Database, on_fired: Callable[[], None] = lambda: None) -> None:
        self._db = database
        self._on_fired = on_fired
        self._asked: set[UUID] = set()
        self._place: Attention | None = None

    def ask(self, timer_ids: Collection[UUID]) -> None:
        """Look at these in the next round."""
        if len(self._asked) < ASKED_MOST:
            self._asked |= set(timer_ids)

    async def tick(self) -> float:
        """One round; seconds until the next."""
        done = await self.run_once()
        if done.is_more:
            return 0.0
        return INTERVAL_S if done.moved or done.ended or done.failed else INTERVAL_MOST_S

    async def run_once(self) -> PlanRound:
        """Look at what needs a planner: what was asked for, and what the rows say."""
        async with self._db.connection() as connection:
            found = await recurring.find_attention(self._db, connection, self._place, BATCH)
            # The next look goes on where this one ended, so that what cannot be helped yet hides nothing.
            self._place = found[-1] if len(found) == BATCH else None
            asked = [self._asked.pop() for _ in range(min(BATCH, len(self._asked)))]
            wanted = {*asked, *(a.id for a in found if a.attention != "ending" and not a.waits)}
            timers = await recurring.read_whole(self._db, connection, list(wanted)) if wanted else []
        ended = await self._end([a for a in found if a.attention == "ending" and not a.waits])
        # In a thread: a rule may take a while, and the claim loop must not wait for it.
        decided, later = await asyncio.to_thread(decide_some, timers) if timers else ([], [])
        self.ask(later)
        moved, failed = await self._take(decided)
        is_more = bool(later) or (len(found) == BATCH and moved + ended + failed > 0)
        return PlanRound(len(found) + len(asked), moved, ended, failed, is_more)

    async def _take(self, decided: Sequence[tuple[Recurring, Step]]) -> tuple[int, int]:
        steps = [(timer, step) for timer, step in decided if step.failure is None]
        failed = 0
        for timer, step in decided:
            if step.failure is not None:
                failed += await self._fail(timer, step.failure)
        moved = await self._move(steps)
        if moved and any(step.fire or step.missed for _, step in steps):
            self._on_fired()
        return moved, failed

    async def _move(self, steps: Sequence[tuple[Recurring, Step]]) -> int:
        """All together; a batch that a row spoils is halved until that row is alone, which then fails."""
        if not steps:
            return 0
        try:
            async with self._db.guarded() as connection:
                free = await recurring.lock_free(self._db, connection, [timer.id for timer, _ in steps])
                ours = [(timer, step) for timer, step in steps if timer.id in free]
                return len(await recurring.move(self._db, connection, ours)) if ours else 0
        except ROW_ERRORS as refused:
            if len(steps) > 1:
                middle = len(steps) // 2
                return await self._move(steps[:middle]) + await self._move(steps[middle:])
            await self._fail(steps[0][0], describe_refusal(refused))
            return 0

    async def _end(self, ending: Sequence[Attention]) -> int:
        if not ending:
            return 0
        async with self._db.guarded() as connection:
            free = await recurring.lock_free(self._db, connection, [a.id for a in ending])
            return await recurring.end_timers(self._db, connection, [a for a in ending if a.id in free])

    async def _fail(self, timer: Recurring, reason: str) -> int:
        log.warning("kernel.schedule_failed", timer_id=str(timer.id), reason=reason)
        try:
            async with self._db.guarded() as connection:
                if not await recurring.lock_free(self._db, connection, [timer.id]):
                    return 0
                return int(await recurring.fail_timer(self._db, connection, timer.id, timer.version, reason))
        except ROW_ERRORS as refused:
            # A row that no CHECK would let in can be left as it is only: it is told of, and holds nobody up.
            log.error("kernel.timer_stuck", timer_id=str(timer.id), reason=describe_refusal(refused))
            return 0


def decide_some(
    timers: Sequence[Recurring], seconds: float = DECIDE_S, monotonic: Callable[[], float] = time.monotonic
) -> tuple[list[tuple[Recurring, Step]], list[UUID]]:
    """What becomes of each, and which have to wait for the next round because the time is up: at least one is decided.

    What has to be counted comes last, so that one tenant's does not keep the others' plans waiting.
    """
    until = monotonic() + seconds
    decided: list[tuple[Recurring, Step]] = []
    ordered = sorted(timers, key=lambda timer: timer.is_held)
    for place, timer in enumerate(ordered):
        if place and monotonic() > until:
            return decided, [later.id for later in ordered[place:]]
        step = _decide(timer)
        if step is not None:
            decided.append((timer, step))
    return decided, []


def _decide(timer: Recurring) -> Step | None:
    """None when there is nothing to do."""
    if timer.extra_firings:
        return fire_beside(timer)
    if timer.status != "scheduled":
        return None
    try:
        schedule: Schedule = _read(timer.schedule)
        if timer.queue and timer.planned_for is not None and timer.planned_for != timer.schedule_hash:
            return plan_anew(timer, schedule)
        if timer.is_held:
            waits = timer.is_running and timer.while_running != "allow"
            return None if waits else catch_up(timer, schedule)
        if timer.planned_for is None or (not timer.plan_ends and len(timer.queue) <= PLAN_LOW):
            return go_on(timer, schedule)
    except InvalidTimer as unreadable:
        found = "; ".join(f"{f.pointer}: {f.detail}" for f in unreadable.findings)
        return Step(failure=f"its schedule cannot be read: {found}")
    except ScheduleTooSparse as sparse:
        return Step(failure=str(sparse))
    except Exception as defect:
        # A defect of ours, with this schedule: it must not hold up everybody else's.
        log.exception("kernel.schedule_defect", timer_id=str(timer.id))
        return Step(failure=f"its schedule cannot be computed: {type(defect).__name__}")
    return None
