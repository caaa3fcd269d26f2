"""The rules around what gave up: showing it, and opening it again in batches, so that no transaction is long."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from minoots.domain.dead_letter import (
    DeadLetter,
    Place,
    RedriveKey,
    Redriven,
    RedriveRequest,
    Wanted,
    admit_redrive,
    write_cursor,
)
from minoots.errors import ClientError, DeliveryNotFound, DeliveryStateConflict, FiringNotFound, TimerNotFound
from minoots.service.timers import Page
from minoots.store import dead_letters, installation
from minoots.store.database import Database
from minoots.store.dead_letters import Standing
from minoots.store.deliveries import DeliveryKey

log = structlog.get_logger("minoots.service")

BATCH = 200


class DeadLetters:
    """What can be done with deliveries that gave up. Every call is of one tenant."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_dead(self, tenant_id: str, wanted: Wanted, after: Place | None, limit: int) -> Page[DeadLetter]:
        """The newest first."""
        async with self._db.connection() as connection:
            found = await dead_letters.list_dead(self._db, connection, tenant_id, wanted, after, limit + 1)
        cursor = None
        if len(found) > limit:
            last, dead_at = found[limit - 1]
            cursor = write_cursor(Place(dead_at, last.timer_id, last.occurrence, last.action_id))
        return Page([letter for letter, _ in found[:limit]], cursor)

    async def redrive(self, tenant_id: str, asked: RedriveRequest) -> Redriven:
        """Open again what is asked for, the oldest first; with `dry_run` only say how many that would be.

        What died after the call began is left alone. Each batch is a transaction of its own: what was opened when the
        call fails stays open, and asking again opens the rest. Raises InvalidTimer, and for a single delivery that is
        named TimerNotFound, FiringNotFound, DeliveryNotFound, and DeliveryStateConflict when it is not dead.
        """
        named, wanted = admit_redrive(asked)
        async with self._db.connection() as connection:
            now = await installation.current_instant(self._db, connection)
        if wanted is None:
            dead = await self._dead_of(tenant_id, named or [])
            matched, batches = len(dead), _in_batches(dead)
        else:
            begun = now + timedelta(microseconds=1)
            wanted = replace(wanted, until=begun if wanted.until is None else min(wanted.until, begun))
            async with self._db.connection() as connection:
                matched = await dead_letters.count_dead(self._db, connection, tenant_id, wanted)
            batches = self._found(tenant_id, wanted)
        if asked.dry_run:
            return Redriven(matched=matched, redriven=0)
        opened = await self._open(tenant_id, batches, now, 1 / asked.per_second if asked.per_second else 0.0)
        log.info("dead_letters.redriven", tenant_id=tenant_id, redriven=opened, requested_by=asked.requested_by)
        return Redriven(matched=matched, redriven=opened)

    async def _open(
        self, tenant_id: str, batches: AsyncIterator[list[DeliveryKey]], now: datetime, apart_s: float
    ) -> int:
        opened = 0
        async for keys in batches:
            first_at = now + timedelta(seconds=opened * apart_s)
            opened += await self._db.repeat(partial(self._write, tenant_id, keys, first_at, apart_s))
        return opened

    async def _write(self, tenant_id: str, keys: list[DeliveryKey], first_at: datetime, apart_s: float) -> int:
        async with self._db.guarded(lock="5s") as connection:
            return await dead_letters.redrive(self._db, connection, tenant_id, keys, first_at, apart_s)

    async def _found(self, tenant_id: str, wanted: Wanted) -> AsyncIterator[list[DeliveryKey]]:
        """What is meant, a batch at a time, each found when the one before is done."""
        after: Place | None = None
        while True:
            async with self._db.connection() as connection:
                found = await dead_letters.find_dead(self._db, connection, tenant_id, wanted, after, BATCH)
            if found:
                yield [DeliveryKey(p.timer_id, p.occurrence, p.action_id) for p in found]
                after = found[-1]
            if len(found) < BATCH:
                return

    async def _dead_of(self, tenant_id: str, named: list[RedriveKey]) -> list[DeliveryKey]:
        """Those of the named that are dead; of a single one it is told why it is not."""
        keys = list(dict.fromkeys(DeliveryKey(k.timer_id, k.occurrence, k.action_id) for k in named))
        async with self._db.connection() as connection:
            standings = await dead_letters.read_standings(self._db, connection, tenant_id, keys)
        if len(keys) == 1 and standings[0].status != "dead":
            raise _refusal(standings[0])
        return [key for key, standing in zip(keys, standings, strict=True) if standing.status == "dead"]


def _refusal(found: Standing) -> ClientError:
    if not found.is_timer:
        return TimerNotFound()
    if not found.is_fired:
        return FiringNotFound()
    if found.status is None:
        return DeliveryNotFound()
    return DeliveryStateConflict(f"the delivery is {found.status}; only a dead one can be opened again")


async def _in_batches(keys: list[DeliveryKey]) -> AsyncIterator[list[DeliveryKey]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]
