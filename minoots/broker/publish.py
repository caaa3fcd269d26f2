"""Publishing with many acknowledgements under way: one inbox for all, and neither a task nor a timer for each."""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg

from minoots.broker.jetstream import Broker
from minoots.errors import BrokerUnavailable

# JetStream's error code for a message that is over the limit of the stream.
_TOO_LARGE: Final = 10054
_FOREIGN: Final = "NATS gave an answer that is none of JetStream's"


@dataclass(frozen=True, slots=True)
class Refusal:
    """NATS did not take a message. Without a reason there was no stream to take it."""

    reason: str | None
    is_too_large: bool = False


class _Error(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    """What JetStream answers to a publish: a PubAck with the stream that keeps it and its number, or an error."""

    error: _Error | None = None
    stream: str | None = None
    seq: int = 0


_decode = msgspec.json.Decoder(_Answer).decode


class Publisher:
    """Sends messages to JetStream, and collects the answers under the numbers that `send` gave."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._client: Client | None = None
        self._inbox = ""
        self._number = 0
        self._answers: list[tuple[int, Refusal | None]] = []
        self._has_answers = asyncio.Event()

    async def open(self) -> None:
        """Listen on the connection that there is now; BrokerUnavailable while there is none."""
        if not self._broker.is_connected:
            raise BrokerUnavailable
        client = self._broker.client
        if client is not self._client:
            inbox = client.new_inbox()
            await client.subscribe(f"{inbox}.*", cb=self._hear)
            self._client, self._inbox = client, inbox

    async def send(self, subject: str, body: bytes, message_id: str) -> int:
        """Begin a publish, and answer its number. Raises the client's errors, MaxPayloadError among them."""
        assert self._client is not None, "the publisher is not open"
        self._number += 1
        await self._client.publish(subject, body, f"{self._inbox}.{self._number}", {"Nats-Msg-Id": message_id})
        return self._number

    async def answers(self, seconds: float) -> list[tuple[int, Refusal | None]]:
        """What has been answered since; None where NATS has the message. Raises TimeoutError when nothing comes."""
        if not self._answers:
            self._has_answers.clear()
            async with asyncio.timeout(seconds):
                await self._has_answers.wait()
        answers, self._answers = self._answers, []
        return answers

    async def _hear(self, message: Msg) -> None:
        self._answers.append((int(message.subject.rpartition(".")[2]), _read(message, self._broker.stream)))
        self._has_answers.set()


def _read(message: Msg, stream: str) -> Refusal | None:
    """None only when it says that this stream has the message: the event is forgotten then."""
    # No responders: nobody listens on the subject (ADR-22 of NATS).
    if message.headers and message.headers.get("Status") == "503":
        return Refusal(None)
    try:
        answer = _decode(message.data)
    except msgspec.DecodeError:
        return Refusal(_FOREIGN)
    if answer.error is not None:
        return Refusal(answer.error.description, answer.error.err_code == _TOO_LARGE)
    if answer.stream is None or answer.seq < 1:
        return Refusal(_FOREIGN)
    if answer.stream != stream:
        return Refusal(f"the NATS stream {answer.stream} has taken what belongs to {stream}; remove it")
    return None
