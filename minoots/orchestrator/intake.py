"""Taking work: leases deliveries that a message tells of, or whose time has come. It runs no action."""

import random
import time
from collections import Counter
from collections.abc import Collection, Sequence
from uuid import UUID

import structlog
import uuid_utils

from minoots.orchestrator.capacity import Allotment, Capacity
from minoots.orchestrator.lanes import Lanes
from minoots.store import deliveries
from minoots.store import lanes as lanes_store
from minoots.store.database import ROW_ERRORS, Connection, Database, describe_refusal
from minoots.store.deliveries import Candidate, DeliveryKey, Lease
from minoots.store.lanes import LaneKey, Rules

log = structlog.get_logger("minoots.orchestrator")

# A webhook that says nothing of its own waits so long for the whole answer.
DEFAULT_TIMEOUT_MS = 15_000
PRUNE_EVERY_S = 600.0
# For an intake by itself.
UNBOUNDED = 1_000_000


class Intake:
    """Leases deliveries for one node. Two intakes never lease the same: rows that are locked are passed by."""

    def __init__(self, database: Database, node: str, lease_margin_ms: int, lanes: Lanes | None = None) -> None:
        self._db = database
        self._node = node
        self._margin_ms = lease_margin_ms
        self.lanes = lanes or Lanes(Capacity(UNBOUNDED, UNBOUNDED), random.Random(node))  # noqa: S311 - no secret

    async def take_fired(self, firings: Collection[tuple[UUID, int]], limit: int) -> list[Lease]:
        """Lease up to `limit` never-leased deliveries of these firings, as far as their lanes have room.

        The rest are due now, for whoever has room; but those of a lane that is open, which nobody may have. A row that
        cannot be leased leaves all of them to `take_due`, which finds it.
        """
        allotment = self.lanes.capacity.allot(limit)
        try:
            async with self._db.guarded(is_keyed=True) as connection:
                found = await deliveries.find_fired(self._db, connection, firings)
                rules = await self._rules(connection, {candidate.lane for candidate in found}, allotment)
                taken = [candidate for candidate in found if allotment.admit(candidate.lane)]
                left = _without(found, taken)
                due = [c for c in left if (rule := rules.by_lane.get(c.lane)) is None or not rule.is_open]
                if due:
                    await deliveries.set_next(self._db, connection, [c.key for c in due], is_due=True)
                leases = await self._lease(connection, taken, rules)
        except ROW_ERRORS as refused:
            log.warning("orchestrator.lease_refused", firings=len(firings), reason=describe_refusal(refused))
            return []
        self.lanes.told(rules)
        self.lanes.waiting({candidate.lane for candidate in due})
        return leases

    async def take_due(self, limit: int) -> list[Lease]:
        """Lease up to `limit` deliveries whose `next_attempt_at` has passed, fair among tenants and their lanes."""
        keys = self.lanes.due()
        if self.lanes.is_scan_due() or not keys:
            await self.scan()
            keys = self.lanes.due()
        return await self._take(keys, limit) if keys else []

    async def _take(self, keys: Sequence[LaneKey], limit: int) -> list[Lease]:
        """A batch that is refused is halved until its culprit stands alone, which is put off: it holds up no other."""
        try:
            async with self._db.guarded(is_keyed=True) as connection:
                allotment = self.lanes.capacity.allot(limit)
                rules = await self._rules(connection, keys, allotment)
                given = allotment.share(keys, self.lanes.rng)
                quotas = self.lanes.quotas(given)
                found = await deliveries.find_due(self._db, connection, quotas) if quotas else []
                leases = await self._lease(connection, found, rules)
        except ROW_ERRORS as refused:
            if len(keys) > 1:
                middle = len(keys) // 2
                leases = await self._take(keys[:middle], limit)
                return leases + (await self._take(keys[middle:], limit - len(leases)) if len(leases) < limit else [])
            if limit > 1:
                return await self._take(keys, limit // 2)
            async with self._db.guarded(is_keyed=True) as connection:
                culprit = await deliveries.postpone_first(self._db, connection, keys[0])
            log.error("orchestrator.delivery_postponed", delivery=str(culprit), reason=describe_refusal(refused))
            return []
        self.lanes.told(rules)
        self.lanes.claimed(given, found, rules)
        return leases

    async def scan(self) -> None:
        """Look which lanes have deliveries to come."""
        began = time.monotonic()
        async with self._db.connection() as connection:
            self.lanes.scanned(await lanes_store.scan(self._db, connection), began)

    async def prune(self) -> float:
        """Forget lanes without limits that work, or had no work for a week; seconds until the next time."""
        async with self._db.connection() as connection:
            await lanes_store.prune_lanes(self._db, connection)
        return PRUNE_EVERY_S

    async def _rules(self, connection: Connection, keys: Collection[LaneKey], allotment: Allotment) -> Rules:
        """What the rows of these lanes leave, for the allotment; most have no row, and the default."""
        if not keys:
            return Rules({})
        rules = await lanes_store.lock_rules(self._db, connection, keys)
        allotment.cap({key: rule.room for key, rule in rules.by_lane.items()})
        return rules

    async def _lease(self, connection: Connection, found: Sequence[Candidate], rules: Rules) -> list[Lease]:
        """Lease what was found; what has to wait for a place of its firing's bundle is due no more."""
        if not found:
            return []
        taken, waiting = await self._within_gates(connection, found)
        if waiting:
            await deliveries.set_next(self._db, connection, waiting, is_due=False)
        if not taken:
            return []
        limited = {key for key, rule in rules.by_lane.items() if rule.is_limited}
        leases = await deliveries.lease(
            self._db,
            connection,
            taken,
            [UUID(int=uuid_utils.uuid7().int) for _ in taken],
            self._node,
            timeout_ms=DEFAULT_TIMEOUT_MS,
            margin_ms=self._margin_ms,
            hold_places=[candidate.lane in limited for candidate in taken],
        )
        if len(leases) < len(taken):
            gone = {candidate.key for candidate in taken} - {held.key for held in leases}
            log.warning("orchestrator.timers_gone", deliveries=len(gone))
            await deliveries.abandon(self._db, connection, sorted(gone))
        if rules.by_lane:
            await self._apply(connection, leases, rules)
        return leases

    async def _apply(self, connection: Connection, leases: Sequence[Lease], rules: Rules) -> None:
        """Charge what was leased to its lanes' rates, and note which lease tries an open lane."""
        taken = Counter(LaneKey(held.tenant_id, held.lane) for held in leases)
        await lanes_store.charge(self._db, connection, taken, rules)
        probing = {key for key, rule in rules.by_lane.items() if rule.is_probe}
        probes = [held.key for held in leases if LaneKey(held.tenant_id, held.lane) in probing]
        if probes:
            await lanes_store.begin_probes(self._db, connection, probes)

    async def _within_gates(
        self, connection: Connection, found: Sequence[Candidate]
    ) -> tuple[list[Candidate], list[DeliveryKey]]:
        """Which may be leased, and which must wait for a place of their firing.

        A firing whose row somebody else holds is left as it is: they may be counting at this moment.
        """
        gated = {(c.key.timer_id, c.key.occurrence) for c in found if c.gate is not None}
        if not gated:
            return list(found), []
        leased = await deliveries.lock_places(self._db, connection, sorted(gated))
        allowed: list[Candidate] = []
        waiting: list[DeliveryKey] = []
        for candidate in sorted(found, key=lambda c: c.position):
            firing = (candidate.key.timer_id, candidate.key.occurrence)
            if candidate.gate is None:
                allowed.append(candidate)
            elif firing in leased:
                if leased[firing] < candidate.gate:
                    allowed.append(candidate)
                    leased[firing] += 1
                else:
                    waiting.append(candidate.key)
        return allowed, waiting


def _without(found: Sequence[Candidate], taken: Sequence[Candidate]) -> list[Candidate]:
    keys = {candidate.key for candidate in taken}
    return [candidate for candidate in found if candidate.key not in keys]
