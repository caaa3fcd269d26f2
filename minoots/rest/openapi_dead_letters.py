"""The part of the OpenAPI document about what gave up."""

from typing import Any

from minoots.rest.openapi_parts import WITH_BODY, Document, answers, body, call, parameter, tenant

_KEY = {"timerId": "0199f5a2-6d6e-7c40-8a51-3c1f2b9a7e10", "occurrence": 1, "actionId": "notify"}

_DEAD_LETTER: dict[str, Any] = {
    "tenantId": "demo",
    **_KEY,
    "kind": "webhook",
    "lane": "https://example.com",
    "deadReason": "gave up after 8 attempts: HTTP 503",
    "deadAt": "2030-02-01T12:04:51.220518Z",
    "attemptCount": 8,
    "lastAttempt": {
        "attempt": 8,
        "startedAt": "2030-02-01T12:04:51.004007Z",
        "durationMs": 201,
        "outcome": "retry",
        "statusCode": 503,
        "error": "HTTP 503",
        "excerpt": "down for maintenance",
        "node": "orchestrator-1",
    },
}

_REDRIVES: dict[str, Any] = {
    "one": {"summary": "One delivery", "value": {"tenantId": "demo", "deliveries": [_KEY]}},
    "dry run": {
        "summary": "How many that would be",
        "value": {"tenantId": "demo", "filter": {"lane": "https://example.com"}, "dryRun": True},
    },
    "paced": {
        "summary": "All that gave up in an outage, ten a second",
        "value": {
            "tenantId": "demo",
            "filter": {"since": "2030-02-01T08:00:00Z", "until": "2030-02-01T13:00:00Z", "reason": "HTTP 503"},
            "perSecond": 10,
        },
    },
}


def dead_letter_paths() -> Document:
    """Listing them, and opening them again."""
    filters = ("DeadTimer", "DeadKind", "DeadLane", "DeadReason", "DeadSince", "DeadUntil", "Limit", "DeadCursor")
    listing = call(
        "listDeadLetters", "List what gave up, the newest first", "firings", [*tenant(), *map(parameter, filters)]
    )
    listing["responses"] = answers(200, "DeadLetterPage", {"items": [_DEAD_LETTER], "nextCursor": None})
    redrive = call("redriveDeadLetters", "Open dead deliveries again", "firings", tenant())
    redrive["requestBody"] = body("RedriveRequest", _REDRIVES)
    redrive["responses"] = answers(200, "Redriven", {"matched": 1, "redriven": 1}, 404, 409, *WITH_BODY)
    return {"/dead-letters": {"get": listing}, "/dead-letters/redrive": {"post": redrive}}


def dead_letter_parameters() -> dict[str, tuple[str, str, str, Any]]:
    """Name, place, wire name, words and schema of its parameters."""
    instant = {"type": "string", "format": "date-time"}
    text = {"type": "string", "minLength": 1, "maxLength": 2048}
    cursor = {
        "type": "string",
        "pattern": r"^[0-9]{1,16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[1-9][0-9]{0,8}\.a$",
    }
    return {
        "DeadTimer": ("query", "timerId", "Only this timer's.", {"type": "string", "format": "uuid"}),
        "DeadKind": ("query", "kind", "Only actions of this kind.", text),
        "DeadLane": ("query", "lane", "Only to this destination.", text),
        "DeadReason": ("query", "reason", "Only with this in deadReason.", text),
        "DeadSince": ("query", "since", "Dead at this instant or later.", instant),
        "DeadUntil": ("query", "until", "Dead before this instant.", instant),
        "DeadCursor": ("query", "cursor", "nextCursor of the page before.", cursor),
    }
