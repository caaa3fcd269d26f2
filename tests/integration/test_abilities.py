"""What an installation cannot run is refused when the timer is made, at the doors as they are really set up."""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import grpc.aio
import pytest

from minoots.embedded.ports import free_port
from tests.contract.door import Door, Refused
from tests.contract.grpc_door import GrpcDoor
from tests.contract.rest_door import RestDoor
from tests.support.processes import RoleProcess
from tests.support.timers import bundle

COMMANDS = {
    "backup": {
        "argv": ["/usr/bin/backup", "{order}", "{count}"],
        "parameters": {"order": {"type": "string", "pattern": "[A-Z]+"}, "count": {"type": "integer", "default": 1}},
    },
    "private": {"argv": ["true"], "tenants": ["acme"]},
}
ACTION = "/actionBundle/actions/0"


@contextlib.asynccontextmanager
async def serving(url: str, **environ: str) -> AsyncIterator[tuple[RestDoor, GrpcDoor]]:
    """Both doors, each a process of its own."""
    rest, rpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    given = {"MINOOTS_DATABASE_URL": url, "MINOOTS_API_ADDRESS": rest, "KERNEL_GRPC_ADDRESS": rpc, "NATS_URL": ""}
    async with (
        RoleProcess(["api"], given | environ),
        RoleProcess(["grpc"], given | environ),
        aiohttp.ClientSession() as http,
        grpc.aio.insecure_channel(rpc) as channel,
    ):
        await channel.channel_ready()
        yield RestDoor(f"http://{rest}", http), GrpcDoor(channel)


def acting(kind: str, parameters: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    action = {"id": "a", "kind": kind, "parameters": dict(parameters)} | fields
    return {"requestedBy": "ann", "duration": 3_600_000, "actionBundle": bundle(action)}


def command(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


async def refusal(door: Door, asked: Mapping[str, Any]) -> Refused:
    with pytest.raises(Refused) as refused:
        await door.create("demo", asked)
    return refused.value


async def test_without_commands_and_nats_both_doors_say_what_is_missing(database_url: str) -> None:
    escalates = {"afterAttempts": 1, "escalatesTo": {"kind": "command", "parameters": {"name": "page"}}}
    async with serving(database_url) as doors:
        for door in doors:
            found = await refusal(door, acting("command", command("backup")))
            assert found.pointers == (f"{ACTION}/kind",), door.name
            assert "MINOOTS_COMMANDS_PATH" in str(found)
            found = await refusal(door, acting("workflow_event", {"name": "order.overdue"}))
            assert found.pointers == (f"{ACTION}/parameters/endpoint",)
            assert "NATS_URL" in str(found)
            found = await refusal(door, acting("acme.sms", {}))
            assert found.pointers == (f"{ACTION}/kind",)
            assert "acme.sms" in str(found)
            found = await refusal(door, acting("webhook", {"url": "https://example.com"}, escalation=escalates))
            assert found.pointers == (f"{ACTION}/escalation/escalatesTo/kind",)
            made = await door.create(
                "demo", acting("workflow_event", {"name": "order.overdue", "endpoint": "https://example.com/events"})
            )
            assert made["status"] == "scheduled"


@pytest.fixture
def commands(tmp_path: Path) -> str:
    path = tmp_path / "commands.json"
    path.write_text(json.dumps(COMMANDS))
    return str(path)


async def test_an_action_is_checked_against_the_commands_that_there_are(database_url: str, commands: str) -> None:
    good = command("backup", order="ABC")
    wrong = [
        (command("restore"), "/name"),
        (command("private"), "/name"),
        ({}, "/name"),
        ({"name": "backup", "shell": True}, "/shell"),
        (command("backup"), "/arguments/order"),
        (command("backup", order="abc"), "/arguments/order"),
        (command("backup", order="ABC", count="1"), "/arguments/count"),
        (command("backup", order="ABC", more=1), "/arguments/more"),
    ]
    async with serving(database_url, MINOOTS_COMMANDS_PATH=commands) as doors:
        for door in doors:
            for parameters, place in wrong:
                found = await refusal(door, acting("command", parameters))
                assert found.pointers == (f"{ACTION}/parameters{place}",), (door.name, parameters)
            made = await door.create("demo", acting("command", command("backup", order="ABC", count=3)))
            assert made["actionBundle"]["actions"][0]["parameters"]["name"] == "backup"
            assert (await door.create("acme", acting("command", {"name": "private"})))["status"] == "scheduled"
            await put_and_update(door, good)
        await batch(doors[0], good)


async def put_and_update(door: Door, good: dict[str, Any]) -> None:
    """Every way in is the same way in."""
    bad = acting("command", command("restore"))
    with pytest.raises(Refused) as refused:
        await door.put("demo", f"by-{door.name}", bad)
    assert refused.value.pointers == (f"{ACTION}/parameters/name",)
    made, is_new = await door.put("demo", f"by-{door.name}", acting("command", good))
    assert is_new
    with pytest.raises(Refused) as refused:
        await door.update("demo", made["id"], {"actionBundle": bad["actionBundle"]})
    assert refused.value.pointers == (f"{ACTION}/parameters/name",)
    assert (await door.get("demo", made["id"]))["version"] == made["version"]


async def batch(door: RestDoor, good: dict[str, Any]) -> None:
    items = [acting("command", good), acting("command", good), acting("command", command("backup", order="abc"))]
    with pytest.raises(Refused) as refused:
        await door._call("POST", "/timers/batch", "demo", json={"items": items})
    assert refused.value.pointers == (f"/items/2{ACTION}/parameters/arguments/order",)
    made = await door._call("POST", "/timers/batch", "demo", json={"items": items[:2]})
    assert len(made["items"]) == 2


@pytest.mark.parametrize("role", ["api", "grpc", "orchestrator"])
async def test_a_file_that_cannot_be_used_ends_the_start_with_its_place(
    role: str, database_url: str, tmp_path: Path
) -> None:
    path = tmp_path / "commands.json"
    path.write_text(json.dumps({"backup": {"argv": ["/usr/bin/backup", "{order}"]}}))
    environ = {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_COMMANDS_PATH": str(path), "NATS_URL": ""}
    async with RoleProcess([role], environ) as process:
        assert await process.wait() == 2
        said = "\n".join(process.lines)
        assert f"MINOOTS_COMMANDS_PATH={path}: at /backup/argv/1: there is no parameter order" in said
