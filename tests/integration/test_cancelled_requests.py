"""A caller that goes away in the middle of a statement leaves nothing behind in the pool."""

import asyncio
import contextlib
import random

import asyncpg
import uvloop

from minoots.domain.json_text import read_json
from minoots.domain.timer import TimerRequest, admit
from minoots.service.timers import Timers
from minoots.settings import Settings
from minoots.store.database import Database


def test_what_is_answered_is_kept_whoever_was_cancelled_before(database_url: str) -> None:
    # On uvloop, as the roles run: there a cancelled BEGIN goes back to the pool the soonest.
    answered, kept, idle = uvloop.run(_cancel_and_create(database_url))
    assert answered == 150
    assert kept >= answered, "a create was answered and is not there"
    assert idle == 0, "a session stays in a transaction that nobody will end"


async def _cancel_and_create(database_url: str) -> tuple[int, int, int]:
    settings = Settings.from_env({"MINOOTS_DATABASE_URL": database_url, "MINOOTS_POOL_SIZE": "4"})
    request = read_json(b'{"requestedBy": "me", "fireAt": "2040-01-01T00:00:00Z"}', TimerRequest)
    rng = random.Random(7)
    async with Database(settings.store) as database:
        timers = Timers(database)

        async def create(tenant: str) -> None:
            # A batch with an instant has a transaction around it, which is what a cancel can leave open.
            await timers.schedule_many(tenant, [admit(request)])

        async def create_and_leave() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.uniform(0.0005, 0.02)):
                    await create("left")

        for _ in range(12):
            await asyncio.gather(*(create_and_leave() for _ in range(20)))
        await asyncio.gather(*(create("calm") for _ in range(150)))
        watcher = await asyncpg.connect(database_url)
        try:
            kept = await watcher.fetchval("select count(*) from minoots.timers where tenant_id = 'calm'")
            idle = await watcher.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in%'"
            )
        finally:
            await watcher.close()
        return 150, kept, idle
