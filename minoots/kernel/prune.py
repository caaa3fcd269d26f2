"""Removes what is past its time, in small batches beside the traffic."""

from minoots.store import idempotency
from minoots.store.database import Database

BATCH = 1_000
EVERY_S = 60.0


class Pruner:
    """Idempotency keys after their 24 hours. Several may run: each takes what the others have not locked."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def run_once(self) -> int:
        """One batch: how many rows went."""
        async with self._db.guarded() as connection:
            return await idempotency.prune_keys(self._db, connection, BATCH)

    async def tick(self) -> float:
        """Seconds until the next batch: at once while they are full."""
        return 0.0 if await self.run_once() == BATCH else EVERY_S
