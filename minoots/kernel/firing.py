"""The kernel: claims what is due and fires it, one statement a batch. It delivers nothing and publishes nothing."""

import asyncio
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from minoots.clock import Clock
from minoots.kernel.low_water import LowWater
from minoots.kernel.recurring import fire_recurring
from minoots.store import firings, installation
from minoots.store.database import ROW_ERRORS, Connection, Database, describe_refusal
from minoots.store.firings import START, Mark

log = structlog.get_logger("minoots.kernel")

# Between two looks when nothing is due; it grows to the second while nothing is due for longer than that.
INTERVAL_S = 0.05
INTERVAL_MOST_S = 0.25
INTERVAL_GROWTH = 1.15

# A backlog is fired by this many batches side by side: while one waits for the disk, the other computes. So long at a
# time, then it is looked anew. What is late by this much is taken for one, before a batch has come back full.
LANES = 2
DRAIN_S = 1.0
BEHIND_S = 0.5
# Its batches grow, to so many times the first, and not past so many timers: written in the order of their ids, more
# rows share a page of an index. Not at once, for a first batch that takes all there is leaves nothing to its neighbour.
GROWTH_MOST = 4
BATCH_MOST = 2_000

# The full scan: how often at most, and how much of the time it may take.
SCAN_EVERY_S = 1.0
SCAN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """What one batch did: `claimed` rows, of which `fired` fired and `failed` cannot be.

    `next_s`: seconds until the next instant that was not due yet.
    """

    claimed: int
    fired: int
    failed: int = 0
    next_s: float | None = None


