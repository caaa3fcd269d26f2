"""The relay: publishes the outbox to JetStream, one shard a transaction, and removes what was acknowledged.

The shard's row is locked for the whole of it, so one relay works on a shard at a time and each timer's events stay in
order. When this process is stopped in the middle the server ends the transaction; when it goes on, its deadline has
passed and it publishes nothing more. What was published but not removed is published again under the same
Nats-Msg-Id, which the stream drops for two minutes and receivers can drop for ever.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog

from minoots.broker.jetstream import Broker
from minoots.broker.publish import Publisher
from minoots.clock import Clock
from minoots.errors import BrokerUnavailable
from minoots.relay.sending import Sending
from minoots.store import outbox
from minoots.store.database import Database
from minoots.store.outbox import OutboxEvent

log = structlog.get_logger("minoots.relay")

BATCH = 1000
# Shards at once: while one is published, the other is read or removed.
LANES = 2
# Batches follow each other this long before it is looked again which shards have something.
TICK_S = 0.2
# Publishing ends this long after the shard was locked; the server lets go of a silent relay's lock a little later.
PUBLISH_S = 3.0
IDLE_IN_TRANSACTION = "5s"
# Now and then the marks are forgotten, for after a fail-over a standby's sequence may be behind what they were made of:
# how often at most, and how much of the time a look from the start may take.
FORGET_EVERY_S = 10.0
FORGET_SHARE = 0.05
INTERVAL_S = 0.03
INTERVAL_MOST_S = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """What one round did: `read` events of `shard`, of which `published` were acknowledged and removed."""

    read: int
    published: int
    shard: int | None = None


@dataclass(slots=True)
class _Progress:
    """A shard's mark: everything up to it is gone for good, so that its dead entries are not walked again.

    Ids are drawn before their transactions commit. So `candidate`, up to which everything visible has been published,
    becomes the mark when a later look has seen everything up to it: one from after the end of every transaction that
    was open as it was read. Those have numbers below `fence`, which was drawn after that (0: not yet). A snapshot's own
    xmax would not do: it is above the latest transaction that has ended, and an open one may have a larger number.
    """

    mark: int = 0
    candidate: int = 0
    fence: int = 0

    def draw(self, fence: int, candidate: int) -> None:
        """`fence` is a transaction's number that was drawn when the candidate was `candidate` already."""
        if self.candidate == candidate > self.mark and not self.fence:
            self.fence = fence

    def settle(self, seen: int | None, xmin: int) -> None:
        """Nothing is left up to `seen` (None: nothing at all) in a snapshot before which all below `xmin` had ended."""
        if self.fence and xmin >= self.fence and (seen is None or seen >= self.candidate):
            self.mark, self.fence = self.candidate, 0
        if seen is not None and self.candidate <= self.mark < seen:
            self.candidate = seen


# How long events wait while the kernel in this process has more due than one batch. Measured: 18,500 timers fired a
# second beside a relay that does not wait, 29,900 beside one that does (2 cores).
GIVE_WAY_S = 0.05
GIVE_WAY_MOST_S = 2.0


