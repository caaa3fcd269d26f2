"""The stream of events, read back from NATS as any consumer would."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

STREAM = "MINOOTS_EVENTS"
SUBJECT = "minoots.timer.events"
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One message: its place in the stream, its Nats-Msg-Id, and the envelope."""

    sequence: int
    message_id: str
    kind: str
    timer_id: str
    envelope: Mapping[str, Any]


async def read_stream(url: str) -> list[StreamEvent]:
    """Everything on the stream, in its order."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        left = (await js.stream_info(STREAM)).state.messages
        config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, mem_storage=True)
        consumer = await js.pull_subscribe(f"{SUBJECT}.>", stream=STREAM, config=config)
        found: list[StreamEvent] = []
        while left > 0:
            messages = await consumer.fetch(min(_BATCH, left), timeout=10)
            found += [_event(message) for message in messages]
            left -= len(messages)
        return found
    finally:
        await client.close()


def _event(message: Msg) -> StreamEvent:
    envelope = json.loads(message.data)
    kind = envelope["type"].removeprefix("minoots.")
    return StreamEvent(
        message.metadata.sequence.stream, (message.headers or {})["Nats-Msg-Id"], kind, envelope["subject"], envelope
    )


def kinds_by_timer(events: Iterable[StreamEvent], family: str = "timer.") -> dict[str, list[str]]:
    """Each timer's kinds in the stream's order."""
    kinds: dict[str, list[str]] = {}
    for event in events:
        if event.kind.startswith(family):
            kinds.setdefault(event.timer_id, []).append(event.kind)
    return kinds


class Overheard:
    """Everything that is published, repetitions too: a plain subscription hears what the stream would drop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._client: Client | None = None
        self.messages: list[tuple[str, str]] = []

    async def __aenter__(self) -> Self:
        self._client = await nats.connect(self._url)
        await self._client.subscribe(f"{SUBJECT}.>", cb=self._hear)
        await self._client.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def _hear(self, message: Msg) -> None:
        self.messages.append(((message.headers or {})["Nats-Msg-Id"], message.subject.removeprefix(f"{SUBJECT}.demo.")))
