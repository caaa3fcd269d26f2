"""httpx over our own sender of HTTP: what calls through it dials checked addresses, follows nothing, reads little."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import aiohttp
import httpx
from yarl import URL

# All that one session may answer: an agent's result, not a file.
READ_BYTES: Final = 1 << 20
_GOODBYE: Final = aiohttp.ClientTimeout(total=2)
_LEFT_OUT: Final = {"host", "content-length", "connection", "accept-encoding", "transfer-encoding"}


class TooMuch(Exception):
    """An answer is larger than READ_BYTES."""


class Bridge(httpx.AsyncBaseTransport):
    """One session's transport. `status` and `headers` are of the last answer to a POST, `error` what broke first.

    What calls through it may swallow that and wait for an answer that never comes: `on_error` is told at once.
    """

    def __init__(self, session: aiohttp.ClientSession, connect_s: float, on_error: Callable[[], None]) -> None:
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
        self._room = READ_BYTES
        self._on_error = on_error
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """Note what broke."""
        if self.error is None:
            self.error = error
            self._on_error()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # A server's own messages are of no use to a caller that asks once; a stream that broke off may be read on.
        if request.method == "GET" and "last-event-id" not in request.headers:
            return httpx.Response(405, request=request)
        try:
            response = await self._session.request(
                request.method,
                URL(str(request.url), encoded=True),
                data=await request.aread(),
                headers=[(name, value) for name, value in request.headers.items() if name not in _LEFT_OUT],
                allow_redirects=False,
                # To say goodbye is a courtesy.
                timeout=_GOODBYE if request.method == "DELETE" else self._timeout,
            )
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            self.fail(failed)
            raise httpx.ConnectError("no connection", request=request) from failed
        if request.method == "POST":
            self.status, self.headers = response.status, response.headers
        headers = [
            (name, value)
            for name, value in response.headers.items()
            # Without a place to go there is nothing to follow; what is packed is not unpacked.
            if name.lower() not in ("location", "content-encoding", "content-length", "transfer-encoding")
        ]
        return httpx.Response(response.status, headers=headers, stream=_Body(response, self), request=request)

    def take(self, many: int) -> None:
        """Count what has been read; raises httpx.ReadError when it is too much."""
        self._room -= many
        if self._room < 0:
            self.fail(TooMuch())
            raise httpx.ReadError("the answer is too large")


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse, bridge: Bridge) -> None:
        self._response = response
        self._bridge = bridge

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                self._bridge.take(len(chunk))
                yield chunk
        except (aiohttp.ClientError, OSError) as broken:
            self._bridge.fail(broken)
            raise httpx.ReadError("the answer broke off") from broken

    async def aclose(self) -> None:
        self._response.close()
