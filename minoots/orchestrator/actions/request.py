"""What an action is told of the firing it acts for: from a lease, or from an event that came as a line of JSON."""

from dataclasses import dataclass, field

from minoots.domain.event import envelope
from minoots.store.deliveries import Lease


@dataclass(frozen=True, slots=True)
class Acknowledging:
    """Where and with what a receiver acknowledges this delivery. Whoever has the token may, so it is never logged."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """One attempt's input. `parameters` and `body` are JSON text; `body` is what a webhook without its own sends.

    `redrives` says how often the delivery was opened again; `ack` is None when nothing is to be acknowledged.
    """

    tenant_id: str
    timer_id: str
    occurrence: int
    action_id: str
    kind: str
    parameters: str
    body: str
    traceparent: str | None
    redrives: int = 0
    ack: Acknowledging | None = None

    @property
    def webhook_id(self) -> str:
        """The same in every attempt, so that a receiver can drop a repetition."""
        return f"{self.timer_id}_{self.occurrence}_{self.action_id}"


def request_of(lease: Lease, ack: Acknowledging | None = None) -> ActionRequest:
    """The attempt under a lease. Built from what was stored as it fired: every attempt has the same body."""
    event = envelope(
        lease.event_id,
        lease.tenant_id,
        lease.key.timer_id,
        "timer.fired",
        lease.fired_at,
        f'{{"firing":{lease.firing}}}',
        lease.traceparent,
    )
    return ActionRequest(
        tenant_id=lease.tenant_id,
        timer_id=str(lease.key.timer_id),
        occurrence=lease.key.occurrence,
        action_id=lease.key.action_id,
        kind=lease.kind,
        parameters=lease.parameters or "{}",
        body=f'{{"timer":{lease.timer},"event":{event.decode()}}}',
        traceparent=lease.traceparent,
        redrives=lease.redrives,
        ack=ack,
    )
