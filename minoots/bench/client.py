"""A client that keeps one door busy, in a process of its own: each question is a round, its answer what came of it.

A question is JSON, `{"kind", "seconds", "connections", …}`: kinds are http, aiohttp, grpc, sql, the rest is their own.
The answer is `{"good", "bad", "seconds", "ms": [of each good one], "said": the first bad answer}`.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import uvloop

# One for all connections of this process.
_sessions: dict[str, Any] = {}

Once = Callable[[], Awaitable[str | None]]


class _Http(asyncio.Protocol):
    """One connection, one request at a time, always the same bytes."""

    def __init__(self) -> None:
        self._pending = b""
        self._answered: asyncio.Future[int] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError("the server closed the connection"))

    def send(self, request: bytes) -> "asyncio.Future[int]":
        """The status of the answer, once it is whole."""
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:
        self._pending += data
        end = self._pending.find(b"\r\n\r\n")
        if end < 0 or self._answered is None:
            return
        head = self._pending[:end].lower()
        place = head.find(b"content-length:")
        length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
        if len(self._pending) >= end + 4 + length:
            status = int(self._pending[9:12])
            self._pending = b""
            if not self._answered.done():
                self._answered.set_result(status)


async def _http(question: Mapping[str, Any]) -> Once:
    """`host`, `port`, `path`, `headers`, `body`; good is 200 or 201."""
    host, port = question["host"], question["port"]
    body = question["body"].encode()
    headers = {"host": f"{host}:{port}", "content-length": str(len(body)), **question["headers"]}
    lines = [f"POST {question['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    _, connection = await asyncio.get_running_loop().create_connection(_Http, host, port)

    async def once() -> str | None:
        status = await connection.send(request)
        return None if status in (200, 201) else f"HTTP {status}"

    return once


async def _aiohttp(question: Mapping[str, Any]) -> Once:
    """As `_http`, with the library that the orchestrator uses, and nothing around it."""
    import aiohttp

    session = _sessions.get("one") or aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    )
    _sessions["one"] = session
    url = f"http://{question['host']}:{question['port']}{question['path']}"
    body, headers = question["body"].encode(), question["headers"]

    async def once() -> str | None:
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            await answer.read()
            return None if answer.status in (200, 201) else f"HTTP {answer.status}"

    return once


async def _grpc(question: Mapping[str, Any]) -> Once:
    """`target`, `method`, `message` (base64), `metadata`."""
    import grpc.aio

    channel = grpc.aio.insecure_channel(question["target"], options=[("grpc.use_local_subchannel_pool", 1)])
    await asyncio.wait_for(channel.channel_ready(), 10)
    call: Callable[..., Awaitable[bytes]] = channel.unary_unary(question["method"])
    message = base64.b64decode(question["message"])
    metadata = [tuple(pair) for pair in question["metadata"]]

    async def once() -> str | None:
        try:
            await call(message, metadata=metadata)
        except grpc.aio.AioRpcError as refused:
            return f"{refused.code().name}: {refused.details()}"
        return None

    return once


async def _sql(question: Mapping[str, Any]) -> Once:
    """`url`, `statement`, `values`."""
    import asyncpg

    connection = await asyncpg.connect(question["url"])
    statement = await connection.prepare(question["statement"])

    async def once() -> str | None:
        await statement.fetchval(*question["values"])
        return None

    return once


async def _round(question: Mapping[str, Any]) -> dict[str, Any]:
    """Every connection asks again as soon as it is answered, until the time is up."""
    made = {"http": _http, "aiohttp": _aiohttp, "grpc": _grpc, "sql": _sql}[question["kind"]]
    doors = [await made(question) for _ in range(question["connections"])]
    milliseconds: list[float] = []
    bad: list[str] = []
    began = time.perf_counter()
    end = began + question["seconds"]

    async def keep_busy(once: Once) -> None:
        while (sent := time.perf_counter()) < end:
            said = await once()
            if said is None:
                milliseconds.append(round((time.perf_counter() - sent) * 1000, 3))
            else:
                bad.append(said)

    async with asyncio.TaskGroup() as group:
        for once in doors:
            group.create_task(keep_busy(once))
    took = time.perf_counter() - began
    return {
        "good": len(milliseconds),
        "bad": len(bad),
        "seconds": took,
        "ms": milliseconds,
        "said": bad[0] if bad else None,
    }


async def _answer_all() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say("ready")
    while line := await reader.readline():
        _say(await _round(json.loads(line)))
    for session in _sessions.values():
        await session.close()


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_answer_all())
