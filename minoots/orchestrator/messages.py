"""The first way of taking work: `timer.fired` from a durable pull consumer. A message wakes; the row is the truth."""

import asyncio
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import msgspec
import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from minoots.broker.jetstream import Broker
from minoots.errors import BrokerUnavailable
from minoots.orchestrator.dispatch import WAIT_FOR_ROOM_S, Orchestrator
from minoots.orchestrator.lanes import Lanes

log = structlog.get_logger("minoots.orchestrator")

CONSUMER = "orchestrator"
BATCH = 200
FETCH_S = 0.5
ACK_WAIT_S = 30
# A wiped NATS forgets the consumer, and a fetch from one that is gone only times out: so look now and then.
CHECK_EVERY_EMPTY = 20
# A firing whose message comes later than that is due by now, like everything else that nobody leased.
DUE_AFTER = timedelta(seconds=2)


class Fired(NamedTuple):
    """The firing that a message tells of. `fired_at`: by the database's clock."""

    timer_id: UUID
    occurrence: int
    fired_at: datetime


class _Firing(msgspec.Struct, rename="camel"):
    occurrence: int
    fired_at: datetime


class _Data(msgspec.Struct):
    firing: _Firing


class _Envelope(msgspec.Struct):
    subject: UUID
    data: _Data


_envelope = msgspec.json.Decoder(_Envelope)


class Messages:
    """Pulls messages while there is room, leases what they tell of, acknowledges after the commit.

    What is late is left to the other way of taking work: in a backlog most of it has been leased there already, and to
    look it up once more would hold up the rest.
    """

    def __init__(self, broker: Broker, orchestrator: Orchestrator, lanes: Lanes) -> None:
        self._broker = broker
        self._orchestrator = orchestrator
        self._lanes = lanes
        self._capacity = lanes.capacity
        self._pull: JetStreamContext.PullSubscription | None = None
        self._empty = 0
        self._refusal: str | None = None

    async def tick(self) -> float:
        """One fetch; seconds until the next."""
        if not self._broker.is_connected:
            await self._drop()
            return 0.25
        if not await self._capacity.wait_free(WAIT_FOR_ROOM_S):
            return 0.0
        try:
            return await self.run_once()
        except nats.errors.TimeoutError:
            self._empty += 1
            if self._empty >= CHECK_EVERY_EMPTY:
                await self._check_consumer()
            return 0.0
        except nats.js.errors.APIError as refused:
            await self._drop()
            if str(refused.description) != self._refusal:
                self._refusal = str(refused.description)
                log.warning("orchestrator.consumer_refused", reason=self._refusal, note="deliveries go out 2 s late")
            return 0.25
        except (nats.errors.Error, BrokerUnavailable, OSError):
            await self._drop()
            return 0.25

    async def run_once(self) -> float:
        """Fetch, lease, acknowledge. nats.errors.TimeoutError when there is nothing."""
        if self._pull is None:
            self._pull = await self._subscribe()
        messages = await self._pull.fetch(min(BATCH, max(self._capacity.free, 1)), timeout=FETCH_S)
        self._empty = 0
        told = [fired for message in messages if (fired := read_fired(message)) is not None]
        firings = [(f.timer_id, f.occurrence) for f in told if not self._lanes.has_passed(f.fired_at + DUE_AFTER)]
        if firings:
            await self._orchestrator.take_fired(firings)
        for message in messages:
            await message.ack()
        return 0.0

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        await self._broker.ensure_stream()
        config = ConsumerConfig(
            durable_name=CONSUMER,
            description="Wakes orchestrators when timers fire",
            # What fired before this consumer was made has an instant in Postgres.
            deliver_policy=DeliverPolicy.NEW,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=10_000,
            filter_subject=f"{self._broker.subject}.*.timer.fired",
        )
        await self._broker.js.add_consumer(self._broker.stream, config)
        return await self._broker.js.pull_subscribe_bind(CONSUMER, self._broker.stream)

    async def _check_consumer(self) -> None:
        self._empty = 0
        try:
            await self._broker.js.consumer_info(self._broker.stream, CONSUMER)
        except nats.js.errors.NotFoundError:
            log.warning("orchestrator.consumer_missing", note="NATS lost it; it is made again")
            await self._drop()
        except (nats.errors.Error, BrokerUnavailable):
            await self._drop()

    async def _drop(self) -> None:
        pull, self._pull = self._pull, None
        if pull is not None:
            try:
                await pull.unsubscribe()
            except (nats.errors.Error, OSError, asyncio.InvalidStateError):
                log.debug("orchestrator.unsubscribe_failed")


def read_fired(message: Msg) -> Fired | None:
    """What a message tells of; None for what is no event of ours, which is logged and dropped."""
    try:
        event = _envelope.decode(message.data)
    except msgspec.DecodeError:
        log.warning("orchestrator.message_unreadable", subject=message.subject)
        return None
    firing = event.data.firing
    return Fired(event.subject, firing.occurrence, firing.fired_at)
