"""Agents, through the doors and with real servers: each adapter brings its prompt, and says how it went."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import nats
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.ports import free_port
from tests.support import example_plugin
from tests.support.installation import Installation
from tests.support.processes import ROOT
from tests.support.receiver import Receiver
from tests.support.timers import Sql, insert_timers
from tests.support.waiting import eventually

TEMPLATE = {"order": "{{timer.metadata.orderId}}", "text": "{{timer.name}} is due at {{firing.dueAt}}"}
QUICKLY = {"backoffInitialMs": 10, "backoffMaxMs": 20}


class McpServer:
    """A FastMCP server in another process, and what its tools were called with."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.calls: list[dict[str, Any]] = []
        self._arguments = arguments

    async def __aenter__(self) -> "McpServer":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.mcp_server", str(self.port), *self._arguments,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await eventually(self._listens, 60, 0.1)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading

    def target(self, tool: str) -> str:
        return f"http://127.0.0.1:{self.port}/mcp{tool and '#'}{tool}"

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.calls.append(json.loads(line))

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


@pytest.fixture
async def installed(database_url: str, sql: Sql) -> AsyncIterator[Installation]:
    async with Installation(database_url, sql) as made:
        yield made


def prompting(parameters: dict[str, Any], **policy: Any) -> dict[str, Any]:
    action = {"id": "ask", "kind": "agent_prompt", "parameters": parameters}
    return {"actions": [action], "retryPolicy": QUICKLY | {"maxAttempts": 3} | policy}


async def test_a_binding_calls_a_tool_of_an_mcp_server(installed: Installation) -> None:
    async with McpServer() as server:
        binding = {"adapter": "mcp", "target": server.target("remind"), "payloadTemplate": TEMPLATE}
        firing = await installed.run(name="Tee", metadata={"orderId": 7}, agentBinding=binding)
    (delivery,) = firing["deliveries"]
    (attempt,) = delivery["attempts"]
    (call,) = server.calls
    assert (firing["status"], delivery["actionId"], delivery["kind"]) == ("settled", "agent", "agent_prompt")
    assert delivery["lane"] == f"http://127.0.0.1:{server.port}"
    assert (attempt["outcome"], attempt["error"], attempt["excerpt"]) == ("delivered", None, "reminded of 7")
    assert call["arguments"] == {"order": 7, "text": f"Tee is due at {firing['dueAt']}"}
    webhook_id = f"{firing['timerId']}_1_agent"
    assert call["headers"]["webhook-id"] == call["meta"]["minoots/webhookId"] == webhook_id
    assert call["headers"]["x-minoots-tenant-id"] == "demo"


async def test_a_tool_that_reports_an_error_is_called_again(installed: Installation) -> None:
    async with McpServer() as server:
        asking = {"adapter": "mcp", "target": server.target("flaky"), "prompt": "Wake {{timer.name}}"}
        firing = await installed.run(name="Tee", actionBundle=prompting(asking))
        lost = await installed.run(actionBundle=prompting(asking | {"target": server.target("nothing")}, maxAttempts=2))
        unnamed = await installed.run(actionBundle=prompting(asking | {"target": server.target("")}))
    first, second = firing["deliveries"][0]["attempts"]
    assert (first["outcome"], first["error"]) == ("retry", "the tool reports an error")
    assert "the model is away" in first["excerpt"]
    assert (second["outcome"], second["excerpt"]) == ("delivered", "done at last")
    assert [call["arguments"] for call in server.calls] == [{"prompt": "Wake Tee"}] * 2
    assert [attempt["outcome"] for attempt in lost["deliveries"][0]["attempts"]] == ["retry"] * 2
    (attempt,) = unnamed["deliveries"][0]["attempts"]
    assert attempt["outcome"] == "rejected"
    assert "2: write the tool's name after #" in attempt["error"]
    assert "remind, flaky" in attempt["error"]


