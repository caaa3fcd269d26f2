"""The agent prompt: what the template makes of the timer goes to an agent, through the adapter that knows its door."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from minoots.domain.agent import AgentParameters, complete
from minoots.domain.outcome import Answer, Outcome, Rejected
from minoots.domain.template import TooLarge, render
from minoots.orchestrator.actions.adapters import Adapter, Prompt
from minoots.orchestrator.actions.request import ActionRequest

# Agents think longer than endpoints do.
DEFAULT_TIMEOUT_MS: Final = 60_000


class _Told(msgspec.Struct):
    """The body of a webhook, whose parts stay the bytes that Postgres wrote."""

    timer: msgspec.Raw
    event: msgspec.Raw


class _Bound(msgspec.Struct, rename="camel"):
    agent_binding: dict[str, Any] | None = None


class AgentRunner:
    """Runs `agent_prompt` actions and agent bindings. `adapters` are those that this installation has, by name."""

    def __init__(self, adapters: Mapping[str, Adapter]) -> None:
        self._adapters = adapters

    async def run(self, request: ActionRequest) -> Outcome:
        """One attempt; what cannot be read or is too large now will be so again, and is rejected."""
        try:
            told = msgspec.json.decode(request.body, type=_Told)
            asked = _read(request.parameters, told)
            payload = _payload(asked.template(), request, told)
        except (msgspec.DecodeError, RecursionError) as wrong:
            return Rejected(f"the action's parameters cannot be read: {wrong}", Answer())
        except TooLarge:
            return Rejected("the payload that the template makes is larger than 64 KiB", Answer())
        if asked.adapter is None or asked.target is None:
            return Rejected("neither the action nor an agentBinding of the timer says where the agent is", Answer())
        adapter = self._adapters.get(asked.adapter)
        if adapter is None:
            return Rejected(f"this orchestrator has no adapter {asked.adapter[:64]}", Answer())
        timeout_ms = asked.timeout_ms or DEFAULT_TIMEOUT_MS
        return await adapter.send(Prompt(request, asked.target, payload, asked.headers or {}, timeout_ms))


def _read(parameters: str, told: _Told) -> AgentParameters:
    own = msgspec.json.decode(parameters, type=dict[str, Any])
    if "target" not in own or "adapter" not in own:
        own = complete(own, msgspec.json.decode(told.timer, type=_Bound).agent_binding)
    return msgspec.convert(own, AgentParameters)


def _payload(template: Any, request: ActionRequest, told: _Told) -> bytes:
    """JSON: what the template makes, else `{timer, event}` as webhooks have it, and `ack` where one is asked for."""
    ack = None if request.ack is None else {"url": request.ack.url, "token": request.ack.token}
    if template is None:
        whole: dict[str, Any] = {"timer": told.timer, "event": told.event}
        return msgspec.json.encode(whole if ack is None else whole | {"ack": ack})
    event = msgspec.json.decode(told.event)
    values = {
        "timer": msgspec.json.decode(told.timer),
        "firing": (event.get("data") or {}).get("firing"),
        "event": event,
        "delivery": {"actionId": request.action_id, "webhookId": request.webhook_id},
        "ack": ack,
    }
    return msgspec.json.encode(render(template, values))
