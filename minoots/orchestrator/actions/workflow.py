"""The workflow event: a CloudEvent for whoever listens, kept in a stream of its own or POSTed to an endpoint."""

import dataclasses
import time
from typing import Any, Final

import msgspec

from minoots.broker.workflow import TooLarge, WorkflowStream
from minoots.domain import template
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.domain.workflow import Fired, WorkflowEvent, cloud_event
from minoots.errors import BrokerUnavailable
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.request import ActionRequest

CONTENT_TYPE: Final = "application/cloudevents+json"


class _Parameters(WorkflowEvent, frozen=True, kw_only=True):
    """As stored; the payload stays the bytes that Postgres writes."""

    payload: msgspec.Raw = msgspec.Raw(b"")


_read_parameters = msgspec.json.Decoder(_Parameters).decode
_read_fired = msgspec.json.Decoder(Fired).decode


class WorkflowRunner:
    """Sends to the action's own endpoint, else to the operator's, else into the stream.

    `operators` sends to the operator's `endpoint`, which may be where no tenant's webhook may go.
    """

    def __init__(
        self,
        webhooks: ActionRunner,
        stream: WorkflowStream | None,
        endpoint: str | None = None,
        operators: ActionRunner | None = None,
    ) -> None:
        self._webhooks = webhooks
        self._stream = stream
        self._endpoint = endpoint
        self._operators = operators or webhooks

    async def run(self, request: ActionRequest) -> Outcome:
        """One attempt. Every attempt has the same event, whose id is the webhook-id."""
        try:
            asked = _read_parameters(request.parameters)
            event = _compose(asked, request)
        except (msgspec.DecodeError, RecursionError) as wrong:
            return Rejected(f"the event's parameters cannot be read: {wrong}", Answer())
        except template.TooLarge:
            return Rejected("the payload that the template makes is larger than 64 KiB", Answer())
        if asked.endpoint is not None:
            return await _post(self._webhooks, asked.endpoint, event, request)
        if self._endpoint is not None:
            return await _post(self._operators, self._endpoint, event, request)
        if self._stream is None:
            # No retry mends this; a redrive does, once there is NATS.
            return Rejected("there is nowhere to send it: set NATS_URL or MINOOTS_WORKFLOW_ENDPOINT", Answer())
        return await _publish(self._stream, asked.name, event, request)


async def _post(webhooks: ActionRunner, url: str, event: bytes, request: ActionRequest) -> Outcome:
    """As webhooks are sent, so that signatures, time-outs and outcomes have the same rules."""
    parameters = {"url": url, "headers": {"content-type": CONTENT_TYPE}, "body": msgspec.Raw(event)}
    sent = dataclasses.replace(request, kind="webhook", parameters=msgspec.json.encode(parameters).decode())
    return await webhooks.run(sent)


async def _publish(stream: WorkflowStream, name: str, event: bytes, request: ActionRequest) -> Outcome:
    began = time.monotonic()
    headers = {"Content-Type": CONTENT_TYPE}
    try:
        await stream.publish(request.tenant_id, name, event, request.webhook_id, headers)
    except TooLarge:
        return Rejected("the event is larger than a message of NATS may be", _since(began))
    except BrokerUnavailable as away:
        return Retry(away.detail, _since(began), is_ours=True)
    return Delivered(_since(began))


def _compose(asked: _Parameters, request: ActionRequest) -> bytes:
    fired = _read_fired(request.body)
    if asked.payload_template is not None:
        payload = msgspec.json.encode(template.render(asked.payload_template, _values(request)))
    else:
        payload = bytes(asked.payload) or b"null"
    return cloud_event(
        request.webhook_id, request.tenant_id, request.timer_id, asked.name, fired, payload, request.traceparent
    )


def _values(request: ActionRequest) -> dict[str, Any]:
    """What a template may name, as an agent's."""
    told = msgspec.json.decode(request.body)
    return {
        "timer": told["timer"],
        "firing": (told["event"].get("data") or {}).get("firing"),
        "event": told["event"],
        "delivery": {"actionId": request.action_id, "webhookId": request.webhook_id},
        "ack": None,
    }


def _since(began: float) -> Answer:
    return Answer(round((time.monotonic() - began) * 1000))
