"""A receiver of webhooks in a process of its own: as fast as Python allows, it notes who came when.

It listens on as many ports as asked, for a port is a destination; then on as many that take requests and never answer,
and on as many that answer drop by drop. On standard input it takes words: `count` answers
how many requests there have been, `report` answers all of them as `[webhook-id, path, microseconds since 1970]`.
Each answer is a line of JSON; the first line, without a question, is the ports. It ends with its input.
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Connection(asyncio.Protocol):
    """One keep-alive connection. What is read: the path, `webhook-id`, `content-length`, nothing else."""

    def __init__(self, arrivals: list[tuple[str, str, int]]) -> None:
        self._arrivals = arrivals
        self._pending = b""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            head = self._pending[:end].decode("latin-1")
            length = int(_header(head, "content-length") or 0)
            whole = end + 4 + length
            if len(self._pending) < whole:
                return
            self._pending = self._pending[whole:]
            path = head.split(" ", 2)[1]
            self._arrivals.append((_header(head, "webhook-id"), path, time.time_ns() // 1000))
            self._transport.write(_ANSWER)


class _Hanging(asyncio.Protocol):
    """Reads, and says nothing."""


class _Dripping(asyncio.Protocol):
    """Answers 200 at once and then a byte each half second, of a body that takes an hour."""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7200\r\n\r\n")
        self._drip()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b".")
            asyncio.get_running_loop().call_later(0.5, self._drip)


def _header(head: str, name: str) -> str:
    """Its value, empty when there is none."""
    place = head.lower().find(f"\r\n{name}:")
    if place < 0:
        return ""
    begin = place + len(name) + 3
    end = head.find("\r\n", begin)
    return head[begin : end if end >= 0 else None].strip()


async def _serve(ports: int, hanging: int = 0, dripping: int = 0) -> None:
    loop = asyncio.get_running_loop()
    arrivals: list[tuple[str, str, int]] = []
    kinds = [lambda: _Connection(arrivals)] * ports + [_Hanging] * hanging + [_Dripping] * dripping
    servers = [await loop.create_server(kind, "127.0.0.1", 0) for kind in kinds]
    _say([server.sockets[0].getsockname()[1] for server in servers])
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while word := (await reader.readline()).strip():
        if word == b"clear":
            arrivals.clear()
        _say(len(arrivals) if word in (b"count", b"clear") else arrivals)


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer, separators=(",", ":")) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_serve(*map(int, sys.argv[1:])))
