"""The kernel: claims what is due and fires it, one transaction a batch. It delivers nothing and publishes nothing."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from minoots.clock import Clock
from minoots.store import firings
from minoots.store.database import ROW_ERRORS, Database, describe_refusal
from minoots.store.firings import START, Mark

log = structlog.get_logger("minoots.kernel")

# Between two looks when nothing is due; it grows to the second while nothing is due for longer than that.
INTERVAL_S = 0.05
INTERVAL_MOST_S = 0.25
INTERVAL_GROWTH = 1.15

# The full scan: how often at most, and how much of the time it may take.
SCAN_EVERY_S = 1.0
SCAN_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """What one batch did: `claimed` rows, of which `fired` fired and `failed` cannot be."""

    claimed: int
    fired: int
    failed: int = 0


class Kernel:
    """Fires what is due. Any number of kernels share a database.

    The low-water mark is what this kernel has claimed and committed: claims start behind it, so that the dead index
    entries of everything fired before are not walked again while some long transaction stops vacuum. What appears
    below the mark is found by `scan_once`.
    """

    def __init__(
        self, database: Database, clock: Clock, batch: int, on_fired: Callable[[], None] = lambda: None
    ) -> None:
        self._db = database
        self._clock = clock
        self._batch = batch
        self._on_fired = on_fired
        self._mark = START
        self._is_due = False
        self._interval_s = INTERVAL_S

    async def tick(self) -> float:
        """Fire one batch if something is due; seconds until the next look."""
        if not self._is_due:
            async with self._db.connection() as connection:
                seconds = await firings.seconds_to_next(self._db, connection, self._mark)
            if seconds is None or seconds > 0:
                return self._rest(seconds)
        done = await self.run_once()
        self._is_due = done.claimed == self._batch
        if done.claimed:
            self._interval_s = INTERVAL_S
            return 0.0
        # Due, but somebody else holds it, or we woke a moment early: to the next instant, or one interval.
        async with self._db.connection() as connection:
            seconds = await firings.seconds_to_next(self._db, connection, None)
        return self._rest(seconds) if seconds is not None and seconds < INTERVAL_S else INTERVAL_S

    def _rest(self, seconds: float | None) -> float:
        """Exact when the next due instant is near, else the poll interval."""
        if seconds is not None and seconds <= self._interval_s:
            self._is_due = True
            # The event loop's timers count whole milliseconds: rounded up, or we would wake before the instant.
            return math.ceil(max(seconds, 0.0) * 1000) / 1000
        far = seconds is None or seconds > INTERVAL_MOST_S
        self._interval_s = min(self._interval_s * INTERVAL_GROWTH, INTERVAL_MOST_S) if far else INTERVAL_S
        return self._interval_s if seconds is None else min(self._interval_s, seconds)

    async def run_once(self) -> Round:
        """Claim and fire one batch behind the mark; the mark moves only after the commit."""
        before = self._mark
        done, claimed = await self._fire_from(before)
        # Unless a scan has lowered it meanwhile, for good reason.
        if claimed and self._mark is before:
            self._mark = claimed[-1]
        return done

    async def scan(self) -> float:
        """The tick of the full scan: how long to wait so that it takes at most its share of the time."""
        began = self._clock.monotonic()
        await self.scan_once()
        took = self._clock.monotonic() - began
        return max(SCAN_EVERY_S, took / SCAN_SHARE - took)

    async def scan_once(self) -> Round:
        """Claim and fire from the start of time: a late commit, a row that another kernel lost or held."""
        done, claimed = await self._fire_from(START)
        if len(claimed) == self._batch and claimed[0] < self._mark:
            self._mark = Mark(claimed[0].due_at, START.id)
        return done

    async def _fire_from(self, mark: Mark) -> tuple[Round, list[Mark]]:
        claimed: list[Mark] = []
        try:
            async with self._db.guarded() as connection:
                claimed = await firings.claim_due(self._db, connection, mark, self._batch)
                fired = await firings.fire_timers(self._db, connection, claimed) if claimed else 0
            done = Round(len(claimed), fired)
        except ROW_ERRORS as refused:
            if not claimed:
                raise
            log.warning("kernel.batch_refused", timers=len(claimed), reason=describe_refusal(refused))
            done = await self._fire_apart(claimed)
        if done.fired or done.failed:
            self._on_fired()
            log.debug("kernel.fired", fired=done.fired, failed=done.failed)
        return done, claimed

    async def _fire_apart(self, claimed: Sequence[Mark]) -> Round:
        """Halve a refused batch until the culprit is alone: it fails, the others fire."""
        fired = failed = 0
        halves = [claimed[: len(claimed) // 2], claimed[len(claimed) // 2 :]] if len(claimed) > 1 else [claimed]
        for half in halves:
            try:
                async with self._db.guarded() as connection:
                    again = await firings.claim_again(self._db, connection, half)
                    fired += await firings.fire_timers(self._db, connection, again) if again else 0
            except ROW_ERRORS as refused:
                if len(half) > 1:
                    apart = await self._fire_apart(half)
                    fired, failed = fired + apart.fired, failed + apart.failed
                else:
                    failed += await self._fail(half[0], describe_refusal(refused))
        return Round(len(claimed), fired, failed)

    async def _fail(self, culprit: Mark, reason: str) -> int:
        log.warning("kernel.timer_failed", timer_id=str(culprit.id), reason=reason)
        try:
            async with self._db.guarded() as connection:
                await firings.fail_timer(self._db, connection, culprit.id, f"cannot be fired: {reason}")
        except ROW_ERRORS as refused:
            # A row that no CHECK would let in can be left as it is only: it is told of, and holds nobody up.
            log.error("kernel.timer_stuck", timer_id=str(culprit.id), reason=describe_refusal(refused))
            return 0
        return 1
