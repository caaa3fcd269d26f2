"""One call of a tool: a session is opened, the tool called, the session closed. Imported when the first one is made."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import httpx
from mcp import ClientSession, McpError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ClientRequest,
    Implementation,
    RequestParams,
    TextContent,
)

import minoots
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.orchestrator.actions.adapters.bridge import READ_BYTES, Bridge, TooMuch
from minoots.orchestrator.actions.answer import excerpt_of, failure_of, printable, read_after
from minoots.orchestrator.actions.connect import CONNECT_S
from minoots.orchestrator.actions.webhook import describe

_SHOWN: Final = 5
# They log what servers answer, and URLs with what is secret in them.
for _name in ("mcp", "httpx"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class NotMcp(Exception):
    """The server said something that the protocol does not know."""


class ManyTools(Exception):
    """The target names no tool, and the server has not just one."""


class ToolCall:
    """A call and what has come of it. `tool` may be empty, where the server has one alone."""

    def __init__(self, url: str, tool: str, arguments: dict[str, Any]) -> None:
        self._url = url
        self._tool = tool
        self._arguments = arguments
        self._result: CallToolResult | None = None

    async def run(
        self, session: aiohttp.ClientSession, headers: Mapping[str, str], meta: dict[str, Any], timeout_ms: int
    ) -> Outcome:
        """The outcome of one attempt within so many milliseconds. A result counts, however the session ended then."""
        began = time.monotonic()
        timeout_s = timeout_ms / 1000
        failed: Exception | None = None
        limit = asyncio.timeout(timeout_s)
        bridge = Bridge(session, min(CONNECT_S, timeout_s), lambda: _end(limit))
        try:
            async with limit:
                await self._exchange(bridge, headers, meta)
        # The package raises what it likes, in groups: what it means is told from what the bridge has seen.
        except Exception as any_of_them:
            failed = any_of_them
        return self._judge(bridge, failed, Answer(round((time.monotonic() - began) * 1000), bridge.status), timeout_s)

    async def _exchange(self, bridge: Bridge, headers: Mapping[str, str], meta: dict[str, Any]) -> None:
        async def hear(message: object) -> None:
            if isinstance(message, Exception):
                bridge.fail(NotMcp())

        async with (
            httpx.AsyncClient(transport=bridge, headers=dict(headers), trust_env=False, max_redirects=0) as client,
            streamable_http_client(self._url, http_client=client) as (reading, writing, _),
            ClientSession(
                reading,
                writing,
                message_handler=hear,
                client_info=Implementation(name="minoots", version=minoots.__version__),
            ) as session,
        ):
            await session.initialize()
            params = CallToolRequestParams(
                name=self._tool or await _only_tool(session),
                arguments=self._arguments,
                _meta=RequestParams.Meta.model_validate(meta),
            )
            # Not `call_tool`, which would list the tools after each call to look at what was answered.
            asked = ClientRequest(CallToolRequest(params=params))
            self._result = await session.send_request(asked, CallToolResult)

    def _judge(self, bridge: Bridge, failed: Exception | None, answer: Answer, timeout_s: float) -> Outcome:
        if self._result is not None:
            said = Answer(answer.duration_ms, answer.status_code, _text_of(self._result))
            return Retry("the tool reports an error", said) if self._result.isError else Delivered(said)
        causes = list(_flat(failed))
        for cause in causes:
            if isinstance(cause, ManyTools):
                return Rejected(str(cause), answer)
        if bridge.error is not None:
            return Retry(_explain(bridge.error), answer)
        if bridge.status is not None and not 200 <= bridge.status < 300:
            return failure_of(bridge.status, answer, read_after(bridge.status, bridge.headers, datetime.now(UTC)))
        for cause in causes:
            if isinstance(cause, McpError):
                text = excerpt_of(cause.error.message.encode(errors="replace"))
                said = Answer(answer.duration_ms, answer.status_code, text)
                return Retry(f"the MCP server answers with error {cause.error.code}", said)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return Retry(f"no complete answer within {timeout_s:g} s", answer)
        return Retry("the answer is no MCP", answer)


async def _only_tool(session: ClientSession) -> str:
    tools = [tool.name for tool in (await session.list_tools()).tools]
    if len(tools) == 1:
        return tools[0]
    shown = printable(", ".join(tools[:_SHOWN]).encode(errors="replace"))
    raise ManyTools(
        f"the target names no tool, and the server has {len(tools)}: write the tool's name after # in the target"
        + (f" ({shown[:200]})" if tools else "")
    )


def _end(limit: asyncio.Timeout) -> None:
    """Nothing more will come: do not wait for it."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


def _flat(failed: BaseException | None) -> Iterator[BaseException]:
    if isinstance(failed, BaseExceptionGroup):
        for inner in failed.exceptions:
            yield from _flat(inner)
    elif failed is not None:
        yield failed


def _explain(error: Exception) -> str:
    if isinstance(error, TooMuch):
        return f"the answer is larger than {READ_BYTES >> 20} MiB"
    return "the answer is no MCP" if isinstance(error, NotMcp) else describe(error)


def _text_of(result: CallToolResult) -> str | None:
    """What the tool said, as text: other content is told by its kind."""
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    return excerpt_of("\n".join(parts).encode(errors="replace"))
