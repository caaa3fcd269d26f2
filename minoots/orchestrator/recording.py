"""Writes results in batches: while one batch is being written, the next gathers."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from minoots.domain.breaker import see
from minoots.domain.outcome import Heard
from minoots.errors import Unavailable
from minoots.store.database import ROW_ERRORS, Database, describe_refusal
from minoots.store.deliveries import Lease
from minoots.store.lanes import LaneKey, SeenAttempt, see_attempts
from minoots.store.results import Result, find_locked, is_row_locked, record_results

log = structlog.get_logger("minoots.orchestrator")

BATCH = 500
# One writes at a time, for a transaction costs as much as ten results; one that takes longer than this (somebody has
# locked a row, the disk is slow) is overtaken by the other.
WRITERS = 2
TURN_S = 0.1
RETRY_S = 0.5
# Another recorder has a row for milliseconds; whoever has it longer than this must not hold up the other results.
LOCK = "500ms"
POSTPONE_S = 2.0


class Recorder:
    """A queue of results and its writers.

    `on_recorded` gets what is written or given up, and how many places of bundles that filled. `ailing` are lanes with
    failures: what succeeds there has to be counted; of the others only failures are.
    """

    def __init__(
        self,
        database: Database,
        on_recorded: Callable[[Sequence[Result], int], None],
        ailing: set[LaneKey] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._db = database
        self._on_recorded = on_recorded
        self._ailing = set() if ailing is None else ailing
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._queue: asyncio.Queue[Result] = asyncio.Queue()
        self._turn = asyncio.Lock()

    def put(self, result: Result) -> None:
        """Never waits: the orchestrator's capacity, and what may run ahead of it, bound the queue."""
        self._queue.put_nowait(result)

    async def run(self) -> None:
        """Until cancelled; stop it when nothing is under way any more."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WRITERS):
                group.create_task(self._write_on())

    async def _write_on(self) -> None:
        while True:
            batch = [await self._queue.get()]
            async with self._in_turn():
                while len(batch) < BATCH and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                await self._record(batch)

    @contextlib.asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """While no other writes, or beside one that takes too long."""
        is_mine = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    is_mine = await self._turn.acquire()
            yield
        finally:
            if is_mine:
                self._turn.release()

    async def _record(self, batch: Sequence[Result]) -> None:
        """Until it is written, however long Postgres is away: a lease that ends meanwhile makes it a repetition.

        One bad row is found by halving, and one that somebody has locked is passed by: they hold up no other.
        """
        is_told = is_locked = False
        while True:
            try:
                if is_locked:
                    return await self._pass_by(batch)
                filled = await self._db.repeat(lambda: self._write(batch))
            except (Unavailable, TimeoutError) as away:
                if is_row_locked(away) and not is_locked:
                    if len(batch) == 1:
                        return self._postpone(batch)
                    is_locked = True
                    continue
                if not is_told:
                    log.warning("orchestrator.results_wait", results=len(batch))
                    is_told = True
                await asyncio.sleep(RETRY_S)
            except ROW_ERRORS as refused:
                if len(batch) > 1:
                    return await self._halve(batch)
                # Its lease ends without a record, which shows as an attempt with an unknown outcome.
                log.error("orchestrator.result_refused", reason=describe_refusal(refused))
                return self._on_recorded(batch, 0)
            except Exception:
                # A defect or a schema in the making: results are kept, for to lose them is worse than to wait. What it
                # does not concern is written.
                log.exception("orchestrator.results_stuck", results=len(batch))
                if len(batch) > 1:
                    return await self._halve(batch)
                await asyncio.sleep(RETRY_S * 10)
            else:
                return self._on_recorded(batch, filled)

    async def _halve(self, batch: Sequence[Result]) -> None:
        middle = len(batch) // 2
        await self._record(batch[:middle])
        await self._record(batch[middle:])

    async def _pass_by(self, batch: Sequence[Result]) -> None:
        """Write those of which nobody has locked a row, and the rest later.

        By halving alone, each of them would be waited for: minutes, where somebody has locked all of a tenant's rows.
        """
        async with self._db.guarded(lock=LOCK, is_durable=False, is_keyed=True) as connection:
            locked = await find_locked(self._db, connection, [result.lease.key for result in batch])
        held = [result for result in batch if result.lease.key in locked]
        if not held:
            await self._halve(batch)
            return
        self._postpone(held)
        if free := [result for result in batch if result.lease.key not in locked]:
            await self._record(free)

    def _postpone(self, locked: Sequence[Result]) -> None:
        """Their leases are kept meanwhile, like those of everything that is not recorded."""
        log.warning(
            "orchestrator.row_locked",
            timer_id=str(locked[0].lease.key.timer_id),
            results=len(locked),
            note="tried again until it is free",
        )
        for result in locked:
            asyncio.get_running_loop().call_later(POSTPONE_S, self.put, result)

    async def _write(self, batch: Sequence[Result]) -> int:
        async with self._db.guarded(lock=LOCK, is_keyed=True) as connection:
            written, filled = await record_results(self._db, connection, batch)
            seen = self._seen(batch)
            breakers = await see_attempts(self._db, connection, seen, self._rng) if seen else {}
        if written < len(batch):
            log.info("orchestrator.results_late", late=len(batch) - written, note="their leases had ended")
        for key, breaker in breakers.items():
            (self._ailing.add if breaker.failures else self._ailing.discard)(key)
        return filled

    def _seen(self, batch: Sequence[Result]) -> list[SeenAttempt]:
        """What the lanes' breakers have to count: nothing where all goes well."""
        seen = []
        for result in batch:
            if not isinstance(result.lease, Lease) or isinstance(result.outcome, Heard):
                continue
            one, key = see(result.outcome), lane_of(result.lease)
            if one.failed or key in self._ailing:
                seen.append(SeenAttempt(key, result.lease.lease_id, result.lease.key.timer_id, one))
        return seen


def lane_of(lease: Lease) -> LaneKey:
    """Whose place it takes."""
    return LaneKey(lease.tenant_id, lease.lane)