class Relay:
    """Moves events from the outbox to the stream. Any number of relays share the shards."""

    def __init__(
        self, database: Database, broker: Broker, clock: Clock, is_kernel_behind: Callable[[], bool] = lambda: False
    ) -> None:
        self._db = database
        self._is_kernel_behind = is_kernel_behind
        self._gives_way_until_s: float | None = None
        self._broker = broker
        self._clock = clock
        self._publishers = [Publisher(broker) for _ in range(LANES)]
        self._progress: dict[int, _Progress] = {}
        self._forget_at_s = 0.0
        self._last_shard = 0
        self._is_stream_checked = False
        self._refusal: str | None = None
        self._interval_s = INTERVAL_S

    async def tick(self) -> float:
        """Batches for a while, where there are some; seconds until the next look."""
        if not self._broker.is_connected:
            self._is_stream_checked = False
            return INTERVAL_MOST_S
        if not self._is_stream_checked:
            await self._ensure_stream()
        if self._gives_way():
            return GIVE_WAY_S
        waiting = await self._look()
        done = await self._relay_lanes(waiting) if waiting else Batch(0, 0)
        if done.read:
            self._interval_s = INTERVAL_S
            return 0.0 if done.published == done.read else INTERVAL_MOST_S
        self._interval_s = min(self._interval_s * 1.1, INTERVAL_MOST_S)
        return self._interval_s

    def _gives_way(self) -> bool:
        """Firing comes first: while the kernel beside us has a backlog its events wait, but not for long."""
        if not self._is_kernel_behind():
            self._gives_way_until_s = None
            return False
        now = self._clock.monotonic()
        if self._gives_way_until_s is None:
            self._gives_way_until_s = now + GIVE_WAY_MOST_S
        if now < self._gives_way_until_s:
            return True
        self._gives_way_until_s = None
        return False

    async def run_once(self) -> Batch:
        """Publish up to BATCH events of one shard that has some and that nobody else works on."""
        waiting = await self._look()
        return await self._relay_one_of(waiting, self._publishers[0]) if waiting else Batch(0, 0)

    async def _relay_lanes(self, waiting: set[int]) -> Batch:
        """Two shards at once where there are two; the sum of what was done."""
        until = self._clock.monotonic() + TICK_S
        lanes = [
            asyncio.ensure_future(self._relay_some_of(waiting, publisher, until))
            for publisher in self._publishers[: len(waiting)]
        ]
        try:
            done = await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        return Batch(sum(each.read for each in done), sum(each.published for each in done))

    async def _relay_some_of(self, waiting: set[int], publisher: Publisher, until: float) -> Batch:
        """Batch after batch of the shards, which leave `waiting` (shared by the lanes) as they run empty."""
        read = published = 0
        while waiting and self._clock.monotonic() < until:
            done = await self._relay_one_of(waiting, publisher)
            read, published = read + done.read, published + done.published
            if done.published < done.read:
                waiting.clear()
            elif done.shard is None:
                break
            elif done.read < BATCH:
                waiting.discard(done.shard)
        return Batch(read, published)

    async def _look(self) -> set[int]:
        """The shards that have something to publish."""
        began = self._clock.monotonic()
        is_whole = began >= self._forget_at_s
        if is_whole:
            self._progress = {shard: _Progress() for shard in outbox.SHARDS}
        async with self._db.connection() as connection:
            marks = {shard: progress.mark for shard, progress in self._progress.items()}
            waiting, xmin = await outbox.look(self._db, connection, marks)
            idle = [progress for shard, progress in self._progress.items() if shard not in waiting]
            for progress in idle:
                progress.settle(None, xmin)
            if not waiting and any(p.candidate > p.mark and not p.fence for p in idle):
                fence = await outbox.draw_fence(self._db, connection)
                for progress in idle:
                    progress.draw(fence, progress.candidate)
        if is_whole:
            ended = self._clock.monotonic()
            self._forget_at_s = ended + max(FORGET_EVERY_S, (ended - began) / FORGET_SHARE)
        return waiting

    async def _relay_one_of(self, waiting: Collection[int], publisher: Publisher) -> Batch:
        async with self._db.guarded(idle=IDLE_IN_TRANSACTION) as connection:
            unfenced = {shard: p.candidate for shard, p in self._progress.items() if p.candidate > p.mark}
            locked = await outbox.lock_shard(self._db, connection, waiting, self._last_shard + 1)
            if locked is None:
                return Batch(0, 0)
            shard, fence = locked
            self._last_shard = shard
            deadline = self._clock.monotonic() + PUBLISH_S
            for other, candidate in unfenced.items():
                self._progress[other].draw(fence, candidate)
            progress = self._progress[shard]
            events = await outbox.read_events(self._db, connection, shard, progress.mark, BATCH)
            published = await self._publish(events, publisher, deadline)
            if published:
                await outbox.remove_events(self._db, connection, shard, published)
        if events and len(published) == len(events):
            progress.settle(events[-1].id, events[0].xmin)
        return Batch(len(events), len(published), shard)

    async def _publish(self, events: Sequence[OutboxEvent], publisher: Publisher, deadline: float) -> list[int]:
        """The ids that were acknowledged."""
        sending = Sending(self._broker, publisher, self._clock, events, deadline)
        await sending.run()
        if sending.is_away:
            self._is_stream_checked = False
        if sending.refusal is not None:
            self._tell_refusal(sending.refusal)
        return sorted(sending.published)

    def _tell_refusal(self, reason: str) -> None:
        """Once, for every event of a batch is refused for the same reason, and every batch again."""
        if reason != self._refusal:
            self._refusal = reason
            log.warning("relay.refused", reason=reason)

    async def _ensure_stream(self) -> None:
        try:
            await self._broker.ensure_stream()
            self._is_stream_checked = True
        except nats.js.errors.APIError as refused:
            raise BrokerUnavailable(
                f"NATS refuses the stream {self._broker.stream}: {refused.description}"
            ) from refused
        except (nats.errors.Error, TimeoutError, OSError) as away:
            raise BrokerUnavailable from away
