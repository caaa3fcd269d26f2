"""`minoots orchestrate --stdin`: events as JSON lines, without database or NATS."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.support.processes import ROOT
from tests.support.receiver import Receiver

TIMER = "018f2f8e-7d7a-7c3e-8a55-0d3c1f6a2b11"


async def orchestrate(*lines: str, **settings: str) -> tuple[int, list[dict[str, Any]], str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MINOOTS_", "NATS_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "minoots", "orchestrate", "--stdin",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**environ, "PYTHONPATH": str(ROOT), **settings},
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate("\n".join(lines).encode())
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.decode().splitlines()], err.decode()


def timer(*urls: str, **more: Any) -> dict[str, Any]:
    actions = [{"id": f"a{n}", "kind": "webhook", "parameters": {"url": url}} for n, url in enumerate(urls, 1)]
    return {"id": TIMER, "tenantId": "demo", "name": "tea", "actionBundle": {"actions": actions}, **more}


async def test_our_envelope_runs_its_actions_and_says_how_they_ended() -> None:
    async with Receiver() as receiver:
        event = {
            "specversion": "1.0",
            "id": "e1",
            "type": "minoots.timer.fired",
            "source": "/minoots/tenants/demo",
            "subject": TIMER,
            "time": "2030-01-01T00:00:00Z",
            "traceparent": None,
            "data": {"timer": timer(receiver.url("/one"), receiver.url("/two")), "firing": {"occurrence": 3}},
        }
        code, results, err = await orchestrate(json.dumps(event))
    assert (code, err) == (0, "")
    assert [
        (r["timerId"], r["occurrence"], r["actionId"], r["outcome"], r["statusCode"], r["error"]) for r in results
    ] == [
        (TIMER, 3, "a1", "delivered", 200, None),
        (TIMER, 3, "a2", "delivered", 200, None),
    ]
    assert all(r["durationMs"] >= 0 for r in results)
    first = receiver.requests[0]
    assert first.headers["webhook-id"] == f"{TIMER}_3_a1"
    assert (first.headers["x-minoots-timer-id"], first.headers["x-minoots-tenant-id"]) == (TIMER, "demo")
    body = json.loads(first.body)
    assert body["timer"]["name"] == "tea"
    assert body["event"]["type"] == "minoots.timer.fired"
    assert body["event"]["data"] == {"firing": {"occurrence": 3}}


async def test_the_prototypes_form_runs_too() -> None:
    async with Receiver() as receiver:
        lines = [
            json.dumps({"type": "timer.fired", "data": timer(receiver.url("/flat"))}),
            json.dumps({"type": "fired", "data": {"timer": timer(receiver.url("/nested"))}}),
        ]
        code, results, _ = await orchestrate(*lines)
    assert code == 0
    assert [r["outcome"] for r in results] == ["delivered", "delivered"]
    assert sorted(r.path for r in receiver.requests) == ["/flat", "/nested"]


async def test_other_events_do_nothing_and_what_is_no_event_is_told_of() -> None:
    async with Receiver() as receiver:
        scheduled = json.dumps({"type": "minoots.timer.scheduled", "data": {"timer": timer(receiver.url())}})
        fired = json.dumps({"type": "minoots.timer.fired", "data": {"timer": timer(receiver.url())}})
        code, results, err = await orchestrate(scheduled, "{broken", "[]", "", fired)
        assert [r["outcome"] for r in results] == ["delivered"]
        assert len(receiver.requests) == 1
    assert code == 4
    assert [line.split(": ")[1] for line in err.splitlines()] == ["line 2", "line 3"]


async def test_each_action_gets_one_attempt_and_a_failure_is_a_result() -> None:
    async def fail(_request: Any, _times: int) -> Any:
        from aiohttp import web

        return web.Response(status=503, text="later")

    async with Receiver(answer=fail) as receiver:
        asked = timer(receiver.url())
        asked["actionBundle"]["actions"].append({"id": "b", "kind": "command", "parameters": {}})
        code, results, _ = await orchestrate(json.dumps({"type": "minoots.timer.fired", "data": {"timer": asked}}))
    assert code == 0
    assert [(r["actionId"], r["outcome"], r["statusCode"]) for r in results] == [
        ("a1", "retry", 503),
        ("b", "rejected", None),
    ]
    assert results[0]["error"] == "HTTP 503"
    assert "command" in results[1]["error"]
    assert len(receiver.requests) == 1


async def test_commands_and_workflow_events_are_run_as_the_settings_say(tmp_path: Path) -> None:
    commands = tmp_path / "commands.json"
    says = {"argv": ["sh", "-c", "cat > told; exit 3"], "cwd": str(tmp_path), "rejectedExitCodes": [3]}
    commands.write_text(json.dumps({"says": says}))
    asked = timer()
    asked["actionBundle"]["actions"] = [
        {"id": "a", "kind": "command", "parameters": {"name": "says"}},
        {"id": "b", "kind": "command", "parameters": {"name": "sings"}},
        {"id": "c", "kind": "workflow_event", "parameters": {"name": "tea.ready"}},
    ]
    line = json.dumps({"type": "minoots.timer.fired", "time": "2030-01-01T00:00:00Z", "data": {"timer": asked}})
    async with Receiver() as receiver:
        endpoint = receiver.url("/events")
        code, results, err = await orchestrate(
            line, MINOOTS_COMMANDS_PATH=str(commands), MINOOTS_WORKFLOW_ENDPOINT=endpoint
        )
    assert (code, err) == (0, "")
    assert [(r["actionId"], r["outcome"], r["error"]) for r in results] == [
        ("a", "rejected", "exit code 3"),
        ("b", "rejected", "there is no command 'sings' that this tenant may run"),
        ("c", "delivered", None),
    ]
    assert json.loads((tmp_path / "told").read_text())["timer"]["name"] == "tea"
    assert json.loads(receiver.requests[0].body)["type"] == "tea.ready"


async def test_a_result_is_printed_when_it_is_there_and_not_at_the_end() -> None:
    async with Receiver() as receiver:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "minoots", "orchestrate", "--stdin", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"type": "fired", "data": timer(receiver.url())}).encode() + b"\n")
        async with asyncio.timeout(20):
            assert json.loads(await process.stdout.readline())["outcome"] == "delivered"
            process.stdin.close()
            assert await process.wait() == 0
