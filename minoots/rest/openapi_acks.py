"""The part of the OpenAPI document about acknowledging deliveries."""

from typing import Any

from minoots.rest import examples
from minoots.rest.openapi_parts import OCCURRENCE, TIMER_ID, WITH_BODY, Document, answers, body, call, tenant

_ACKS: dict[str, Any] = {
    "done": {"summary": "The work is done", "value": {"outcome": "done", "result": {"tickets": 3}}},
    "failed": {
        "summary": "It could not be done: the retry policy goes on",
        "value": {"outcome": "failed", "note": "the model is overloaded"},
    },
    "working": {"summary": "Ten minutes more, please", "value": {"outcome": "working", "extendMs": 600_000}},
}
_ACTION_ID = {
    "name": "action_id",
    "in": "path",
    "required": True,
    "description": "The action's id; agent for the agent binding.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,62}(~[1-9])?$"},
}
_CONFIRMED: dict[str, Any] = examples.FIRING_WITH_DELIVERIES["deliveries"][0] | {
    "status": "confirmed",
    "ack": {"outcome": "done", "note": None, "result": {"tickets": 3}, "at": "2030-01-31T08:00:42.771630Z"},
}


def ack_paths() -> Document:
    """What a receiver says about its work."""
    path = [TIMER_ID, OCCURRENCE, _ACTION_ID, *tenant()]
    made = call("acknowledgeDelivery", "Say how the work of a delivery went", "firings", path)
    made["security"] = [{"apiKey": []}, {"bearer": []}, {"ackToken": []}]
    made["requestBody"] = body("AckRequest", _ACKS)
    made["responses"] = answers(200, "Delivery", _CONFIRMED, 404, 409, *WITH_BODY)
    return {"/timers/{timer_id}/firings/{occurrence}/deliveries/{action_id}/ack": {"post": made}}


def ack_security() -> Document:
    """How whoever got a delivery shows that it did."""
    return {
        "ackToken": {
            "type": "apiKey",
            "in": "header",
            "name": "x-minoots-ack-token",
            "description": "The token that came with the delivery, in the header of the same name.",
        }
    }
