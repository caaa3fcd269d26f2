"""The OpenAPI 3.1 document: every call with its parameters, bodies, answers, refusals and an example."""

import copy

import minoots
from minoots.domain.limits import IDEMPOTENCY_KEY_CHARACTERS, PAGE_DEFAULT, PAGE_MOST
from minoots.rest import examples
from minoots.rest.openapi_acks import ack_paths, ack_security
from minoots.rest.openapi_changes import change_paths, schedule_paths, update_call
from minoots.rest.openapi_dead_letters import dead_letter_parameters, dead_letter_paths
from minoots.rest.openapi_events import event_paths
from minoots.rest.openapi_lanes import lane_paths
from minoots.rest.openapi_parts import (
    OCCURRENCE,
    REFUSALS,
    TIMER_ID,
    WITH_BODY,
    Document,
    answers,
    body,
    call,
    parameter,
    problem,
    refusal,
    tenant,
)
from minoots.rest.openapi_secrets import secret_paths
from minoots.rest.schemas import TENANT_SCHEMA, Schema, component_schemas
from minoots.rest.timers import STATUSES


def build_document() -> Document:
    """Made anew from the structs, so that it says what the code does."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MINOOTS",
            "version": minoots.__version__,
            "summary": "A durable timer service.",
            "description": "Fire this at T, survive any crash, then call my webhook, agent or command.",
        },
        "servers": [{"url": "/"}],
        "security": [{"apiKey": []}, {"bearer": []}],
        "tags": [
            {"name": "timers", "description": "The promises."},
            {"name": "schedules", "description": "When they come due, again and again."},
            {"name": "firings", "description": "What became of them."},
            {"name": "events", "description": "What happens, as it happens."},
            {"name": "lanes", "description": "Destinations: how many at once, how fast, and whether they work."},
            {"name": "signing secrets", "description": "What webhooks are signed with."},
            {"name": "operation", "description": "For probes and scrapers; no key is needed."},
        ],
        "paths": _timer_paths()
        | change_paths()
        | schedule_paths()
        | _firing_paths()
        | dead_letter_paths()
        | secret_paths()
        | lane_paths()
        | ack_paths()
        | event_paths()
        | _operation_paths(),
        "components": {
            "schemas": component_schemas(),
            "parameters": _parameters(),
            "responses": {name: problem(text) for name, text in REFUSALS.values()},
            "headers": {
                "ETag": {"description": "The timer's version, in quotes.", "schema": {"type": "string"}},
                "Location": {"description": "Where the timer is.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
                **ack_security(),
            },
        },
    }


def _timer_paths() -> Document:
    create = call("createTimer", "Create a timer", "timers", [*tenant(), parameter("IdempotencyKey")])
    create["requestBody"] = body("TimerRequest", examples.NEW_TIMERS)
    create["responses"] = answers(201, "Timer", examples.TIMER, 409, *WITH_BODY, headers=("ETag", "Location"))
    create["responses"]["201"]["links"] = {
        name: {"operationId": name, "parameters": {"path.timer_id": "$response.body#/id"}}
        for name in ("getTimer", "cancelTimer", "pauseTimer", "updateTimer", "listFirings")
    }

    many = call("createTimers", "Create many timers, all or none", "timers", copy.deepcopy(create["parameters"]))
    many["requestBody"] = body("BatchRequest", examples.BATCHES)
    many["responses"] = answers(201, "TimerBatch", {"items": [examples.TIMER]}, 409, *WITH_BODY)

    filters = ("Status", "Label", "Name", "DueBefore", "DueAfter", "Limit", "TimerCursor")
    listing = call("listTimers", "List timers, newest first", "timers", [*tenant(), *map(parameter, filters)])
    listing["responses"] = answers(200, "TimerPage", {"items": [examples.TIMER], "nextCursor": None})

    get = call("getTimer", "Show a timer", "timers", [TIMER_ID, *tenant()])
    get["responses"] = answers(200, "Timer", examples.TIMER, 404, headers=("ETag",))

    cancel = call("cancelTimer", "Cancel a timer that has not fired", "timers", [TIMER_ID, *tenant()])
    cancel["requestBody"] = body("CancelRequest", examples.CANCELS)
    cancel["responses"] = answers(200, "Timer", examples.CANCELLED, 404, 409, *WITH_BODY, headers=("ETag",))
    return {
        "/timers": {"post": create, "get": listing},
        "/timers/batch": {"post": many},
        "/timers/{timer_id}": {"get": get, "patch": update_call()},
        "/timers/{timer_id}/cancel": {"post": cancel},
    }


def _firing_paths() -> Document:
    paging = [TIMER_ID, *tenant(), parameter("Limit"), parameter("FiringCursor")]
    listing = call("listFirings", "List a timer's firings, the latest first", "firings", paging)
    listing["responses"] = answers(200, "FiringPage", {"items": [examples.FIRING], "nextCursor": None}, 404)
    get = call("getFiring", "Show a firing with its deliveries", "firings", [TIMER_ID, OCCURRENCE, *tenant()])
    get["responses"] = answers(200, "Firing", examples.FIRING_WITH_DELIVERIES, 404)
    return {
        "/timers/{timer_id}/firings": {"get": listing},
        "/timers/{timer_id}/firings/{occurrence}": {"get": get},
    }


def _operation_paths() -> Document:
    def probe(name: str, summary: str, media: str, schema: Schema, *refusals: int) -> Document:
        made = call(name, summary, "operation", [])
        made["security"] = []
        made["responses"] = {"200": {"description": summary, "content": {media: {"schema": schema}}}}
        made["responses"] |= {str(status): refusal(status) for status in refusals}
        return {"get": made}

    text, status = {"type": "string"}, {"$ref": "#/components/schemas/Status"}
    return {
        "/healthz": probe("health", "Whether the process answers", "application/json", status),
        "/readyz": probe("ready", "Whether it can do its work", "application/json", status, 503),
        "/metrics": probe("metrics", "Metrics in Prometheus' text format", "text/plain", text),
        "/docs": probe("docs", "This document, to be read by people", "text/html", text),
        "/openapi.json": probe("openapi", "This document", "application/json", {"type": "object"}),
    }


def _parameters() -> Document:
    instant = {"type": "string", "format": "date-time"}
    limit = {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": PAGE_DEFAULT}
    status = {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}}
    label = {"type": "array", "items": {"type": "string", "pattern": "^[^:]{1,63}:"}, "maxItems": 64}
    occurrence = {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"}
    key = {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARACTERS}
    tag = {"type": "string", "pattern": r'^(\*|"[1-9][0-9]{0,17}")$'}
    once = "A name for this request, up to 24 h: sent again under it, it is answered as before and creates nothing."
    made = {
        "TenantParameter": ("query", "tenantId", "Whose timers.", TENANT_SCHEMA),
        "TenantHeader": ("header", "x-tenant-id", "Whose timers.", TENANT_SCHEMA),
        "IfMatch": ("header", "If-Match", "The ETag that the timer must still have.", tag),
        "IdempotencyKey": ("header", "Idempotency-Key", once, key),
        "Status": ("query", "status", "Only these; may be repeated.", status),
        "Label": ("query", "label", "key:value; may be repeated, then all must hold.", label),
        "Name": ("query", "name", "Exactly this name.", {"type": "string", "minLength": 1, "maxLength": 200}),
        "DueBefore": ("query", "dueBefore", "fireAt before this instant.", instant),
        "DueAfter": ("query", "dueAfter", "fireAt after this instant.", instant),
        "Limit": ("query", "limit", "How many at most.", limit),
        "TimerCursor": ("query", "cursor", "nextCursor of the page before.", {"type": "string", "format": "uuid"}),
        "FiringCursor": ("query", "cursor", "nextCursor of the page before.", occurrence),
        **dead_letter_parameters(),
    }
    return {
        name: {"name": wire, "in": place, "description": text, "schema": schema}
        for name, (place, wire, text, schema) in made.items()
    }
