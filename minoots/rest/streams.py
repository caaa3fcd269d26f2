"""An answer that goes on: server-sent events, written as fast as the reader reads and no faster."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, Final, TypeVar

import structlog
from litestar.types import Receive, Scope, Send

from minoots.broker.events import Event, Notice
from minoots.broker.follow import Follower
from minoots.rest.answers import HttpRequest
from minoots.service.following import Following

T = TypeVar("T")

log = structlog.get_logger("minoots.rest")

HEARTBEAT_S: Final = 15.0
# A reader that takes nothing for so long is cut off; it has what it saw last to resume from.
STALLED_S: Final = 300.0
# For the last words to a reader when the server goes away.
_PARTING_S: Final = 1.0
# The server holds up to 16 pieces for a reader that does not read: 128 KiB.
_PIECE_BYTES: Final = 8 << 10
_RETRY_MS: Final = 2_000
HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx would hold events back otherwise.
    (b"x-accel-buffering", b"no"),
)


class EventStream:
    """An ASGI application. It ends when the reader goes, the server goes, or the follower is over.

    What a reader was not told yet when it goes is behind the last `id` that it saw. The stream begins with such an id,
    and each heartbeat has one, so that also a reader to whom nothing happened yet resumes without a gap.
    """

    def __init__(self, follower: Follower, following: Following) -> None:
        self._follower = follower
        self._following = following
        self._limit: asyncio.Timeout | None = None
        self._sent_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._follower:
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            if scope["method"] == "HEAD":  # type: ignore[typeddict-item]
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            watching = asyncio.create_task(self._watch(receive))
            self._following.ends.add(self.end)
            try:
                await self._write(send)
            finally:
                self._following.ends.discard(self.end)
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    def end(self) -> None:
        """The server goes away: a moment for the last words."""
        self._follower.end()
        if self._limit is not None:
            with contextlib.suppress(RuntimeError):
                self._limit.reschedule(asyncio.get_running_loop().time() + _PARTING_S)

    async def _watch(self, receive: Receive) -> None:
        await _gone(receive)
        self._follower.end()

    async def _write(self, send: Send) -> None:
        follower = self._follower
        try:
            await self._send(send, f"retry: {_RETRY_MS}\n{self._place()}\n".encode())
            while not follower.is_over:
                found = await follower.take(HEARTBEAT_S - (time.monotonic() - self._sent_at))
                for piece in pieces(found):
                    await self._send(send, piece)
                if not found and time.monotonic() - self._sent_at >= HEARTBEAT_S:
                    await self._send(send, f": still here\n{self._place()}\n".encode())
            await self._send(send, f": the end; resume after the last id\n{self._place()}\n".encode(), is_last=True)
        except TimeoutError:
            log.info("rest.stream_cut", note="a reader took nothing", after_s=STALLED_S)
        except asyncio.CancelledError:
            # The server cancels what it was to send to a reader that is gone; that is no cancelling of ours.
            running = asyncio.current_task()
            if running is None or running.cancelling():
                raise

    def _place(self) -> str:
        token = self._follower.token
        return f"id: {token}\n" if token else ""

    async def _send(self, send: Send, body: bytes, *, is_last: bool = False) -> None:
        async with asyncio.timeout(_PARTING_S if is_last else STALLED_S) as self._limit:
            await send({"type": "http.response.body", "body": body, "more_body": not is_last})
        self._sent_at = time.monotonic()


async def unless_gone(request: HttpRequest, asked: Coroutine[Any, Any, T]) -> T | None:
    """What was asked; None when the caller went away before, and nobody is there to be answered."""
    asking, leaving = asyncio.ensure_future(asked), asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait({asking, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return asking.result() if asking.done() else None
    finally:
        for unfinished in (asking, leaving):
            unfinished.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def pieces(found: Sequence[Event | Notice]) -> Iterator[bytes]:
    """What to send, in pieces that are filled with small events, and are parts of large ones."""
    piece = bytearray()
    for one in found:
        for part in _frame(one):
            view = memoryview(part)
            while len(view):
                room = _PIECE_BYTES - len(piece)
                piece += view[:room]
                view = view[room:]
                if len(piece) >= _PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
    if piece:
        yield bytes(piece)


def _frame(one: Event | Notice) -> Iterator[bytes]:
    """An event of the stream (HTML Standard, section 9.2.5); a notice's id is where the reader goes on."""
    if isinstance(one, Notice):
        yield (
            f"id: {one.resume_token}\nevent: notice\n"
            f'data: {{"reason": "{one.reason}", "resume": "{one.resume_token}"}}\n\n'
        ).encode()
        return
    yield f"id: {one.resume_token}\nevent: {one.kind}\ndata: ".encode()
    if b"\n" in one.body or b"\r" in one.body:
        # White space between the tokens of JSON, if it is JSON: a reader joins the lines again.
        yield b"\ndata: ".join(one.body.splitlines())
    else:
        yield one.body
    yield b"\n\n"
