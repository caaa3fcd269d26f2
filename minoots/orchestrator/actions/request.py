"""What an action is told of the firing it acts for: from a lease, or from an event that came as a line of JSON."""

from dataclasses import dataclass

from minoots.domain.event import envelope
from minoots.store.deliveries import Lease


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """One attempt's input. `parameters` and `body` are JSON text; `body` is what a webhook without its own sends."""

    tenant_id: str
    timer_id: str
    occurrence: int
    action_id: str
    kind: str
    parameters: str
    body: str
    traceparent: str | None

    @property
    def webhook_id(self) -> str:
        """The same in every attempt, so that a receiver can drop a repetition."""
        return f"{self.timer_id}_{self.occurrence}_{self.action_id}"


def request_of(lease: Lease) -> ActionRequest:
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
    )
