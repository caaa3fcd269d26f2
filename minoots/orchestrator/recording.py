"""Writes results in batches: while one batch is being written, the next gathers."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from minoots.errors import Unavailable
from minoots.store.database import ROW_ERRORS, Database, describe_refusal
from minoots.store.results import Result, record_results

log = structlog.get_logger("minoots.orchestrator")

BATCH = 500
RETRY_S = 0.5


class Recorder:
    """A queue of results and the one writer of it. `on_recorded` gets what is written or given up."""

    def __init__(self, database: Database, on_recorded: Callable[[Sequence[Result], int], None]) -> None:
        self._db = database
        self._on_recorded = on_recorded
        self._queue: asyncio.Queue[Result] = asyncio.Queue()

    def put(self, result: Result) -> None:
        """Never waits: the orchestrator's capacity bounds the queue."""
        self._queue.put_nowait(result)

    async def run(self) -> None:
        """Until cancelled; stop it when nothing is under way any more."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            self._on_recorded(batch, await self._record(batch))

    async def _record(self, batch: Sequence[Result]) -> int:
        """Until it is written, however long Postgres is away: a lease that ends meanwhile makes it a repetition.

        Returns how many places the batch filled.
        """
        is_told = False
        while True:
            try:
                return await self._db.repeat(lambda: self._write(batch))
            except (Unavailable, TimeoutError):
                if not is_told:
                    log.warning("orchestrator.results_wait", results=len(batch))
                    is_told = True
                await asyncio.sleep(RETRY_S)
            except ROW_ERRORS as refused:
                if len(batch) == 1:
                    # Its lease ends without a record, which shows as an attempt with an unknown outcome.
                    log.error("orchestrator.result_refused", reason=describe_refusal(refused))
                    return 0
                middle = len(batch) // 2
                return await self._record(batch[:middle]) + await self._record(batch[middle:])
            except Exception:
                # A defect or a schema in the making: results are kept, for to lose them is worse than to wait.
                log.exception("orchestrator.results_stuck", results=len(batch))
                await asyncio.sleep(RETRY_S * 10)

    async def _write(self, batch: Sequence[Result]) -> int:
        async with self._db.guarded() as connection:
            written, filled = await record_results(self._db, connection, batch)
        if written < len(batch):
            log.info("orchestrator.results_late", late=len(batch) - written, note="their leases had ended")
        return filled
