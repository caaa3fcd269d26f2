"""What `fire` and `lateness` share: load, hold a snapshot, wait for the last firing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from minoots.bench import loading
from minoots.bench.loading import Cohort
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

# Without any progress for this long, what has not fired is lost.
PATIENCE_S = 20.0
LOOK_EVERY_S = 0.05

# Hears how many have fired so far.
Meanwhile = Callable[[int], None]


async def load_ballast(stage: Stage, made: Installation, count: int) -> None:
    """What waits and is never due."""
    if count:
        stage.bar.step("loading what waits", of=count)
        await loading.load_timers(made, loading.ballast(count, await loading.database_now(made)), stage.bar.at)
        stage.bar.step("vacuum and checkpoint")
        await loading.settle(made, "timers")


async def load_due(stage: Stage, made: Installation, cohort: Cohort) -> None:
    """What will fire."""
    stage.bar.step("loading what will fire", of=cohort.count)
    await loading.load_timers(made, cohort, stage.bar.at)


@contextlib.asynccontextmanager
async def held_snapshot(made: Installation, wanted: bool) -> AsyncIterator[None]:
    """A long transaction elsewhere in the database, as a backup or a report is: vacuum can remove nothing."""
    if not wanted:
        yield
        return
    async with made.connection() as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        await connection.fetchval("select count(*) from pg_class")
        try:
            yield
        finally:
            await transaction.rollback()


async def until_fired(stage: Stage, made: Installation, count: int, meanwhile: Meanwhile | None = None) -> None:
    """Return when `count` timers have fired, or nothing has happened for long. `meanwhile` hears how many have.

    The outbox's sequence tells: to count rows that die as they are fired would disturb what is measured.
    """
    async with made.connection() as connection:
        done, moved_at = 0, time.monotonic()
        while done < count and time.monotonic() - moved_at < PATIENCE_S:
            before, done = done, await loading.events_written(made, connection)
            if done != before:
                moved_at = time.monotonic()
            stage.bar.at(done)
            if meanwhile is not None:
                meanwhile(done)
            await asyncio.sleep(LOOK_EVERY_S)