async def test_the_only_tool_of_a_server_needs_no_name(installed: Installation) -> None:
    async with McpServer("only") as server:
        binding = {"adapter": "mcp", "target": server.target(""), "payloadTemplate": {"order": 1, "text": "x"}}
        firing = await installed.run(agentBinding=binding)
    assert firing["status"] == "settled"
    assert [call["tool"] for call in server.calls] == ["remind"]


async def test_a_run_of_a_langgraph_server_is_waited_for(installed: Installation) -> None:
    async def answer(request: web.Request, nth: int) -> web.Response:
        # As the server does it: a failed run is a 200, and lines are sent while it is waited for.
        return web.Response(text='\n\n{"__error__": {"error": "Bad"}}' if nth == 1 else '\n{"messages": ["ok"]}')

    async with Receiver(answer) as graph:
        asking = {
            "adapter": "langchain",
            "target": graph.url("#planner"),
            "payloadTemplate": {"order": "{{timer.name}}"},
        }
        asking["target"] = f"http://127.0.0.1:{graph.port}#planner"
        firing = await installed.run(name="Tee", actionBundle=prompting(asking))
    first, second = firing["deliveries"][0]["attempts"]
    assert (first["outcome"], first["error"], first["statusCode"]) == ("retry", "the run failed", 200)
    assert second["outcome"] == "delivered"
    assert [request.path for request in graph.requests] == ["/runs/wait"] * 2
    body = json.loads(graph.requests[0].body)
    assert (body["assistant_id"], body["input"]) == ("planner", {"order": "Tee"})
    assert body["metadata"]["webhook_id"] == f"{firing['timerId']}_1_ask"
    assert graph.requests[0].body == graph.requests[1].body


async def test_a_runnable_of_langserve_is_invoked(installed: Installation) -> None:
    async with Receiver() as served:
        binding = {"adapter": "langchain", "target": served.url("/tea/"), "payloadTemplate": "{{timer.name}}"}
        firing = await installed.run(name="Tee", agentBinding=binding)
    (request,) = served.requests
    assert (firing["status"], request.method, request.path) == ("settled", "POST", "/tea/invoke")
    assert json.loads(request.body) == {"input": "Tee"}


async def test_a_prompt_is_a_signed_cloud_event(installed: Installation) -> None:
    status, secret = await installed.call("POST", "/signing-secrets", {"requestedBy": "ann"})
    assert status == 201, secret
    async with Receiver() as agent:
        asking = {"payloadTemplate": {"say": "{{timer.name}}", "to": "{{{{me}}"}, "headers": {"X-Key": "of the agent"}}
        binding = {"adapter": "custom", "target": agent.url("/agent")}
        firing = await installed.run(name="Tee", actionBundle=prompting(asking), agentBinding=binding)
        await installed.run(
            name="Tee", agentBinding=binding | {"adapter": "autogen", "payloadTemplate": asking["payloadTemplate"]}
        )
    (delivery,) = firing["deliveries"]
    request, other = agent.requests
    assert json.loads(other.body)["data"] == {"say": "Tee", "to": "{{me}}"}
    Webhook(secret["secret"]).verify(other.body.decode(), other.headers)
    event = json.loads(request.body)
    assert (delivery["actionId"], delivery["lane"]) == ("ask", f"http://127.0.0.1:{agent.port}")
    Webhook(secret["secret"]).verify(request.body.decode(), request.headers)
    assert request.headers["x-key"] == "of the agent"
    assert event["data"] == {"say": "Tee", "to": "{{me}}"}
    assert (event["type"], event["subject"], event["source"]) == (
        "minoots.agent.prompt", firing["timerId"], "/minoots/tenants/demo",
    )  # fmt: skip
    assert event["id"] == request.headers["webhook-id"] == f"{firing['timerId']}_1_ask"


