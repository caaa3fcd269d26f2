"""The relay: publishes the outbox to JetStream, some shards a transaction, and removes what was acknowledged.

A shard's row is locked for the whole of it, so one relay works on a shard at a time and each timer's events stay in
order. When this process is stopped in the middle the server ends the transaction; when it goes on, its deadline has
passed and it publishes nothing more. What was published but not removed is published again under the same
Nats-Msg-Id, which the stream drops for two minutes and receivers can drop for ever.
"""

import asyncio
from collections import Counter
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
# While there is little, one batch takes what all shards have. A backlog is relayed by batches side by side, each with
# some shards of its own: while one is published, the other is read or removed, and other relays find some as well.
LANES = 2
SHARDS_OF_A_LANE = 2
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
# After a batch that took all there was, so that the next one is of more than an event or two.
GATHER_S = 0.003
INTERVAL_MOST_S = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """What was done: `read` events of `shards`, of which `published` were acknowledged and removed.

    `full` are the shards that may have more.
    """

    read: int
    published: int
    shards: Collection[int] = ()
    full: Collection[int] = ()


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
GIVE_WAY_FIRST_S = 4.0
GIVE_WAY_NEXT_S = 1.0


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
        self._is_behind = False
        self._is_expecting = False
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
        if self._is_expecting and not self._is_behind and self._clock.monotonic() < self._forget_at_s:
            # There is something, and to look where first would take as long as to look there at once.
            waiting = set(outbox.SHARDS)
        else:
            waiting = await self._look()
        self._is_expecting = False
        done = await self._relay_lanes(waiting) if waiting else Batch(0, 0)
        if done.read:
            self._interval_s = INTERVAL_S
            if not self._is_behind:
                await self._clock.sleep(GATHER_S)
            return 0.0 if done.published == done.read else INTERVAL_MOST_S
        self._interval_s = min(self._interval_s * 1.1, INTERVAL_MOST_S)
        return self._interval_s

    def expect(self) -> None:
        """Somebody in this process has written events."""
        self._is_expecting = True

    def _gives_way(self) -> bool:
        """Firing comes first: while the kernel beside us has a backlog its events wait, and then take turns with it."""
        if not self._is_kernel_behind():
            self._gives_way_until_s = None
            return False
        now = self._clock.monotonic()
        if self._gives_way_until_s is None:
            self._gives_way_until_s = now + GIVE_WAY_FIRST_S
        if now < self._gives_way_until_s:
            return True
        self._gives_way_until_s = now + GIVE_WAY_NEXT_S
        return False

    async def run_once(self) -> Batch:
        """Publish up to BATCH events of the shards that have some and that nobody else works on."""
        waiting = await self._look()
        return await self._relay_some(waiting, len(waiting), self._publishers[0]) if waiting else Batch(0, 0)

    async def _relay_lanes(self, waiting: set[int]) -> Batch:
        """What waits, side by side where there is much of it; the sum of what was done."""
        if not self._is_behind:
            done = await self._relay_some(waiting, len(waiting), self._publishers[0])
            self._is_behind = bool(done.full)
            return done
        until = self._clock.monotonic() + TICK_S
        lanes = [asyncio.ensure_future(self._relay_lane(waiting, publisher, until)) for publisher in self._publishers]
        try:
            done_by = await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
        self._is_behind = bool(waiting)
        return Batch(sum(each.read for each in done_by), sum(each.published for each in done_by))

    async def _relay_lane(self, waiting: set[int], publisher: Publisher, until: float) -> Batch:
        """Batch after batch of the shards, which leave `waiting` (shared by the lanes) as they run empty."""
        read = published = 0
        while waiting and self._clock.monotonic() < until:
            done = await self._relay_some(waiting, SHARDS_OF_A_LANE, publisher)
            read, published = read + done.read, published + done.published
            if done.published < done.read:
                waiting.clear()
            elif not done.shards:
                break
            waiting -= set(done.shards) - set(done.full)
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

    async def _relay_some(self, waiting: Collection[int], most: int, publisher: Publisher) -> Batch:
        """One batch, of up to `most` shards."""
        async with self._db.guarded(idle=IDLE_IN_TRANSACTION, is_durable=False) as connection:
            unfenced = {shard: p.candidate for shard, p in self._progress.items() if p.candidate > p.mark}
            shards, fence = await outbox.lock_shards(self._db, connection, waiting, self._last_shard + 1, most)
            if not shards:
                return Batch(0, 0)
            self._last_shard = shards[-1]
            deadline = self._clock.monotonic() + PUBLISH_S
            for other, candidate in unfenced.items():
                self._progress[other].draw(fence, candidate)
            limit = BATCH // len(shards)
            marks = {shard: self._progress[shard].mark for shard in shards}
            events = await outbox.read_events(self._db, connection, marks, limit)
            published = await self._publish(events, publisher, deadline)
            if published:
                await outbox.remove_events(self._db, connection, shards, published)
        of_shard = Counter(event.shard for event in events)
        if len(published) == len(events):
            for event in {event.shard: event for event in events}.values():
                self._progress[event.shard].settle(event.id, event.xmin)
        return Batch(len(events), len(published), shards, [shard for shard in shards if of_shard[shard] >= limit])

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
