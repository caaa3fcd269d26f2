"""Following events as a browser's EventSource does, on a socket that can be left unread."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self


@dataclass
class Frame:
    """One block of the stream; an empty `event` is a comment, or only an id."""

    event: str = ""
    data: str = ""
    id: str = ""
    comment: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class EventSource:
    """One GET /events. Keeps the last id, as the HTML Standard wants it (section 9.2.6)."""

    def __init__(self, port: int, query: str = "", last_id: str | None = None, **headers: str) -> None:
        self._port = port
        self._target = "/events" + (f"?{query}" if query else "")
        self._headers = {"X-API-Key": "mnt_all_of_them", "x-tenant-id": "acme", **headers}
        if last_id is not None:
            self._headers["Last-Event-ID"] = last_id
        self.last_id = last_id or ""
        self.status = 0
        self.headers: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        async with asyncio.timeout(30):
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=4096)
            lines = [
                f"GET {self._target} HTTP/1.1",
                "Host: localhost",
                *(f"{k}: {v}" for k, v in self._headers.items()),
            ]
            self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
        self._frames = self._parse()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def frame(self, seconds: float = 20) -> Frame:
        """The next block, of any kind; StopAsyncIteration at the stream's end."""
        async with asyncio.timeout(seconds):
            frame = await anext(self._frames)
        self.last_id = frame.id or self.last_id
        return frame

    async def take(self, count: int, seconds: float = 20) -> list[Frame]:
        """Events and notices."""
        found: list[Frame] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                if (frame := await self.frame(seconds)).event:
                    found.append(frame)
        return found

    async def rest(self, seconds: float = 20) -> list[Frame]:
        """All that comes until the server ends the stream."""
        found: list[Frame] = []
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found.append(await self.frame(seconds))
                except StopAsyncIteration:
                    return found

    async def _body(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)

    async def _parse(self) -> AsyncIterator[Frame]:
        held = b""
        async for chunk in self._body():
            held += chunk
            while b"\n\n" in held:
                block, _, held = held.partition(b"\n\n")
                yield _read(block.decode())


def _read(block: str) -> Frame:
    frame, data = Frame(), []
    for line in block.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name in ("event", "id"):
            setattr(frame, name, value)
        elif not name:
            frame.comment = value
    frame.data = "\n".join(data)
    return frame
