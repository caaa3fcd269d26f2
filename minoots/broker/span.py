"""A piece of the stream, read on its own and forgotten: for readers that are behind what this process still holds."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from minoots.broker.events import Arrived, Reason, incarnation_of, settle_place
from minoots.broker.jetstream import Broker
from minoots.broker.pull import BATCH, ConsumerLost, PullConsumer
from minoots.broker.reading import arrived

# A span ends with the message that fills it.
SPAN_BYTES: Final = 64 << 10


@dataclass(slots=True)
class Span:
    """Messages of one incarnation; all that the subjects had below `next_sequence` is in it, or was read before.

    `reason`: why it does not begin where it was asked to. `begins_at` is where it does.
    """

    incarnation: str
    begins_at: int | datetime
    reason: Reason | None
    next_sequence: int = 0
    messages: list[Arrived] = field(default_factory=list)


async def read_span(
    broker: Broker, filters: Sequence[str], incarnation: str | None, place: int | datetime | None
) -> Span:
    """The next messages from a place on; up to a batch, or 64 KiB and a message. Raises as a reader's calls do.

    A consumer of its own reads it, which is gone afterwards: nothing is kept for a reader that takes its time.
    """
    info = await broker.stream_info()
    current, start, reason = settle_place(info, incarnation, place)
    span = Span(current, start, reason)
    consumer = PullConsumer(broker, filters, start)
    try:
        await consumer.open()
        left, size = min(consumer.pending, BATCH), 0
        while left and size < SPAN_BYTES:
            message = await consumer.next()
            if message is None:
                raise ConsumerLost("what was pending did not come")
            span.messages.append(arrived(message, current))
            size += len(message.data)
            left = min(left - 1, message.metadata.num_pending)
        if incarnation_of(await broker.stream_info()) != current:
            raise ConsumerLost("the stream was replaced meanwhile")
    finally:
        await consumer.close()
    is_whole = len(span.messages) >= consumer.pending
    last_seen = span.messages[-1].sequence if span.messages else 0
    # What came in between the look at the stream and the consumer is behind the last message, or pending with it.
    span.next_sequence = max(last_seen, info.state.last_seq if is_whole else 0) + 1
    return span
