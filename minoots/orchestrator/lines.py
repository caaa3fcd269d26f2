"""Running the actions of events that come as JSON lines: ours, or the prototype's `{type, data}`. One attempt each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from minoots.domain.action import AgentBinding
from minoots.domain.event import TYPE_PREFIX
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.errors import MalformedRequest
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.request import ActionRequest

LINES_AT_ONCE = 32
FIRED = {"timer.fired", "timer_fired", "timerfired", "fired"}


class LineResult(msgspec.Struct, rename="camel"):
    """How one action ended, as it is printed."""

    timer_id: str
    occurrence: int
    action_id: str
    outcome: str
    status_code: int | None
    duration_ms: int
    error: str | None


def read_line(line: str) -> list[ActionRequest]:
    """The actions of one event: none unless it is `timer.fired`. MalformedRequest when the line is no event."""
    try:
        event = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as broken:
        raise MalformedRequest(f"no valid JSON: {broken}") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str) or not isinstance(event.get("data"), dict):
        raise MalformedRequest("an event is an object with type and data")
    if event["type"].lower().removeprefix(TYPE_PREFIX) not in FIRED:
        return []
    data = event["data"]
    timer = data.get("timer") if isinstance(data.get("timer"), dict) else data
    firing = data.get("firing") if isinstance(data.get("firing"), dict) else {}
    occurrence = firing.get("occurrence", timer.get("occurrence") or 1)
    if not isinstance(timer.get("id"), str) or not isinstance(occurrence, int):
        raise MalformedRequest("the event names no timer: data.timer.id is missing")
    tenant = str(timer.get("tenantId") or "")
    shown = {name: value for name, value in event.items() if name != "data"} | {"data": {"firing": firing}}
    body = msgspec.json.encode({"timer": timer, "event": shown}).decode()
    trace = event.get("traceparent")
    return [
        ActionRequest(tenant, timer["id"], occurrence, action_id, kind, parameters, body, trace)
        for action_id, kind, parameters in _actions(timer)
    ]


def _actions(timer: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Id, kind and parameters (JSON text) in the bundle's order; the agent of a binding comes last."""
    bundle = timer.get("actionBundle") or {}
    listed = bundle.get("actions", []) if isinstance(bundle, dict) else bundle
    if not isinstance(listed, list) or not all(isinstance(a, dict) for a in listed):
        raise MalformedRequest("data.timer.actionBundle.actions is no list of actions")
    actions = [
        (str(a.get("id") or f"action-{n}"), str(a.get("kind") or a.get("type") or ""), _json(a.get("parameters") or {}))
        for n, a in enumerate(listed, 1)
    ]
    binding = timer.get("agentBinding")
    if binding and not any(kind == "agent_prompt" for _, kind, _ in actions):
        msgspec.convert(binding, AgentBinding)
        actions.append(("agent", "agent_prompt", _json(binding)))
    return actions


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


async def run_lines(
    lines: AsyncIterator[str],
    runners: Mapping[str, ActionRunner],
    say: Callable[[LineResult], None],
    complain: Callable[[int, str], None],
) -> int:
    """Run what comes until it ends. `complain` gets the line's number and what is wrong; returns how often it did."""
    room = asyncio.Semaphore(LINES_AT_ONCE)
    wrong = 0

    async def act(requests: list[ActionRequest]) -> None:
        try:
            for request in requests:
                say(_result(request, await _run(request, runners)))
        finally:
            room.release()

    async with asyncio.TaskGroup() as group:
        number = 0
        async for line in lines:
            number += 1
            if not line.strip():
                continue
            try:
                requests = read_line(line)
            except (MalformedRequest, msgspec.ValidationError) as refused:
                wrong += 1
                complain(number, str(refused))
                continue
            await room.acquire()
            group.create_task(act(requests))
    return wrong


async def _run(request: ActionRequest, runners: Mapping[str, ActionRunner]) -> Outcome:
    runner = runners.get(request.kind)
    if runner is None:
        return Rejected(f"this version cannot run actions of the kind {request.kind!r}", Answer())
    return await runner.run(request)


def _result(request: ActionRequest, outcome: Outcome) -> LineResult:
    match outcome:
        case Delivered():
            word, error = "delivered", None
        case Retry(error=said):
            word, error = "retry", said
        case Rejected(error=said):
            word, error = "rejected", said
    answer = outcome.answer
    return LineResult(
        request.timer_id, request.occurrence, request.action_id, word, answer.status_code, answer.duration_ms, error
    )
