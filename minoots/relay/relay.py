"""The relay: publishes the outbox to JetStream, one shard a transaction, and removes what was acknowledged.

The shard's row is locked for the whole of it, so one relay works on a shard at a time and each timer's events stay in
order. When this process is stopped in the middle the server ends the transaction; when it goes on, its deadline has
passed and it publishes nothing more. What was published but not removed is published again under the same
Nats-Msg-Id, which the stream drops for two minutes and receivers can drop for ever.
"""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import nats.errors
import nats.js.errors
import structlog

from minoots.broker.jetstream import Broker
from minoots.clock import Clock
from minoots.domain.event import bare, cut, envelope
from minoots.errors import BrokerUnavailable
from minoots.store import outbox
from minoots.store.database import Database
from minoots.store.outbox import OutboxEvent

log = structlog.get_logger("minoots.relay")

BATCH = 500
WINDOW = 256
# Publishing ends this long after the shard was locked; the server lets go of a silent relay's lock a little later.
PUBLISH_S = 3.0
IDLE_IN_TRANSACTION = "5s"
# Now and then the marks are forgotten, for after a fail-over a standby's sequence may be behind what they were made of:
# how often at most, and how much of the time a look from the start may take.
FORGET_EVERY_S = 10.0
FORGET_SHARE = 0.05
INTERVAL_S = 0.03
INTERVAL_MOST_S = 0.1

_STREAM_ERROR_TOO_LARGE = 10054


@dataclass(frozen=True, slots=True)
class Batch:
    """What one round did: `read` events, of which `published` were acknowledged and removed."""

    read: int
    published: int


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

    def draw(self, fence: int) -> None:
        """`fence` is a transaction's number that was drawn just now."""
        if self.candidate > self.mark and not self.fence:
            self.fence = fence

    def settle(self, seen: int | None, xmin: int) -> None:
        """Nothing is left up to `seen` (None: nothing at all) in a snapshot before which all below `xmin` had ended."""
        if self.fence and xmin >= self.fence and (seen is None or seen >= self.candidate):
            self.mark, self.fence = self.candidate, 0
        if seen is not None and self.candidate <= self.mark < seen:
            self.candidate = seen


class Relay:
    """Moves events from the outbox to the stream. Any number of relays share the shards."""

    def __init__(self, database: Database, broker: Broker, clock: Clock) -> None:
        self._db = database
        self._broker = broker
        self._clock = clock
        self._progress: dict[int, _Progress] = {}
        self._forget_at_s = 0.0
        self._last_shard = 0
        self._is_stream_checked = False
        self._refusal: str | None = None
        self._interval_s = INTERVAL_S

    async def tick(self) -> float:
        """One batch, if there is one; seconds until the next look."""
        if not self._broker.is_connected:
            self._is_stream_checked = False
            return INTERVAL_MOST_S
        if not self._is_stream_checked:
            await self._ensure_stream()
        done = await self.run_once()
        if done.read:
            self._interval_s = INTERVAL_S
            return 0.0 if done.published == done.read else INTERVAL_MOST_S
        self._interval_s = min(self._interval_s * 1.1, INTERVAL_MOST_S)
        return self._interval_s

    async def run_once(self) -> Batch:
        """Publish up to BATCH events of one shard that has some and that nobody else works on."""
        waiting = await self._look()
        return await self._relay_one_of(waiting) if waiting else Batch(0, 0)

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
                    progress.draw(fence)
        if is_whole:
            ended = self._clock.monotonic()
            self._forget_at_s = ended + max(FORGET_EVERY_S, (ended - began) / FORGET_SHARE)
        return waiting

    async def _relay_one_of(self, waiting: Collection[int]) -> Batch:
        async with self._db.guarded(idle=IDLE_IN_TRANSACTION) as connection:
            locked = await outbox.lock_shard(self._db, connection, waiting, self._last_shard + 1)
            if locked is None:
                return Batch(0, 0)
            self._last_shard, fence = locked
            deadline = self._clock.monotonic() + PUBLISH_S
            for progress in self._progress.values():
                progress.draw(fence)
            progress = self._progress[self._last_shard]
            events = await outbox.read_events(self._db, connection, self._last_shard, progress.mark, BATCH)
            published = await self._publish(events, deadline)
            if published:
                await outbox.remove_events(self._db, connection, self._last_shard, sorted(published))
        if events and len(published) == len(events):
            progress.settle(events[-1].id, events[0].xmin)
        return Batch(len(events), len(published))

    async def _publish(self, events: Sequence[OutboxEvent], deadline: float) -> list[int]:
        """The ids that were acknowledged. Timers go side by side; a timer's second event waits for its first."""
        chains: dict[object, list[OutboxEvent]] = defaultdict(list)
        for event in events:
            chains[event.timer_id].append(event)
        window = asyncio.Semaphore(WINDOW)
        published: list[int] = []

        async def publish_chain(chain: list[OutboxEvent]) -> None:
            for event in chain:
                async with window:
                    if not await self._publish_one(event, deadline):
                        return
                published.append(event.id)

        async with asyncio.TaskGroup() as group:
            for chain in chains.values():
                group.create_task(publish_chain(chain))
        return published

    async def _publish_one(self, event: OutboxEvent, deadline: float) -> bool:
        """Whether NATS has it. The deadline is looked at before every publish: after it the shard may be another's."""
        left = deadline - self._clock.monotonic()
        if left <= 0 or not self._broker.is_connected:
            return False
        subject = f"{self._broker.subject}.{event.tenant_id}.{event.kind}"
        for shorten in (None, cut, bare):
            body = envelope(
                event.event_id,
                event.tenant_id,
                event.timer_id,
                event.kind,
                event.at,
                event.data if shorten is None else shorten(event.data),
                event.traceparent,
            )
            try:
                await self._broker.js.publish(
                    subject, body, timeout=min(left, 2.0), headers={"Nats-Msg-Id": str(event.event_id)}
                )
                return True
            except nats.errors.MaxPayloadError:
                log.warning("relay.event_cut", event_id=str(event.event_id), kind=event.kind)
            except nats.js.errors.NoStreamResponseError:
                self._is_stream_checked = False
                return False
            except nats.js.errors.APIError as refused:
                if refused.err_code != _STREAM_ERROR_TOO_LARGE:
                    self._tell_refusal(str(refused.description))
                    return False
                log.warning("relay.event_cut", event_id=str(event.event_id), kind=event.kind)
            except (nats.errors.Error, BrokerUnavailable, TimeoutError, OSError):
                # Away or slow: the event stays where it is, and the next round tries again.
                self._is_stream_checked = False
                return False
        return False

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
