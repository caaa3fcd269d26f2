"""The pieces that the OpenAPI document is put together from: calls, bodies, answers and refusals."""

from typing import Any, TypeAlias

from minoots.rest import examples
from minoots.rest.problems import MEDIA_TYPE

Document: TypeAlias = dict[str, Any]

REFUSALS = {
    400: ("Malformed", "The request cannot be read, or contradicts itself."),
    401: ("Unauthenticated", "No API key, or none that is known."),
    403: ("Forbidden", "The key may not do this, or not for this tenant."),
    404: ("NotFound", "There is nothing of that name in this tenant."),
    409: ("Conflict", "The state does not allow it, or a request with the same Idempotency-Key is under way."),
    412: ("Stale", "The timer is not in the version that If-Match names; nothing was changed."),
    413: ("TooLarge", "The body is over its limit."),
    415: ("NotJson", "The body is not JSON."),
    422: ("Invalid", "The JSON breaks a rule; `errors` says which, with a pointer each."),
    503: ("Unavailable", "The database is away; nothing was changed. Try again after Retry-After seconds."),
}
_ALWAYS = (400, 401, 403, 422, 503)
WITH_BODY = (413, 415)

TIMER_ID = {
    "name": "timer_id",
    "in": "path",
    "required": True,
    "description": "The timer's id.",
    "schema": {"type": "string", "format": "uuid"},
}
OCCURRENCE = {
    "name": "occurrence",
    "in": "path",
    "required": True,
    "description": "1 for the first firing, 2 for the second, and so on.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
}


def call(name: str, summary: str, tag: str, parameters: list[Document]) -> Document:
    """A call without body and answers yet."""
    return {"operationId": name, "summary": summary, "tags": [tag], "parameters": parameters}


def body(schema: str, shown: Document, *, is_required: bool = True) -> Document:
    """What a call takes, with its examples."""
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": shown}
    return {"required": is_required, "content": {"application/json": content}}


def answers(status: int, schema: str, example: Any, *refusals: int, headers: tuple[str, ...] = ()) -> Document:
    """The good answer, and those that say no."""
    good: Document = {
        "description": "Created." if status == 201 else "Here it is.",
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}},
    }
    if headers:
        good["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in headers}
    return {str(status): good} | {str(code): refusal(code) for code in sorted({*_ALWAYS, *refusals})}


def refusal(status: int) -> Document:
    """One that says no."""
    return {"$ref": f"#/components/responses/{REFUSALS[status][0]}"}


def problem(text: str) -> Document:
    """The answer of a kind of refusal."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {MEDIA_TYPE: {"schema": schema, "example": examples.PROBLEM}}}


def parameter(name: str) -> Document:
    """One of the shared parameters."""
    return {"$ref": f"#/components/parameters/{name}"}


def tenant() -> list[Document]:
    """Where a tenant may stand beside the body."""
    return [parameter("TenantParameter"), parameter("TenantHeader")]
