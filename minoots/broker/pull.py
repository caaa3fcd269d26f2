"""An ephemeral consumer of one reader, pulled in small requests: messages in order without a gap, or ConsumerLost."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StatusCode

from minoots.broker.jetstream import Broker
from minoots.errors import MinootsError

# What one reader holds at most: so many messages, and so many bytes beyond the largest message that NATS takes.
BATCH: Final = 64
BATCH_BYTES: Final = 1 << 20
EXPIRES_S: Final = 30.0
HEARTBEAT_S: Final = 2.0
# A reader that asks for nothing this long loses its consumer; it makes a new one where it was.
INACTIVE_S: Final = 30.0

# Between looks at whether the connection was made anew: what was on its way on the old one is lost.
_LOOK_S = 0.25
_NANOSECONDS = 1_000_000_000
_FROM_STREAM = "$JS.ACK."
_COMPLETED = "Batch Completed"


class ConsumerLost(MinootsError):
    """The consumer is gone, or something on its way to us is; make a new one where the reader was."""


class PullConsumer:
    """One consumer that starts at a sequence of the stream or at an instant, and is deleted when it is closed."""

    def __init__(self, broker: Broker, filters: Sequence[str], start: int | datetime) -> None:
        self._broker = broker
        self._filters = list(filters)
        self._start = start
        self._name: str | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._arrived: asyncio.Queue[Msg] = asyncio.Queue()
        self._reconnects = 0
        self._asked = 0
        self._heard_at = 0.0
        self.delivered = 0
        # What the stream held for it when it was opened.
        self.pending = 0

    async def open(self) -> None:
        """Raises BrokerUnavailable and the client's errors; NotFoundError when there is no stream."""
        client = self._broker.client
        js = self._broker.js
        self._reconnects = client.stats["reconnects"]
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(self._inbox, cb=self._arrived.put)
        is_sequence = isinstance(self._start, int)
        info = await js.add_consumer(
            self._broker.stream,
            ConsumerConfig(
                filter_subjects=self._filters,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE if is_sequence else DeliverPolicy.BY_START_TIME,
                opt_start_seq=self._start if isinstance(self._start, int) else None,
                opt_start_time=None if isinstance(self._start, int) else self._start,
                ack_policy=AckPolicy.NONE,
                inactive_threshold=INACTIVE_S,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        self._name = info.name
        self.pending = info.num_pending or 0

    async def close(self) -> None:
        """Best effort: the server forgets an unused consumer by itself."""
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, MinootsError):
            if self._subscription is not None:
                await self._subscription.unsubscribe()
            if self._name is not None:
                await self._broker.js.delete_consumer(self._broker.stream, self._name)

    async def next(self) -> Msg | None:
        """The next message; None when a request has run out without one. Raises ConsumerLost."""
        self._heard_at = time.monotonic()
        while True:
            if self._asked == 0:
                await self._ask()
            message = await self._receive()
            self._heard_at = time.monotonic()
            if message.reply.startswith(_FROM_STREAM):
                return self._count(message)
            headers = message.headers or {}
            status = headers.get("Status")
            # A heartbeat; or the word that a request got all it asked for, which the count has told already.
            if status == StatusCode.CONTROL_MESSAGE or headers.get("Description") == _COMPLETED:
                continue
            self._end_request(status, headers)
            if status == StatusCode.REQUEST_TIMEOUT:
                return None

    async def has_read_all(self) -> bool:
        """Whether the consumer has nothing more, and all that it sent has arrived here."""
        if self._name is None:
            return False
        info = await self._broker.js.consumer_info(self._broker.stream, self._name)
        sent = 0 if info.delivered is None else info.delivered.consumer_seq
        return info.num_pending == 0 and sent == self.delivered and self._arrived.empty()

    async def _ask(self) -> None:
        client = self._broker.client
        most = BATCH_BYTES + max(client.max_payload, BATCH_BYTES)
        request = (
            f'{{"batch":{BATCH},"max_bytes":{most},"expires":{int(EXPIRES_S * _NANOSECONDS)},'
            f'"idle_heartbeat":{int(HEARTBEAT_S * _NANOSECONDS)}}}'
        )
        await client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._broker.stream}.{self._name}", request.encode(), self._inbox
        )
        self._asked = BATCH

    async def _receive(self) -> Msg:
        while True:
            if not self._arrived.empty():
                return self._arrived.get_nowait()
            if self._broker.client.stats["reconnects"] != self._reconnects:
                raise ConsumerLost("the connection was made anew")
            if time.monotonic() - self._heard_at > 2 * HEARTBEAT_S + 1:
                raise ConsumerLost("NATS has been silent")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    return await self._arrived.get()

    def _count(self, message: Msg) -> Msg:
        """The consumer numbers what it sends: a hole is a message that got lost on the way."""
        if message.metadata.sequence.consumer != self.delivered + 1:
            raise ConsumerLost("a message got lost on its way")
        self.delivered += 1
        self._asked -= 1
        return message

    def _end_request(self, status: str | None, headers: dict[str, str]) -> None:
        """Time-out and too many bytes are how a request ends (ADR-37 of NATS); it says how many are missing."""
        if status != StatusCode.REQUEST_TIMEOUT and "bytes" not in headers.get("Description", "").lower():
            raise ConsumerLost(f"the consumer is gone: {status} {headers.get('Description', '')}")
        if int(headers.get("Nats-Pending-Messages", self._asked)) != self._asked:
            raise ConsumerLost("a message got lost on its way")
        self._asked = 0