async def test_without_a_template_the_timer_and_the_event_are_told(installed: Installation) -> None:
    async with Receiver() as agent:
        firing = await installed.run(
            metadata={"a": [1, 2.5]}, agentBinding={"adapter": "custom", "target": agent.url("/agent")}
        )
    data = json.loads(agent.requests[0].body)["data"]
    assert data["timer"]["metadata"] == {"a": [1, 2.5]}
    assert data["event"]["type"] == "minoots.timer.fired"
    assert data["event"]["data"]["firing"]["dueAt"] == firing["dueAt"]


async def test_an_agent_learns_how_to_acknowledge(installed: Installation) -> None:
    async with Receiver() as agent:
        binding = {
            "adapter": "custom", "target": agent.url("/agent"), "acknowledgementTimeoutMs": 60_000,
            "payloadTemplate": {"url": "{{ack.url}}", "token": "{{ack.token}}"},
        }  # fmt: skip
        status, timer = await installed.create(agentBinding=binding)
        assert status == 201, timer

        async def arrived() -> bool:
            return bool(agent.requests)

        await eventually(arrived, 60)
        event = json.loads(agent.requests[0].body)
        assert event["ackurl"] == event["data"]["url"]
        assert event["ackurl"].endswith(f"/timers/{timer['id']}/firings/1/deliveries/agent/ack")
        assert event["acktoken"] == event["data"]["token"] == agent.requests[0].headers["x-minoots-ack-token"]
        async with aiohttp.ClientSession() as plain:
            said = {"outcome": "done", "result": {"cups": 2}}
            async with plain.post(
                event["ackurl"], json=said, headers={"x-minoots-ack-token": event["acktoken"]}
            ) as ack:
                assert ack.status == 200, await ack.text()
        firing = await installed.ended(timer["id"])
    (delivery,) = firing["deliveries"]
    assert (firing["status"], delivery["status"], delivery["ack"]["result"]) == ("settled", "confirmed", {"cups": 2})


async def test_a_recurring_timer_asks_its_agent_in_the_lane_of_the_binding(installed: Installation) -> None:
    async with Receiver() as agent:
        status, timer = await installed.create(
            duration=None,
            schedule={"specs": [{"every": "1s"}], "maxOccurrences": 1},
            actionBundle=prompting({"prompt": "{{firing.occurrence}}"}),
            agentBinding={"adapter": "custom", "target": agent.url("/agent?key=1")},
        )
        assert status == 201, timer
        firing = await installed.ended(timer["id"])
    (delivery,) = firing["deliveries"]
    assert (delivery["actionId"], delivery["lane"]) == ("ask", f"http://127.0.0.1:{agent.port}")
    assert [json.loads(request.body)["data"] for request in agent.requests] == [{"prompt": 1}]


async def test_what_fails_escalates_to_the_agent_of_the_binding(installed: Installation) -> None:
    async def answer(request: web.Request, nth: int) -> web.Response:
        return web.Response(status=500 if request.path == "/hook" else 200)

    async with Receiver(answer) as agent:
        prompt = {"kind": "agent_prompt", "parameters": {"prompt": "{{timer.name}} is in trouble"}}
        hook = {"id": "hook", "kind": "webhook", "parameters": {"url": agent.url()}}
        firing = await installed.run(
            name="Tee",
            actionBundle={
                "actions": [hook | {"escalation": {"afterAttempts": 1, "escalatesTo": prompt}}],
                "retryPolicy": QUICKLY | {"maxAttempts": 2},
            },
            agentBinding={"adapter": "custom", "target": agent.url("/agent")},
        )
    prompted = [json.loads(request.body) for request in agent.requests if request.path == "/agent"]
    deliveries = {delivery["actionId"]: delivery for delivery in firing["deliveries"]}
    assert {name: delivery["status"] for name, delivery in deliveries.items()} == {
        "hook": "dead", "hook~1": "delivered", "agent": "delivered",
    }  # fmt: skip
    assert deliveries["hook~1"]["lane"] == deliveries["agent"]["lane"] == f"http://127.0.0.1:{agent.port}"
    assert {"prompt": "Tee is in trouble"} in [event["data"] for event in prompted]


