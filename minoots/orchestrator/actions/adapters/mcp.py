"""The adapter `mcp`: calls a tool of an MCP server over streamable HTTP (Model Context Protocol, 2025-06-18).

The target is the server's URL and, after #, the tool's name; without one the server has to have one tool alone. The
payload is the tool's arguments; what is no object becomes the argument `prompt`. Needs the extra `minoots[mcp]`.
"""

import asyncio
import importlib
import importlib.util
from typing import Any, Final

import msgspec

from minoots.domain.outcome import Outcome
from minoots.orchestrator.actions.adapters import Prompt
from minoots.orchestrator.actions.webhook import WebhookRunner

MISSING: Final = "the adapter mcp needs a package that is not installed here: pip install 'minoots[mcp]'"
_CALLING: Final = "minoots.orchestrator.actions.adapters.tool_call"


def is_installed() -> bool:
    """Whether the extra is there; nothing is imported for it."""
    return importlib.util.find_spec("mcp") is not None


class McpAdapter:
    """Opens a session for each attempt: servers forget sessions, and a firing has one call to make."""

    def __init__(self, webhooks: WebhookRunner) -> None:
        self._webhooks = webhooks

    async def send(self, prompt: Prompt) -> Outcome:
        """One attempt; a result with `isError` is a failure, and its text the excerpt."""
        url, _, tool = prompt.target.partition("#")
        if refused := self._webhooks.refusal_of(url):
            return refused
        # The package takes most of a second to import, and nothing else must wait for it.
        calling = await asyncio.to_thread(importlib.import_module, _CALLING)
        arguments = msgspec.json.decode(prompt.payload)
        call = calling.ToolCall(url, tool, arguments if isinstance(arguments, dict) else {"prompt": arguments})
        outcome: Outcome = await call.run(
            self._webhooks.session, prompt.all_headers(), _meta(prompt), prompt.timeout_ms
        )
        return outcome


def _meta(prompt: Prompt) -> dict[str, Any]:
    """The call's `_meta`: a tool can read it where it sees no HTTP. Keys have a prefix, as the protocol has it."""
    request = prompt.request
    meta: dict[str, Any] = {"minoots/webhookId": request.webhook_id, "minoots/timerId": request.timer_id}
    if request.ack is not None:
        meta["minoots/ack"] = {"url": request.ack.url, "token": request.ack.token}
    return meta
