"""Reading a request's body: JSON by its content type, within its limit, within its time."""

import asyncio

from litestar.types import HTTPScope, Receive

from minoots.errors import BodyTooLarge, MalformedRequest, UnsupportedMedia
from minoots.rest.answers import HttpRequest
from minoots.rest.parameters import header

# A body has this long, and a second more for each 256 KiB that it may hold.
BODY_SECONDS = 30.0
# How much of a body that is too large is read and thrown away, and for how long: a connection that is closed while
# the client still sends is reset, and then our answer is lost (RFC 9112, section 9.6).
_DISCARDED_BYTES = 64 * 1024 * 1024
_DISCARD_SECONDS = 2.0


async def read_body(request: HttpRequest, limit: int) -> bytes:
    """The whole body. Never holds more than `limit` bytes and one chunk.

    Raises UnsupportedMedia, BodyTooLarge, and MalformedRequest when there is none or it does not arrive.
    """
    scope = request.scope
    length = header(scope, b"content-length")
    _check_media(scope, length)
    if length is not None and length.isdecimal() and int(length) > limit:
        await _refuse(request, limit, int(length))
    try:
        async with asyncio.timeout(BODY_SECONDS + limit / 262_144):
            body = await _collect(request.receive, limit)
    except TimeoutError:
        raise MalformedRequest("the body did not arrive in time; send it without pausing") from None
    if body is None:
        await _refuse(request, limit, None)
    return body or b""


async def read_optional_body(request: HttpRequest, limit: int) -> bytes:
    """The whole body, `{}` where there is none."""
    scope = request.scope
    length = header(scope, b"content-length")
    is_without = length is None and header(scope, b"transfer-encoding") is None
    if length == "0" or (is_without and header(scope, b"content-type") is None):
        return b"{}"
    return await read_body(request, limit) or b"{}"


async def _collect(receive: Receive, limit: int) -> bytes | None:
    """All chunks in one; None as soon as they are more than the limit."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedRequest("the connection ended before the body did")
        chunk = message["body"]
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _check_media(scope: HTTPScope, length: str | None) -> None:
    media, _, parameters = (header(scope, b"content-type") or "").lower().partition(";")
    media = media.strip()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        if length == "0" or (length is None and header(scope, b"transfer-encoding") is None):
            raise MalformedRequest("the body is missing; send a JSON object with Content-Type: application/json")
        raise UnsupportedMedia
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in {"utf-8", "utf8", "us-ascii"}:
            raise UnsupportedMedia("JSON is UTF-8; send the body in it, with Content-Type: application/json")
    if (header(scope, b"content-encoding") or "identity").lower() != "identity":
        raise UnsupportedMedia("send the body as it is, without Content-Encoding")


async def _refuse(request: HttpRequest, limit: int, length: int | None) -> None:
    """Raises BodyTooLarge, after a moment in which a client that does not wait for us may finish sending."""
    waits = header(request.scope, b"expect") is not None
    if not waits and (length is None or length <= _DISCARDED_BYTES):
        await _discard(request.receive)
    unit = f"{limit // 1024} KiB" if limit < 1024 * 1024 else f"{limit // (1024 * 1024)} MiB"
    raise BodyTooLarge(f"the body is over its limit of {unit}")


async def _discard(receive: Receive) -> None:
    size = 0
    try:
        async with asyncio.timeout(_DISCARD_SECONDS):
            while size <= _DISCARDED_BYTES:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                size += len(message["body"])
    except TimeoutError:
        return
