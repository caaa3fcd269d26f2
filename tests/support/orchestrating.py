"""An orchestrator in the test's own process, working from Postgres alone, with everything it has in production."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from minoots.access.ack_tokens import AckTokens
from minoots.access.keyring import load_keyring
from minoots.clock import SystemClock
from minoots.domain.target import Targets
from minoots.orchestrator.acknowledging import AckOffers
from minoots.orchestrator.actions.webhook import WebhookRunner, runners
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.lanes import Lanes
from minoots.orchestrator.overdue import Overdue
from minoots.runtime.loop import Loop
from minoots.store.database import Database


@contextlib.asynccontextmanager
async def orchestrating(
    database: Database,
    node: str = "here",
    capacity: int = 64,
    margin_ms: int = 5_000,
    *,
    looping: bool = True,
    lane_capacity: int = 64,
    webhooks: WebhookRunner | None = None,
    public_url: str = "http://127.0.0.1:4000",
) -> AsyncIterator[Orchestrator]:
    """Takes what is due until the block ends; with `looping` False only when told to, by `take_due`."""
    async with webhooks or WebhookRunner(2 * capacity, Targets.of((), loopback=True)) as webhooks:
        wake = asyncio.Event()
        places = Capacity(capacity, lane_capacity)
        orchestrator = Orchestrator(
            database,
            Intake(database, node, margin_ms, Lanes(places, random.Random(node))),
            runners(webhooks),
            places,
            random.Random(node),
            wake.set,
            AckOffers(public_url, AckTokens(load_keyring("development", None))).offer,
        )
        stop = asyncio.Event()
        loops = [
            Loop("deliveries", orchestrator.tick, SystemClock()),
            Loop("leases", orchestrator.renew, SystemClock()),
            Loop("overdue", Overdue(database, random.Random(node)).tick, SystemClock()),
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
