"""The part of the OpenAPI document about lanes."""

from typing import Any

from minoots.domain.lane import LANE_CHARACTERS
from minoots.rest.openapi_parts import WITH_BODY, Document, answers, body, call, parameter, tenant

_LANE: dict[str, Any] = {
    "tenantId": "demo",
    "lane": "https://example.com",
    "state": "open",
    "concurrency": 4,
    "ratePerS": 10.0,
    "waiting": 1250,
    "underWay": 0,
    "failures": 10,
    "openedAt": "2030-01-31T08:00:00.000000Z",
    "nextProbeAt": "2030-01-31T08:00:01.482011Z",
    "reason": "HTTP 503",
}
_LIMITS = {
    "destination": {
        "summary": "One destination",
        "value": {"tenantId": "demo", "lane": "https://example.com", "concurrency": 4, "ratePerS": 10},
    },
    "default": {
        "summary": "Every destination of the tenant that has no limits of its own",
        "value": {"tenantId": "demo", "concurrency": 32, "requestedBy": "cli"},
    },
}
_CURSOR = {
    "name": "cursor",
    "in": "query",
    "description": "nextCursor of the page before.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LANE_CHARACTERS},
}


def lane_paths() -> Document:
    """How lanes stand, and their limits."""
    listing = call(
        "listLanes", "List destinations: limits, breaker, what waits", "lanes", [*tenant(), parameter("Limit"), _CURSOR]
    )
    listing["responses"] = answers(200, "LanePage", {"items": [_LANE], "nextCursor": None})
    limits = call("setLaneLimits", "Set the limits of a destination, or the tenant's default", "lanes", tenant())
    limits["requestBody"] = body("LimitsRequest", _LIMITS)
    limits["responses"] = answers(200, "Lane", _LANE, *WITH_BODY)
    return {"/lanes": {"get": listing, "put": limits}}
