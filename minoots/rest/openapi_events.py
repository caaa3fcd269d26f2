"""The part of the OpenAPI document about following events and waiting for a timer's end."""

from minoots.broker.events import FAMILIES
from minoots.domain.event import KINDS
from minoots.rest import examples
from minoots.rest.openapi_parts import TIMER_ID, Document, answers, call, parameter, refusal, tenant
from minoots.service.waits import WAIT_DEFAULT_S

_STREAM = """retry: 2000
id: 3gk2m9d0a1-41

id: 3gk2m9d0a1-42
event: timer.fired
data: {"specversion": "1.0", "type": "minoots.timer.fired", "subject": "0197…", "data": {"timer": {…}}}

: still here
id: 3gk2m9d0a1-57

id: 3gk2m9d0a1-57
event: notice
data: {"reason": "too_slow", "resume": "3gk2m9d0a1-57"}

"""
_WORDS = (
    "Server-sent events, until the caller or the server ends them; each `data` is the CloudEvents envelope. An `event: "
    "notice` says that events may be missing from here on (stream_replaced: NATS lost its data; expired: they were "
    "dropped before they were read), or that this reader is too slow: then the stream ends, and one that begins with "
    "its `resume` as Last-Event-ID misses nothing. A comment comes when it has been silent for 15 seconds."
)
_HOW = "Why the wait is over: ended, timeout, or interrupted when the server goes away; call again after the last two."


def event_paths() -> Document:
    """For those who have no door of their own."""
    follow = call("followEvents", "Follow the tenant's events", "events", [*tenant(), *_filters()])
    content = {"text/event-stream": {"schema": {"type": "string", "description": _WORDS}, "example": _STREAM}}
    follow["responses"] = {"200": {"description": "They come as they happen.", "content": content}}
    follow["responses"] |= {str(status): refusal(status) for status in (400, 401, 403, 409, 503)}

    wait = call("waitForTimer", "Wait for a timer's end", "timers", [TIMER_ID, *tenant(), _timeout()])
    wait["responses"] = answers(200, "Timer", examples.FIRED, 404, headers=("ETag",))
    wait["responses"]["200"]["description"] = "The timer when it has ended, or as it is when the time is up."
    how = {"description": _HOW, "schema": {"type": "string", "enum": ["ended", "timeout", "interrupted"]}}
    wait["responses"]["200"]["headers"]["minoots-wait"] = how
    return {"/events": {"get": follow}, "/timers/{timer_id}/wait": {"get": wait}}


def _filters() -> list[Document]:
    kinds = {"type": "array", "items": {"type": "string", "enum": [*FAMILIES, *KINDS]}}
    token = {"type": "string", "pattern": "^([0-9a-z]{1,16}-[0-9]{1,18})?$"}
    return [
        _query("type", "Only these, as timer.fired or delivery.*; may be repeated.", kinds),
        _query("timerId", "Only events of this timer.", {"type": "string", "format": "uuid"}),
        parameter("Label"),
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "An `id` of the stream: what came after it comes first. An EventSource sends it by itself.",
            "schema": token,
        },
    ]


def _timeout() -> Document:
    text = f"How long to wait, up to 5m; {WAIT_DEFAULT_S:.0f}s unless given."
    return _query("timeout", text, {"type": "string", "pattern": "^[1-9][0-9]{0,2}ms$|^[1-9][0-9]?s$|^[1-5]m$"})


def _query(name: str, text: str, schema: Document) -> Document:
    return {"name": name, "in": "query", "description": text, "schema": schema}
