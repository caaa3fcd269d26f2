"""How a prompt gets to an agent: one file an adapter. An extension brings further ones (docs/extending.md)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from minoots.domain.outcome import Outcome
from minoots.orchestrator.actions.request import ActionRequest


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one attempt brings to an agent, and where. `payload` is JSON; `headers` are the action's own."""

    request: ActionRequest
    target: str
    payload: bytes
    headers: Mapping[str, str]
    timeout_ms: int

    def all_headers(self) -> dict[str, str]:
        """The action's own, in small letters, and which delivery this is: as a webhook has them, less the signature."""
        request = self.request
        headers = {name.lower(): value for name, value in self.headers.items()}
        headers |= {
            "webhook-id": request.webhook_id,
            "x-minoots-timer-id": request.timer_id,
            "x-minoots-tenant-id": request.tenant_id,
        }
        if request.traceparent:
            headers["traceparent"] = request.traceparent
        if request.ack is not None:
            headers |= {"x-minoots-ack-url": request.ack.url, "x-minoots-ack-token": request.ack.token}
        return headers


class Adapter(Protocol):
    """Brings one prompt. Every failure of the other end is an outcome; nothing is raised for it."""

    async def send(self, prompt: Prompt) -> Outcome: ...
