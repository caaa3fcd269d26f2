"""Whatever an MCP server answers, an attempt ends in time, with an outcome that says what was wrong."""

import asyncio
import gzip
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from minoots.domain.outcome import Delivered, Outcome, Rejected, Retry
from minoots.domain.target import Targets
from minoots.orchestrator.actions.adapters import Prompt
from minoots.orchestrator.actions.adapters.mcp import McpAdapter
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.actions.webhook import WebhookRunner
from tests.support.receiver import Receiver

Answer = Callable[[web.Request, int], Awaitable[web.StreamResponse]]
INITIALIZED = {
    "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"},
}  # fmt: skip


def prompt(target: str, timeout_ms: int = 10_000) -> Prompt:
    request = ActionRequest("demo", "t", 1, "ask", "agent_prompt", "{}", "{}", None)
    return Prompt(request, target, b'{"a":1}', {}, timeout_ms)


async def ask(receiver: Receiver, timeout_ms: int = 10_000, targets: Targets | None = None) -> Outcome:
    async with WebhookRunner(8, targets or Targets.of((), loopback=True)) as webhooks:
        return await McpAdapter(webhooks).send(prompt(receiver.url("/mcp#tool"), timeout_ms))


def serving(on_call: Answer) -> Answer:
    """A server that opens sessions as it should, and answers the tool's call as it likes."""

    async def answer(request: web.Request, nth: int) -> web.StreamResponse:
        if request.method != "POST":
            return web.Response(status=200)
        asked = json.loads(await request.read())
        if asked["method"] == "tools/call":
            return await on_call(request, asked["id"])
        if "id" not in asked:
            return web.Response(status=202)
        headers = {"mcp-session-id": "s"}
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": INITIALIZED}, headers=headers)

    return answer


async def garbage(request: web.Request, nth: int) -> web.StreamResponse:
    return web.Response(text="{not json", content_type="application/json")


async def page(request: web.Request, nth: int) -> web.StreamResponse:
    return web.Response(text="<h1>hello</h1>", content_type="text/html")


async def moved(request: web.Request, nth: int) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect(str(request.url.with_path("/canary")))


async def gone(request: web.Request, nth: int) -> web.StreamResponse:
    return web.Response(status=410)


async def busy(request: web.Request, nth: int) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "90"})


async def broken(request: web.Request, nth: int) -> web.StreamResponse:
    return web.Response(status=500, text="stack trace with secrets")


async def bomb(request: web.Request, nth: int) -> web.StreamResponse:
    packed = gzip.compress(b" " * (64 << 20))
    return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def endless(request: web.Request, nth: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    while True:
        await response.write(b": " + b"x" * 65_536 + b"\n\n")


async def refusing(request: web.Request, nth: int) -> web.StreamResponse:
    error = {"jsonrpc": "2.0", "id": nth, "error": {"code": -32602, "message": "Unknown tool: tool"}}
    return web.json_response(error)


@pytest.mark.parametrize(
    ("answer", "words", "is_over"),
    [
        (garbage, "no MCP", False),
        (page, "no MCP", False),
        (moved, "redirects are not followed", False),
        (gone, "HTTP 410", True),
        (busy, "HTTP 429", False),
        (broken, "HTTP 500", False),
        (bomb, "no MCP", False),
        (serving(garbage), "no MCP", False),
        (serving(moved), "redirects are not followed", False),
        (serving(broken), "HTTP 500", False),
        (serving(endless), "larger than 1 MiB", False),
        (serving(refusing), "error -32602", False),
    ],
)
async def test_an_answer_that_is_none_is_told(answer: Answer, words: str, is_over: bool) -> None:
    began = time.monotonic()
    async with Receiver(answer) as receiver:
        outcome = await ask(receiver, 30_000)
        assert not any(request.path == "/canary" for request in receiver.requests)
    assert isinstance(outcome, Rejected if is_over else Retry)
    assert words in outcome.error
    assert "secrets" not in f"{outcome.error} {outcome.answer.excerpt}"
    assert time.monotonic() - began < 25, "it did not wait for what cannot come"


async def test_a_server_that_asks_for_time_gets_it() -> None:
    async with Receiver(busy) as receiver:
        outcome = await ask(receiver)
    assert isinstance(outcome, Retry)
    assert outcome.after is not None
    assert outcome.after.total_seconds() == 90


@pytest.mark.parametrize("opens", [False, True])
async def test_a_server_that_says_nothing_costs_no_more_than_the_time_out(opens: bool) -> None:
    async def silent(request: web.Request, nth: int) -> web.StreamResponse:
        await asyncio.sleep(60)
        raise AssertionError

    async with Receiver(serving(silent) if opens else silent) as receiver:
        outcome = await ask(receiver, 500)
    assert isinstance(outcome, Retry)
    assert outcome.error == "no complete answer within 0.5 s"
    assert outcome.answer.duration_ms < 10_000


async def test_a_result_counts_when_the_session_cannot_be_closed() -> None:
    async def answer(request: web.Request, nth: int) -> web.StreamResponse:
        result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}]}
        return web.json_response({"jsonrpc": "2.0", "id": nth, "result": result})

    async def closing(request: web.Request, nth: int) -> web.StreamResponse:
        if request.method == "DELETE":
            await asyncio.sleep(60)
        return await serving(answer)(request, nth)

    async with Receiver(closing) as receiver:
        outcome = await ask(receiver, 500)
    assert isinstance(outcome, Delivered)
    assert outcome.answer.excerpt == "done"


async def test_nothing_is_dialled_that_a_webhook_may_not_dial() -> None:
    async with Receiver() as receiver:
        outcome = await ask(receiver, targets=Targets.of(()))
        named = prompt(f"http://localhost:{receiver.port}/mcp#tool")
        async with WebhookRunner(8, Targets.of(())) as webhooks:
            by_name = await McpAdapter(webhooks).send(named)
    assert isinstance(outcome, Rejected)
    assert "the target is refused" in outcome.error
    # Its records may be mended.
    assert isinstance(by_name, Retry)
    assert "the target is refused" in by_name.error
    assert receiver.requests == []


async def test_a_server_that_is_away_is_told_as_such() -> None:
    async with Receiver() as receiver:
        pass
    outcome = await ask(receiver)
    assert isinstance(outcome, Retry)
    assert outcome.error == "cannot connect: Connection refused"
