"""Taking work: leases deliveries that a message tells of, or whose time has come. It runs no action."""

from collections.abc import Collection, Sequence
from uuid import UUID

import structlog
import uuid_utils

from minoots.store import deliveries
from minoots.store.database import ROW_ERRORS, Connection, Database, describe_refusal
from minoots.store.deliveries import Candidate, DeliveryKey, Lease

log = structlog.get_logger("minoots.orchestrator")

# A webhook that says nothing of its own waits so long for the whole answer.
DEFAULT_TIMEOUT_MS = 15_000


class Intake:
    """Leases deliveries for one node. Two intakes never lease the same: rows that are locked are passed by."""

    def __init__(self, database: Database, node: str, lease_margin_ms: int) -> None:
        self._db = database
        self._node = node
        self._margin_ms = lease_margin_ms

    async def take_fired(self, firings: Collection[tuple[UUID, int]], limit: int) -> list[Lease]:
        """Lease up to `limit` never-leased deliveries of these firings; the rest are due now, for whoever has room.

        A row that cannot be leased leaves all of them to `take_due`, which finds it.
        """
        try:
            async with self._db.guarded() as connection:
                found = await deliveries.find_fired(self._db, connection, firings)
                return await self._lease(connection, found, limit, put_back=True)
        except ROW_ERRORS as refused:
            log.warning("orchestrator.lease_refused", firings=len(firings), reason=describe_refusal(refused))
            return []

    async def take_due(self, limit: int) -> list[Lease]:
        """Lease up to `limit` deliveries whose `next_attempt_at` has passed.

        A batch that is refused is halved until its culprit stands alone, which is put off: it holds up no other.
        """
        try:
            async with self._db.guarded() as connection:
                found = await deliveries.find_due(self._db, connection, limit)
                return await self._lease(connection, found, limit, put_back=False)
        except ROW_ERRORS as refused:
            if limit > 1:
                return await self.take_due(limit // 2)
            async with self._db.guarded() as connection:
                culprit = await deliveries.postpone_first(self._db, connection)
            log.error("orchestrator.delivery_postponed", delivery=str(culprit), reason=describe_refusal(refused))
            return []

    async def _lease(
        self, connection: Connection, found: Sequence[Candidate], limit: int, *, put_back: bool
    ) -> list[Lease]:
        if not found:
            return []
        allowed, waiting = await self._within_gates(connection, found)
        taken, left = allowed[:limit], allowed[limit:]
        if waiting:
            await deliveries.set_next(self._db, connection, waiting, is_due=False)
        if left and put_back:
            await deliveries.set_next(self._db, connection, left, is_due=True)
        if not taken:
            return []
        leases = await deliveries.lease(
            self._db,
            connection,
            taken,
            [UUID(int=uuid_utils.uuid7().int) for _ in taken],
            self._node,
            timeout_ms=DEFAULT_TIMEOUT_MS,
            margin_ms=self._margin_ms,
        )
        if len(leases) < len(taken):
            gone = set(taken) - {held.key for held in leases}
            log.warning("orchestrator.timers_gone", deliveries=len(gone))
            await deliveries.abandon(self._db, connection, sorted(gone))
        return leases

    async def _within_gates(
        self, connection: Connection, found: Sequence[Candidate]
    ) -> tuple[list[DeliveryKey], list[DeliveryKey]]:
        """Which may be leased, and which must wait for a place of their firing.

        A firing whose row somebody else holds is left as it is: they may be counting at this moment.
        """
        gated = {(c.key.timer_id, c.key.occurrence) for c in found if c.gate is not None}
        if not gated:
            return [c.key for c in found], []
        leased = await deliveries.lock_places(self._db, connection, sorted(gated))
        allowed: list[DeliveryKey] = []
        waiting: list[DeliveryKey] = []
        for candidate in sorted(found, key=lambda c: c.position):
            firing = (candidate.key.timer_id, candidate.key.occurrence)
            if candidate.gate is None:
                allowed.append(candidate.key)
            elif firing in leased:
                has_room = leased[firing] < candidate.gate
                (allowed if has_room else waiting).append(candidate.key)
                leased[firing] += has_room
        return allowed, waiting
