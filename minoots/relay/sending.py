"""One batch of events on its way to the stream: timers side by side, each timer's events one after the other."""

from collections import deque
from collections.abc import Sequence
from uuid import UUID

import nats.errors
import structlog

from minoots.broker.jetstream import Broker
from minoots.broker.publish import Publisher, Refusal
from minoots.clock import Clock
from minoots.domain.event import bare, cut, envelope
from minoots.errors import BrokerUnavailable
from minoots.store.outbox import OutboxEvent

log = structlog.get_logger("minoots.relay")

# Publishes that wait for their acknowledgement at once.
WINDOW = 512
# NATS is away or too slow when it acknowledges nothing for so long.
SILENCE_S = 2.0

# An event that is too large goes out cut, then bare.
_SHORTER = (None, cut, bare)


class Sending:
    """A batch, until `deadline` (of the clock) or until NATS does not take more.

    Afterwards `published` are the ids that were acknowledged, `is_away` says that NATS or its stream was not there,
    and `refusal` is the last reason it gave for refusing an event.
    """

    def __init__(
        self, broker: Broker, publisher: Publisher, clock: Clock, events: Sequence[OutboxEvent], deadline: float
    ) -> None:
        self._broker = broker
        self._publisher = publisher
        self._clock = clock
        self._deadline = deadline
        self._ready: deque[tuple[OutboxEvent, int]] = deque()
        # What waits for an earlier event of its timer; most timers have one event in a batch, and nothing waits.
        self._later: dict[UUID, deque[OutboxEvent] | None] = {}
        self._under_way: dict[int, tuple[OutboxEvent, int]] = {}
        self.published: list[int] = []
        self.is_away = False
        self.refusal: str | None = None
        for event in events:
            if event.timer_id not in self._later:
                self._later[event.timer_id] = None
                self._ready.append((event, 0))
            elif (later := self._later[event.timer_id]) is not None:
                later.append(event)
            else:
                self._later[event.timer_id] = deque((event,))

    async def run(self) -> None:
        """Publish; what was not acknowledged at the end may have arrived all the same."""
        try:
            await self._publisher.open()
            while True:
                await self._send_ready()
                left = self._deadline - self._clock.monotonic()
                if not self._under_way or left <= 0:
                    return
                for number, refusal in await self._publisher.answers(min(left, SILENCE_S)):
                    self._note(number, refusal)
        except (nats.errors.Error, BrokerUnavailable, TimeoutError, OSError):
            # Away or slow: what is left stays where it is, and the next round tries again.
            self.is_away = True

    async def _send_ready(self) -> None:
        """Fill the window. The deadline is looked at before every publish: after it the shard may be another's."""
        while self._ready and len(self._under_way) < WINDOW:
            if self._clock.monotonic() >= self._deadline or not self._broker.is_connected:
                self._ready.clear()
                return
            event, cuts = self._ready.popleft()
            try:
                number = await self._publisher.send(self._subject(event), _body(event, cuts), str(event.event_id))
            except nats.errors.MaxPayloadError:
                self._shorten(event, cuts)
            except (nats.errors.BadSubjectError, nats.errors.BadHeaderError) as refused:
                # A kind that plain SQL has written: it holds up its own timer, nobody else's.
                self.refusal = f"{self._subject(event)!r}: {refused}"
            else:
                self._under_way[number] = (event, cuts)

    def _note(self, number: int, refusal: Refusal | None) -> None:
        """Take note of one answer; one to a former batch finds nothing."""
        event, cuts = self._under_way.pop(number, (None, 0))
        if event is None:
            return
        if refusal is None:
            self.published.append(event.id)
            if later := self._later[event.timer_id]:
                self._ready.append((later.popleft(), 0))
        elif refusal.is_too_large:
            self._shorten(event, cuts)
        elif refusal.reason is None:
            self.is_away = True
        else:
            self.refusal = refusal.reason

    def _shorten(self, event: OutboxEvent, cuts: int) -> None:
        log.warning("relay.event_cut", event_id=str(event.event_id), kind=event.kind)
        if cuts + 1 < len(_SHORTER):
            self._ready.appendleft((event, cuts + 1))

    def _subject(self, event: OutboxEvent) -> str:
        return f"{self._broker.subject}.{event.tenant_id}.{event.kind}"


def _body(event: OutboxEvent, cuts: int) -> bytes:
    shorten = _SHORTER[cuts]
    return envelope(
        event.event_id,
        event.tenant_id,
        event.timer_id,
        event.kind,
        event.at,
        event.data if shorten is None else shorten(event.data),
        event.traceparent,
    )
