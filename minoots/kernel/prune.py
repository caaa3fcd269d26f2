"""Removes what is past its time, in small batches beside the traffic."""

from collections.abc import Awaitable, Callable

import structlog

from minoots.clock import Clock
from minoots.domain.retention import Retention
from minoots.store import idempotency, retention, secrets
from minoots.store.database import Connection, Database
from minoots.store.retention import BEGINNING, Place, Pruned

log = structlog.get_logger("minoots.prune")

BATCH = 1_000
EVERY_S = 60.0

# How much of the time removing may take, and how much looking again at what stays; at the least and the most between
# two looks when there is nothing to do.
SHARE = 0.15
AGAIN_SHARE = 0.03
LOOK_S = (1.0, 60.0)

PruneBatch = Callable[[Database, Connection, Retention, Place, int], Awaitable[Pruned]]


class Pruner:
    """Idempotency keys after their 24 hours, signing secrets after their overlap.

    Several may run: each takes what the others have not locked.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def run_once(self) -> int:
        """One batch: how many keys went; of secrets there are few."""
        async with self._db.guarded() as connection:
            await secrets.prune_secrets(self._db, connection, BATCH)
            return await idempotency.prune_keys(self._db, connection, BATCH)

    async def tick(self) -> float:
        """Seconds until the next batch: at once while they are full."""
        return 0.0 if await self.run_once() == BATCH else EVERY_S


class Walk:
    """One way along what ended, oldest first, in batches: over the firings, or over timers that no firing tells of."""

    def __init__(self, database: Database, prune: PruneBatch, otherwise: Retention, batch: int) -> None:
        self._db = database
        self._prune = prune
        self._otherwise = otherwise
        self._batch = batch
        self._at = BEGINNING

    async def step(self) -> Pruned:
        """Remove what is past retention among the next rows, and go on behind them; only after the commit."""
        async with self._db.guarded() as connection:
            done = await self._prune(self._db, connection, self._otherwise, self._at, self._batch)
        # Of many that fired at one instant only a batch has gone: the others come next.
        if done.last and not (done.walked > self._batch and max(done.timers, done.firings) >= self._batch):
            self._at = done.last
        return done

    def is_full(self, done: Pruned) -> bool:
        """Whether there may be more behind it."""
        return done.walked >= self._batch

    def restart(self) -> None:
        """Begin again with the oldest."""
        self._at = BEGINNING


class EndedPruner:
    """Timers and firings past their retention. Any number may run: each takes what the others have not locked.

    `tick` goes forward through what comes of age. What it leaves behind (it is kept for longer than others, its
    delivery took long, somebody had it locked) is found by `tick_again`, which walks all of it, slowly, again and
    again: how late something goes is bound by how long that takes.
    """

    def __init__(self, database: Database, clock: Clock, otherwise: Retention, batch: int = BATCH) -> None:
        self._clock = clock
        ways = (retention.prune_fired, retention.prune_retained)
        self._forward = [Walk(database, way, otherwise, batch) for way in ways]
        self._again = [Walk(database, way, otherwise, batch) for way in ways]

    async def run_once(self) -> int:
        """One batch of each way from where the last ended: how many timers and firings went."""
        return sum(done.timers + done.firings for done in [await walk.step() for walk in self._forward])

    async def tick(self) -> float:
        """One batch of each way; how long to wait so that this takes at most its share of the time."""
        began = self._clock.monotonic()
        done = [await walk.step() for walk in self._forward]
        _tell(done)
        if any(walk.is_full(one) for walk, one in zip(self._forward, done, strict=True)):
            return _pause(self._clock.monotonic() - began, SHARE)
        return _until_next_look(done)

    async def tick_again(self) -> float:
        """The same, from the oldest again when it has come to the youngest."""
        began = self._clock.monotonic()
        done = [await walk.step() for walk in self._again]
        _tell(done)
        took = self._clock.monotonic() - began
        if not any(walk.is_full(one) for walk, one in zip(self._again, done, strict=True)):
            for walk in self._again:
                walk.restart()
            return max(_pause(took, AGAIN_SHARE), _until_next_look(done))
        found = any(one.timers or one.firings for one in done)
        return _pause(took, SHARE if found else AGAIN_SHARE)


def _pause(took_s: float, share: float) -> float:
    return took_s / share - took_s


def _until_next_look(done: list[Pruned]) -> float:
    """A tenth of the shortest retention, but at least a second and at most a minute: then rules are read again."""
    shortest = [one.shortest_s for one in done if one.shortest_s is not None]
    return min(max(min(shortest) / 10, LOOK_S[0]), LOOK_S[1]) if shortest else LOOK_S[1]


def _tell(done: list[Pruned]) -> None:
    timers, firings = sum(one.timers for one in done), sum(one.firings for one in done)
    if timers or firings:
        log.debug("prune.removed", timers=timers, firings=firings)
