"""The examples of the documentation: bodies as a person would send them, answers as they come back."""

from typing import Any

_ID = "0199f5a2-6d6e-7c40-8a51-3c1f2b9a7e10"

COFFEE: dict[str, Any] = {
    "tenantId": "demo",
    "requestedBy": "cli",
    "name": "coffee-break",
    "duration": "30s",
    "metadata": {"note": "brew beans"},
}

_BUNDLE: dict[str, Any] = {
    "actions": [{"id": "notify", "kind": "webhook", "parameters": {"url": "https://example.com/hooks/coffee"}}],
    "retryPolicy": {"maxAttempts": 5, "backoffInitialMs": 1000},
}

NEW_TIMERS: dict[str, Any] = {
    "duration": {"summary": "In half a minute", "value": COFFEE},
    "webhook": {
        "summary": "At an instant, and then a webhook",
        "value": {
            "tenantId": "demo",
            "requestedBy": "billing",
            "name": "trial-ends",
            "fireAt": "2030-01-31T09:00:00+01:00",
            "labels": {"customer": "c-1042"},
            "actionBundle": _BUNDLE,
        },
    },
    "agent": {
        "summary": "Waking an agent",
        "value": {
            "tenantId": "demo",
            "requestedBy": "planner",
            "duration": "1h30m",
            "agentBinding": {"adapter": "mcp", "target": "https://agents.example.com/mcp"},
        },
    },
}

BATCHES: dict[str, Any] = {
    "two": {
        "summary": "Two timers, one body",
        "value": {
            "tenantId": "demo",
            "requestedBy": "import",
            "items": [{"name": "first", "duration": "10m"}, {"name": "second", "duration": "PT20M"}],
        },
    }
}

CANCELS: dict[str, Any] = {
    "cancel": {
        "summary": "No longer wanted",
        "value": {"tenantId": "demo", "requestedBy": "cli", "reason": "coffee is ready"},
    }
}

TIMER: dict[str, Any] = {
    "id": _ID,
    "tenantId": "demo",
    "name": "coffee-break",
    "requestedBy": "cli",
    "status": "scheduled",
    "durationMs": 30000,
    "createdAt": "2030-01-31T08:00:00.000000Z",
    "fireAt": "2030-01-31T08:00:30.000000Z",
    "firedAt": None,
    "settledAt": None,
    "cancelledAt": None,
    "cancelReason": None,
    "cancelledBy": None,
    "failureReason": None,
    "metadata": {"note": "brew beans"},
    "labels": {},
    "actionBundle": None,
    "agentBinding": None,
    "schedule": None,
    "occurrence": 0,
    "version": 1,
}

CANCELLED: dict[str, Any] = TIMER | {
    "status": "cancelled",
    "cancelledAt": "2030-01-31T08:00:12.000000Z",
    "cancelReason": "coffee is ready",
    "cancelledBy": "cli",
    "version": 2,
}

FIRING: dict[str, Any] = {
    "tenantId": "demo",
    "timerId": _ID,
    "occurrence": 1,
    "status": "settled",
    "nominalAt": "2030-01-31T08:00:30.000000Z",
    "dueAt": "2030-01-31T08:00:30.000000Z",
    "firedAt": "2030-01-31T08:00:30.004211Z",
    "latenessMs": 4.211,
    "settledAt": "2030-01-31T08:00:30.131907Z",
}

FIRING_WITH_DELIVERIES: dict[str, Any] = FIRING | {
    "deliveries": [
        {
            "actionId": "notify",
            "kind": "webhook",
            "status": "delivered",
            "lane": "https://example.com",
            "attemptCount": 1,
            "nextAttemptAt": None,
            "deliveredAt": "2030-01-31T08:00:30.131907Z",
            "deadAt": None,
            "deadReason": None,
            "redrives": 0,
            "escalatedFrom": None,
            "ack": None,
            "attempts": [
                {
                    "attempt": 1,
                    "startedAt": "2030-01-31T08:00:30.009120Z",
                    "durationMs": 118,
                    "outcome": "delivered",
                    "statusCode": 200,
                    "error": None,
                    "excerpt": "ok",
                    "node": "orchestrator-1",
                }
            ],
        }
    ]
}

PROBLEM: dict[str, Any] = {
    "type": "urn:minoots:problem:invalid-timer",
    "title": "Invalid timer",
    "status": 422,
    "detail": "a duration must be longer than 0",
    "pointer": "/duration",
    "errors": [{"pointer": "/duration", "detail": "a duration must be longer than 0"}],
}
