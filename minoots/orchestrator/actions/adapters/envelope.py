"""The adapters `autogen` and `custom`: a signed CloudEvent to an HTTP endpoint, or to a NATS subject."""

import msgspec

from minoots.domain.agent import subject_of
from minoots.domain.outcome import Answer, Outcome, Rejected
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.adapters import Prompt
from minoots.orchestrator.actions.adapters.bus import Bus
from minoots.orchestrator.actions.adapters.http import post

TYPE = "minoots.agent.prompt"


class EnvelopeAdapter:
    """Sends to `https://…` through the webhook's sender, and to `nats:subject` over the bus when there is one."""

    def __init__(self, webhooks: ActionRunner, bus: Bus | None) -> None:
        self._webhooks = webhooks
        self._bus = bus

    async def send(self, prompt: Prompt) -> Outcome:
        subject = subject_of(prompt.target)
        if subject is None:
            if prompt.target.startswith("nats:"):
                return Rejected("the target is no subject of NATS", Answer())
            return await post(self._webhooks, prompt, prompt.target.partition("#")[0], envelope(prompt))
        if self._bus is None:
            # No retry mends this; a redrive does, once there is NATS.
            return Rejected("this orchestrator has no NATS; set NATS_URL, then redrive", Answer())
        return await self._bus.publish(prompt, subject, envelope(prompt))


def envelope(prompt: Prompt) -> bytes:
    """A CloudEvent whose data is the payload. The same bytes in every attempt; `id` is the webhook-id."""
    request = prompt.request
    shown: dict[str, object] = {
        "specversion": "1.0",
        "id": request.webhook_id,
        "source": f"/minoots/tenants/{request.tenant_id}",
        "type": TYPE,
        "subject": request.timer_id,
        "datacontenttype": "application/json",
        "occurrence": request.occurrence,
        "actionid": request.action_id,
    }
    if request.traceparent:
        shown["traceparent"] = request.traceparent
    if request.ack is not None:
        shown |= {"ackurl": request.ack.url, "acktoken": request.ack.token}
    return msgspec.json.encode(shown | {"data": msgspec.Raw(prompt.payload)})
