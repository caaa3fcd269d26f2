"""An orchestrator in the test's own process, working from Postgres alone, with everything it has in production."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from minoots.clock import SystemClock
from minoots.orchestrator.actions.webhook import WebhookRunner, runners
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.intake import Intake
from minoots.runtime.loop import Loop
from minoots.store.database import Database


@contextlib.asynccontextmanager
async def orchestrating(
    database: Database, node: str = "here", capacity: int = 64, margin_ms: int = 5_000, *, looping: bool = True
) -> AsyncIterator[Orchestrator]:
    """Takes what is due until the block ends; with `looping` False only when told to, by `take_due`."""
    async with WebhookRunner(capacity) as webhooks:
        wake = asyncio.Event()
        orchestrator = Orchestrator(
            database,
            Intake(database, node, margin_ms),
            runners(webhooks),
            Capacity(capacity),
            random.Random(node),
            wake.set,
        )
        stop = asyncio.Event()
        loops = [
            Loop("deliveries", orchestrator.tick, SystemClock()),
            Loop("leases", orchestrator.renew, SystemClock()),
        ]
        running = [asyncio.create_task(loop.run(stop)) for loop in loops if looping]
        running.append(asyncio.create_task(orchestrator.recorder.run()))
        try:
            yield orchestrator
        finally:
            stop.set()
            await orchestrator.drain(0)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