class Kernel:
    """Fires what is due. Any number of kernels share a database.

    The low-water mark is what this kernel has claimed and committed: claims start behind it, so that the dead index
    entries of everything fired before are not walked again while some long transaction stops vacuum. What appears
    below the mark is found by `scan_once`.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        batch: int,
        on_fired: Callable[[], None] = lambda: None,
        on_recurring: Callable[[Collection[UUID]], None] = lambda _: None,
    ) -> None:
        self._db = database
        self._clock = clock
        self._batch = batch
        self._on_fired = on_fired
        self._on_recurring = on_recurring
        self._water = LowWater()
        self._is_due = False
        self._interval_s = INTERVAL_S
        # The table's, so that statements are planned anew as it grows; None: not looked yet.
        self._size: int | None = None
        # Whether more is due than one batch takes: what shares the machine may give way meanwhile.
        self.is_behind = False

    async def tick(self) -> float:
        """Fire what is due, a backlog for a second at most; seconds until the next look."""
        is_late = self.is_behind
        if not self._is_due:
            async with self._db.connection() as connection:
                if self._size is None:
                    self._size = await firings.size_of_timers(self._db, connection)
                seconds = await firings.seconds_to_next(self._db, connection, self._water.mark, self._size)
            if seconds is None or seconds > 0:
                return self._rest(seconds)
            is_late = seconds < -BEHIND_S
        self._is_due = False
        done = Round(0, 0) if is_late else await self.run_once()
        if is_late or done.claimed == self._batch:
            self.is_behind = self.is_behind or done.claimed == self._batch
            claimed, self.is_behind = await self._drain()
            self._is_due = claimed > 0
            self._interval_s = INTERVAL_S
            # What is late and could not be claimed is held by somebody.
            return 0.0 if self._is_due else INTERVAL_S
        if done.claimed:
            self._interval_s = INTERVAL_S
            return self._rest(done.next_s)
        # Due, but somebody else holds it, or we woke a moment early: to the next instant, or one interval.
        return self._rest(done.next_s) if done.next_s is not None and done.next_s < INTERVAL_S else INTERVAL_S

    def _rest(self, seconds: float | None) -> float:
        """Exact when the next due instant is near, else the poll interval."""
        if seconds is not None and seconds <= self._interval_s:
            self._is_due = True
            # The event loop's timers count whole milliseconds. Rounded down, the rest of one is spent on asking again,
            # a time or two; rounded up, every timer would be half a millisecond later (p50 1.3 ms instead of 0.75).
            return math.floor(max(seconds, 0.0) * 1000) / 1000
        far = seconds is None or seconds > INTERVAL_MOST_S
        self._interval_s = min(self._interval_s * INTERVAL_GROWTH, INTERVAL_MOST_S) if far else INTERVAL_S
        return self._interval_s if seconds is None else min(self._interval_s, seconds)

    async def _drain(self) -> tuple[int, bool]:
        """Batches side by side, until one comes back short: how many were claimed, and whether time was up before."""
        until = self._clock.monotonic() + DRAIN_S
        lanes = [asyncio.ensure_future(self._drain_lane(until)) for _ in range(LANES)]
        try:
            ended = await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return sum(claimed for claimed, _ in ended), all(is_time_up for _, is_time_up in ended)

    async def _drain_lane(self, until: float) -> tuple[int, bool]:
        claimed, limit = 0, self._batch
        while True:
            done = await self.run_once(limit)
            claimed += done.claimed
            if done.claimed < limit:
                return claimed, False
            self.is_behind = True
            if self._clock.monotonic() >= until:
                return claimed, True
            limit = max(limit, min(2 * limit, GROWTH_MOST * self._batch, BATCH_MOST))

    async def run_once(self, limit: int | None = None) -> Round:
        """Claim and fire one batch behind the mark, up to `limit` if given; the mark moves only after the commit."""
        batch = self._water.begin()
        try:
            done, _, last = await self._fire_from(batch.mark, limit or self._batch)
        except BaseException:
            self._water.lose(batch)
            raise
        self._water.commit(batch, last)
        return done

    async def scan(self) -> float:
        """The tick of the full scan: how long to wait so that it takes at most its share of the time."""
        began = self._clock.monotonic()
        await self.scan_once()
        took = self._clock.monotonic() - began
        return max(SCAN_EVERY_S, took / SCAN_SHARE - took)

    async def scan_once(self) -> Round:
        """Claim and fire from the start of time: a late commit, a row that another kernel lost or held.

        When the database's clock was set back, the mark follows it: else all that falls due would lie below.
        """
        async with self._db.connection() as connection:
            self._water.keep_up_with(await installation.current_instant(self._db, connection))
            self._size = await firings.size_of_timers(self._db, connection)
        done, first, _ = await self._fire_from(START, self._batch)
        if first is not None and done.claimed == self._batch and first < self._water.mark:
            self._water.lower(Mark(first.due_at, START.id))
        return done

    async def _fire_from(self, mark: Mark, limit: int) -> tuple[Round, Mark | None, Mark | None]:
        """Up to `limit` timers behind the mark: what that did, and its first and last row."""
        try:
            async with self._db.connection() as connection:
                began = self._clock.monotonic()
                batch = await firings.fire_due(self._db, connection, mark, limit, self._size or 0)
            first, last = batch.first, batch.last
            # It was counted from the statement's beginning.
            next_s = None if batch.next_s is None else batch.next_s - (self._clock.monotonic() - began)
            done = Round(batch.claimed, batch.fired, next_s=next_s)
            if batch.recurring:
                moved = await self._fire_these(batch.recurring)
                done = Round(batch.claimed, batch.fired + moved.fired, moved.failed, next_s)
        except ROW_ERRORS as refused:
            async with self._db.guarded() as connection:
                claimed = await firings.claim_due(self._db, connection, mark, limit)
            log.warning("kernel.batch_refused", timers=len(claimed), reason=describe_refusal(refused))
            first, last = (claimed[0], claimed[-1]) if claimed else (None, None)
            done = await self._fire_these([claim.id for claim in claimed]) if claimed else Round(0, 0)
        if done.fired or done.failed:
            self._on_fired()
            log.debug("kernel.fired", fired=done.fired, failed=done.failed)
        return done, first, last

    async def _fire_these(self, timer_ids: Sequence[UUID]) -> Round:
        """Fire those that are still due; a refused batch is halved until the culprit is alone, which then fails."""
        try:
            async with self._db.guarded() as connection:
                claimed = await firings.claim_again(self._db, connection, timer_ids)
                fired, for_planner = await self._fire(connection, claimed)
        except ROW_ERRORS as refused:
            if len(timer_ids) == 1:
                return Round(1, 0, await self._fail(timer_ids[0], describe_refusal(refused)))
            middle = len(timer_ids) // 2
            one, other = await self._fire_these(timer_ids[:middle]), await self._fire_these(timer_ids[middle:])
            return Round(len(timer_ids), one.fired + other.fired, one.failed + other.failed)
        if for_planner:
            self._on_recurring(for_planner)
        return Round(len(timer_ids), fired)

    async def _fire(self, connection: Connection, claimed: Sequence[Mark]) -> tuple[int, Collection[UUID]]:
        """Fire what the open transaction has claimed: how many, and which recurring ones need the planner."""
        once = [mark for mark in claimed if not mark.recurs]
        again = [mark.id for mark in claimed if mark.recurs]
        fired = await firings.fire_timers(self._db, connection, once) if once else 0
        if not again:
            return fired, ()
        moved = await fire_recurring(self._db, connection, again)
        return fired + moved.moved, moved.for_planner

    async def _fail(self, culprit: UUID, reason: str) -> int:
        log.warning("kernel.timer_failed", timer_id=str(culprit), reason=reason)
        try:
            async with self._db.guarded() as connection:
                await firings.fail_timer(self._db, connection, culprit, f"cannot be fired: {reason}")
        except ROW_ERRORS as refused:
            # A row that no CHECK would let in can be left as it is only: it is told of, and holds nobody up.
            log.error("kernel.timer_stuck", timer_id=str(culprit), reason=describe_refusal(refused))
            return 0
        return 1
