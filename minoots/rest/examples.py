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
    "recurring": {
        "summary": "Every weekday at nine in Berlin",
        "value": {
            "tenantId": "demo",
            "requestedBy": "reports",
            "name": "daily-report",
            "schedule": {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin", "exclude": ["2030-12-25", "2030-12-26"]},
            "actionBundle": _BUNDLE,
        },
    },
    "agent": {
        "summary": "Waking an agent",
        "value": {
            "tenantId": "demo",
            "requestedBy": "planner",
            "duration": "1h30m",
            "metadata": {"orderId": 7},
            "agentBinding": {
                "adapter": "mcp",
                "target": "https://agents.example.com/mcp#remind",
                "payloadTemplate": {"order": "{{timer.metadata.orderId}}", "text": "due at {{firing.dueAt}}"},
            },
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
    "missed": 0,
    "version": 1,
}

CANCELLED: dict[str, Any] = TIMER | {
    "status": "cancelled",
    "cancelledAt": "2030-01-31T08:00:12.000000Z",
    "cancelReason": "coffee is ready",
    "cancelledBy": "cli",
    "version": 2,
}

PAUSED: dict[str, Any] = TIMER | {"status": "paused", "version": 2}

FIRED: dict[str, Any] = TIMER | {
    "status": "fired",
    "fireAt": "2030-01-31T08:00:10.000000Z",
    "firedAt": "2030-01-31T08:00:10.004211Z",
    "occurrence": 1,
    "version": 2,
}

RECURRING: dict[str, Any] = TIMER | {
    "name": "daily-report",
    "requestedBy": "reports",
    "durationMs": None,
    "fireAt": "2030-02-01T08:00:00.000000Z",
    "metadata": None,
    "schedule": {"specs": [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}]},
    "version": 2,
}

STEPS: dict[str, Any] = {"who": {"summary": "And who asks for it", "value": {"tenantId": "demo", "requestedBy": "cli"}}}

RESUMES: dict[str, Any] = {
    "go on": {"summary": "What came due meanwhile is missed", "value": {"tenantId": "demo", "requestedBy": "cli"}},
    "catch up": {
        "summary": "What came due meanwhile is caught up with, as the schedule says",
        "value": {"tenantId": "demo", "catchUp": True},
    },
}

RESCHEDULES: dict[str, Any] = {
    "schedule": {
        "summary": "Another schedule",
        "value": {"tenantId": "demo", "schedule": {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}},
    },
    "duration": {"summary": "In an hour", "value": {"tenantId": "demo", "duration": "1h", "requestedBy": "cli"}},
    "instant": {"summary": "At an instant", "value": {"tenantId": "demo", "fireAt": "2030-01-31T09:00:00+01:00"}},
}

UPDATES: dict[str, Any] = {
    "schedule": {
        "summary": "Another schedule and other labels; the name goes",
        "value": {
            "tenantId": "demo",
            "name": None,
            "labels": {"team": "reports"},
            "schedule": {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"},
        },
    }
}

PUTS: dict[str, Any] = {
    "recurring": {
        "summary": "Put at each deployment: the same schedule goes on undisturbed",
        "value": {
            "tenantId": "demo",
            "requestedBy": "deployment",
            "cron": "0 9 * * 1-5",
            "timezone": "Europe/Berlin",
            "actionBundle": _BUNDLE,
        },
    }
}

PREVIEWS: dict[str, Any] = {
    "night": {
        "summary": "Across a change of the clocks",
        "value": {
            "schedule": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
            "after": "2030-03-30T00:00:00Z",
            "count": 2,
        },
    },
    "short": {"summary": "In short", "value": {"every": "15m"}},
}

PREVIEW: dict[str, Any] = {
    "items": [
        {"at": "2030-03-30T01:30:00.000000Z", "local": "2030-03-30T02:30:00+01:00"},
        {
            "at": "2030-03-31T01:00:00.000000Z",
            "local": "2030-03-31T03:00:00+02:00",
            "note": "02:30 does not exist on 2030-03-31 in Europe/Berlin: moved to 03:00; clocks change before this: "
            "the offset is now +02:00",
        },
    ]
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