LET_IN: list[tuple[dict[str, Any], str]] = [
    (prompting({"prompt": "x"}), "neither the action nor an agentBinding"),
    (prompting({"adapter": "acme.none", "target": "x"}), "no adapter acme.none"),
    ({"actions": [{"id": "ask", "kind": "acme.none", "parameters": {}}]}, "acme.none"),
]


async def test_what_only_plain_sql_lets_in_ends_with_a_reason(installed: Installation, sql: Sql) -> None:
    for actions, words in LET_IN:
        (timer,) = await insert_timers(sql, 1, actions=actions)
        firing = await installed.ended(str(timer))
        (attempt,) = firing["deliveries"][0]["attempts"]
        assert (firing["status"], attempt["outcome"]) == ("failed", "rejected")
        assert words in attempt["error"]


async def test_a_prompt_that_grows_too_large_is_rejected(installed: Installation) -> None:
    async with Receiver() as agent:
        binding = {"adapter": "custom", "target": agent.url(), "payloadTemplate": ["{{timer.metadata}}"] * 3}
        firing = await installed.run(metadata={"a": "x" * 30_000}, agentBinding=binding)
    (attempt,) = firing["deliveries"][0]["attempts"]
    assert (attempt["outcome"], agent.requests) == ("rejected", [])
    assert "64 KiB" in attempt["error"]


async def test_an_agent_on_the_bus_gets_its_prompt_from_the_stream(
    database_url: str, sql: Sql, nats: EmbeddedNats
) -> None:
    async with Installation(database_url, sql, {"NATS_URL": nats.url}) as installed:
        bound = {"adapter": "custom", "target": "nats:planner.jobs", "payloadTemplate": "{{timer.name}}"}
        firing = await installed.run(name="Tee", agentBinding=bound)
        (delivery,) = firing["deliveries"]
        assert (firing["status"], delivery["lane"]) == ("settled", "agent:custom")
        message = await last_message(nats.url)
        event = json.loads(message.data)
        assert (message.subject, event["data"]) == ("minoots.agents.demo.planner.jobs", "Tee")
        assert message.headers["webhook-id"] == event["id"] == f"{firing['timerId']}_1_agent"


async def last_message(url: str) -> Any:
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        subscription = await js.subscribe("minoots.agents.demo.planner.jobs", stream="MINOOTS_AGENTS")
        return await subscription.next_msg(timeout=30)
    finally:
        await client.close()


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"agentBinding": {"adapter": "custom", "target": "nats:planner"}}, "/agentBinding/target", "NATS_URL"),
    ({"agentBinding": {"adapter": "custom", "target": "http://10.0.0.1/"}}, "/agentBinding/target", "address"),
    ({"agentBinding": {"adapter": "acme.none", "target": "x"}}, "/agentBinding/adapter", "there is no adapter"),
    (
        {"actionBundle": prompting({"adapter": "mcp", "target": "http://[::ffff:10.0.0.1]/mcp"})},
        "/actionBundle/actions/0/parameters/target",
        "address",
    ),
    ({"actionBundle": prompting({"prompt": "x"})}, "/actionBundle/actions/0/parameters/target", "no agentBinding"),
    ({"actionBundle": prompting({"prompt": "{{x}}"})}, "/actionBundle/actions/0/parameters/prompt", "placeholder"),
]


async def test_what_cannot_be_run_is_refused_at_creation(installed: Installation) -> None:
    for fields, pointer, words in REFUSED:
        status, problem = await installed.create(**fields)
        assert status == 422, problem
        (found,) = problem["errors"]
        assert found["pointer"] == pointer
        assert words in found["detail"]


