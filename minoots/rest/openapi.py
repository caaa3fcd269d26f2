"""The OpenAPI 3.1 document: every call with its parameters, bodies, answers, refusals and an example."""

import copy
from typing import Any, TypeAlias

import minoots
from minoots.domain.limits import IDEMPOTENCY_KEY_CHARACTERS, PAGE_DEFAULT, PAGE_MOST
from minoots.rest import examples
from minoots.rest.problems import MEDIA_TYPE
from minoots.rest.schemas import TENANT_SCHEMA, Schema, component_schemas
from minoots.rest.timers import STATUSES

Document: TypeAlias = dict[str, Any]

_REFUSALS = {
    400: ("Malformed", "The request cannot be read, or contradicts itself."),
    401: ("Unauthenticated", "No API key, or none that is known."),
    403: ("Forbidden", "The key may not do this, or not for this tenant."),
    404: ("NotFound", "There is nothing of that name in this tenant."),
    409: ("Conflict", "The state does not allow it, or a request with the same Idempotency-Key is under way."),
    413: ("TooLarge", "The body is over its limit."),
    415: ("NotJson", "The body is not JSON."),
    422: ("Invalid", "The JSON breaks a rule; `errors` says which, with a pointer each."),
    503: ("Unavailable", "The database is away; nothing was changed. Try again after Retry-After seconds."),
}
_ALWAYS = (400, 401, 403, 422, 503)
_WITH_BODY = (413, 415)

_TIMER_ID = {
    "name": "timer_id",
    "in": "path",
    "required": True,
    "description": "The timer's id.",
    "schema": {"type": "string", "format": "uuid"},
}
_OCCURRENCE = {
    "name": "occurrence",
    "in": "path",
    "required": True,
    "description": "1 for the first firing, 2 for the second, and so on.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
}


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
            {"name": "firings", "description": "What became of them."},
            {"name": "operation", "description": "For probes and scrapers; no key is needed."},
        ],
        "paths": _timer_paths() | _firing_paths() | _operation_paths(),
        "components": {
            "schemas": component_schemas(),
            "parameters": _parameters(),
            "responses": {name: _problem(text) for name, text in _REFUSALS.values()},
            "headers": {
                "ETag": {"description": "The timer's version, in quotes.", "schema": {"type": "string"}},
                "Location": {"description": "Where the timer is.", "schema": {"type": "string"}},
            },
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _timer_paths() -> Document:
    create = _call("createTimer", "Create a timer", "timers", [*_tenant(), _parameter("IdempotencyKey")])
    create["requestBody"] = _body("TimerRequest", examples.NEW_TIMERS)
    create["responses"] = _answers(201, "Timer", examples.TIMER, 409, *_WITH_BODY, headers=("ETag", "Location"))
    create["responses"]["201"]["links"] = {
        name: {"operationId": name, "parameters": {"path.timer_id": "$response.body#/id"}}
        for name in ("getTimer", "cancelTimer", "listFirings")
    }

    many = _call("createTimers", "Create many timers, all or none", "timers", copy.deepcopy(create["parameters"]))
    many["requestBody"] = _body("BatchRequest", examples.BATCHES)
    many["responses"] = _answers(201, "TimerBatch", {"items": [examples.TIMER]}, 409, *_WITH_BODY)

    filters = ("Status", "Label", "Name", "DueBefore", "DueAfter", "Limit", "TimerCursor")
    listing = _call("listTimers", "List timers, newest first", "timers", [*_tenant(), *map(_parameter, filters)])
    listing["responses"] = _answers(200, "TimerPage", {"items": [examples.TIMER], "nextCursor": None})

    get = _call("getTimer", "Show a timer", "timers", [_TIMER_ID, *_tenant()])
    get["responses"] = _answers(200, "Timer", examples.TIMER, 404, headers=("ETag",))

    cancel = _call("cancelTimer", "Cancel a timer that has not fired", "timers", [_TIMER_ID, *_tenant()])
    cancel["requestBody"] = _body("CancelRequest", examples.CANCELS)
    cancel["responses"] = _answers(200, "Timer", examples.CANCELLED, 404, 409, *_WITH_BODY, headers=("ETag",))
    return {
        "/timers": {"post": create, "get": listing},
        "/timers/batch": {"post": many},
        "/timers/{timer_id}": {"get": get},
        "/timers/{timer_id}/cancel": {"post": cancel},
    }


def _firing_paths() -> Document:
    paging = [_TIMER_ID, *_tenant(), _parameter("Limit"), _parameter("FiringCursor")]
    listing = _call("listFirings", "List a timer's firings, the latest first", "firings", paging)
    listing["responses"] = _answers(200, "FiringPage", {"items": [examples.FIRING], "nextCursor": None}, 404)
    get = _call("getFiring", "Show a firing with its deliveries", "firings", [_TIMER_ID, _OCCURRENCE, *_tenant()])
    get["responses"] = _answers(200, "Firing", examples.FIRING_WITH_DELIVERIES, 404)
    return {
        "/timers/{timer_id}/firings": {"get": listing},
        "/timers/{timer_id}/firings/{occurrence}": {"get": get},
    }


def _operation_paths() -> Document:
    def call(name: str, summary: str, media: str, schema: Schema, *refusals: int) -> Document:
        made = _call(name, summary, "operation", [])
        made["security"] = []
        made["responses"] = {"200": {"description": summary, "content": {media: {"schema": schema}}}}
        made["responses"] |= {str(status): _refusal(status) for status in refusals}
        return {"get": made}

    text, status = {"type": "string"}, {"$ref": "#/components/schemas/Status"}
    return {
        "/healthz": call("health", "Whether the process answers", "application/json", status),
        "/readyz": call("ready", "Whether it can do its work", "application/json", status, 503),
        "/metrics": call("metrics", "Metrics in Prometheus' text format", "text/plain", text),
        "/docs": call("docs", "This document, to be read by people", "text/html", text),
        "/openapi.json": call("openapi", "This document", "application/json", {"type": "object"}),
    }


def _call(name: str, summary: str, tag: str, parameters: list[Document]) -> Document:
    return {"operationId": name, "summary": summary, "tags": [tag], "parameters": parameters}


def _body(schema: str, shown: Document) -> Document:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": shown}
    return {"required": True, "content": {"application/json": content}}


def _answers(status: int, schema: str, example: Any, *refusals: int, headers: tuple[str, ...] = ()) -> Document:
    good: Document = {
        "description": "Created." if status == 201 else "Here it is.",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}},
    }
    if headers:
        good["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return {str(status): good} | {str(code): _refusal(code) for code in sorted({*_ALWAYS, *refusals})}


def _refusal(status: int) -> Document:
    return {"$ref": f"#/components/responses/{_REFUSALS[status][0]}"}


def _problem(text: str) -> Document:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema, "example": examples.PROBLEM}}}


