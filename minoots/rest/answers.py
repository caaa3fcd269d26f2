"""Whole answers as bytes: what a handler returns, ready to be sent."""

from collections.abc import Iterable
from typing import Any, TypeAlias

import msgspec
from litestar import Request
from litestar.types import Receive, Scope, Send

from minoots.domain.timer import Timer
from minoots.service.timers import Page

HttpRequest: TypeAlias = Request[Any, Any, Any]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode
# Answers belong to one caller, and a timer is another one a moment later.
_JSON = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class Answer:
    """Status, headers and body in one piece. An ASGI application, so that Litestar sends it as it is."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body: bytes, status: int = 200, headers: RawHeaders = _JSON) -> None:
        self.body = body
        self.status = status
        # A 204 has no length (RFC 9110, section 8.6).
        self.headers = [*headers, (b"content-length", b"%d" % len(body))] if body else [*headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. The server leaves the body out where the method is HEAD."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


def json_answer(value: object, status: int = 200) -> Answer:
    """The value as JSON."""
    return Answer(_encode(value), status)


def timer_answer(timer: Timer) -> Answer:
    """One timer with its version as the entity tag (RFC 9110, section 8.8.3)."""
    return Answer(_encode(timer), 200, (*_JSON, (b"etag", b'"%d"' % timer.version)))


def created_answer(timer: Timer) -> Answer:
    """A new timer, and where it is."""
    place = f"/timers/{timer.id}".encode()
    return Answer(_encode(timer), 201, (*_JSON, (b"etag", b'"%d"' % timer.version), (b"location", place)))


def page_answer(page: Page[Any]) -> Answer:
    """A part of a list, with the cursor of the next."""
    return json_answer({"items": page.items, "nextCursor": page.next_cursor})