async def test_without_its_package_the_adapter_mcp_is_refused(database_url: str, sql: Sql, tmp_path: Path) -> None:
    # As if it were not installed: nothing finds it.
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.machinery as m\n"
        "find = m.PathFinder.find_spec.__func__\n"
        "m.PathFinder.find_spec = classmethod(lambda cls, name, *a: None if name == 'mcp' else find(cls, name, *a))\n"
    )
    async with Installation(database_url, sql, {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}) as installed:
        status, problem = await installed.create(agentBinding={"adapter": "mcp", "target": "https://a.example/mcp#x"})
    assert status == 422
    assert "pip install 'minoots[mcp]'" in problem["errors"][0]["detail"]


async def test_what_others_bring_is_run_and_what_of_it_is_broken_is_refused(
    database_url: str, sql: Sql, tmp_path: Path
) -> None:
    place = example_plugin.install(tmp_path / "site")
    kept = tmp_path / "prompts"
    async with (
        Installation(database_url, sql, {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}) as installed,
        Receiver() as wall,
    ):
        bound = {"adapter": "acme.file", "target": str(kept), "payloadTemplate": {"of": "{{timer.name}}"}}
        firing = await installed.run(name="Tee", agentBinding=bound)
        note = {"id": "note", "kind": "acme.note", "parameters": {"to": wall.url(), "text": "hello"}}
        noted = await installed.run(actionBundle={"actions": [note]})
        refused = [
            await installed.create(agentBinding=bound | {"target": "prompts"}),
            await installed.create(agentBinding=bound | {"adapter": "acme.broken"}),
            await installed.create(actionBundle={"actions": [note | {"parameters": {}}]}),
            await installed.create(actionBundle={"actions": [note | {"kind": "acme.missing"}]}),
            await installed.create(actionBundle={"actions": [note | {"kind": "acme.other"}]}),
        ]
    assert json.loads(kept.read_text()) == {"webhookId": f"{firing['timerId']}_1_agent", "payload": {"of": "Tee"}}
    assert firing["deliveries"][0]["attempts"][0]["excerpt"] == "written"
    assert (noted["status"], noted["deliveries"][0]["kind"]) == ("settled", "acme.note")
    assert json.loads(wall.requests[0].body) == {"note": "hello"}
    assert [(status, problem["errors"][0]["pointer"]) for status, problem in refused] == [
        (422, "/agentBinding/target"),
        (422, "/agentBinding/adapter"),
        (422, "/actionBundle/actions/0/parameters/text"),
        (422, "/actionBundle/actions/0/kind"),
        (422, "/actionBundle/actions/0/kind"),
    ]
    assert "whole path" in refused[0][1]["errors"][0]["detail"]
    assert "cannot be loaded" in refused[1][1]["errors"][0]["detail"]
    # Both processes say it; what they say may share a line.
    said = "\n".join(installed.process.lines)
    assert all(said.count(f'"name": "{name}"') == 2 for name in ("acme.broken", "acme.missing", "nodot")), said


async def test_events_that_come_as_lines_wake_agents_too(database_url: str) -> None:
    async with Receiver() as agent:
        timer = {
            "id": "t-1", "tenantId": "demo", "name": "Tee", "occurrence": 1,
            "agentBinding": {"adapter": "custom", "target": agent.url("/agent")},
            "actionBundle": {"actions": [
                {"id": "ask", "kind": "agent_prompt", "parameters": {"prompt": "Wake {{timer.name}}"}},
            ]},
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "minoots", "orchestrate", "--stdin", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MINOOTS_DATABASE_URL": database_url},
        )  # fmt: skip
        line = json.dumps({"type": "minoots.timer.fired", "data": {"timer": timer, "firing": {"occurrence": 1}}})
        said, _ = await process.communicate(f"{line}\n".encode())
    assert json.loads(said)["outcome"] == "delivered"
    (request,) = agent.requests
    assert json.loads(request.body)["data"] == {"prompt": "Wake Tee"}