def _parameter(name: str) -> Document:
    return {"$ref": f"#/components/parameters/{name}"}


def _tenant() -> list[Document]:
    return [_parameter("TenantParameter"), _parameter("TenantHeader")]


def _parameters() -> Document:
    instant = {"type": "string", "format": "date-time"}
    limit = {"type": "integer", "minimum": 1, "maximum": PAGE_MOST, "default": PAGE_DEFAULT}
    status = {"type": "array", "items": {"type": "string", "enum": list(STATUSES)}}
    label = {"type": "array", "items": {"type": "string", "pattern": "^[^:]{1,63}:"}, "maxItems": 64}
    occurrence = {"type": "string", "pattern": "^[1-9][0-9]{0,9}$"}
    key = {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARACTERS}
    once = "A name for this request, up to 24 h: sent again under it, it is answered as before and creates nothing."
    made = {
        "TenantParameter": ("query", "tenantId", "Whose timers.", TENANT_SCHEMA),
        "TenantHeader": ("header", "x-tenant-id", "Whose timers.", TENANT_SCHEMA),
        "IdempotencyKey": ("header", "Idempotency-Key", once, key),
        "Status": ("query", "status", "Only these; may be repeated.", status),
        "Label": ("query", "label", "key:value; may be repeated, then all must hold.", label),
        "Name": ("query", "name", "Exactly this name.", {"type": "string", "minLength": 1, "maxLength": 200}),
        "DueBefore": ("query", "dueBefore", "fireAt before this instant.", instant),
        "DueAfter": ("query", "dueAfter", "fireAt after this instant.", instant),
        "Limit": ("query", "limit", "How many at most.", limit),
        "TimerCursor": ("query", "cursor", "nextCursor of the page before.", {"type": "string", "format": "uuid"}),
        "FiringCursor": ("query", "cursor", "nextCursor of the page before.", occurrence),
    }
    return {
        name: {"name": wire, "in": place, "description": text, "schema": schema}
        for name, (place, wire, text, schema) in made.items()
    }
