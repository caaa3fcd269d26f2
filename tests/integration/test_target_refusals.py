"""A literal address that is not open is refused when the timer is made or changed, by REST and by gRPC."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc.aio
import pytest

from minoots.embedded.ports import free_port
from tests.contract.door import Door, Refused
from tests.contract.grpc_door import GrpcDoor
from tests.contract.rest_door import RestDoor
from tests.support.processes import RoleProcess
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually

REFUSED = [
    "http://169.254.169.254/latest/meta-data", "http://192.168.0.1", "http://[fd00:ec2::254]/", "http://0x7f.1/",
    "http://[64:ff9b::7f00:1]:8080/x", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0.0.0.0/",
]  # fmt: skip
OPEN = ["http://127.0.0.1:1234/", "http://[::1]/", "http://10.1.2.3/", "https://example.com/", "http://8.8.8.8/"]


@contextlib.asynccontextmanager
async def served(role: str, database_url: str, **environ: str) -> AsyncIterator[Door]:
    """One door as a process, with 10.0.0.0/8 opened."""
    port = free_port()
    address = {"api": "MINOOTS_API_ADDRESS", "grpc": "KERNEL_GRPC_ADDRESS"}[role]
    settings = {
        "MINOOTS_DATABASE_URL": database_url,
        "MINOOTS_WEBHOOK_ALLOW_CIDRS": "10.0.0.0/8",
        address: f"127.0.0.1:{port}",
    }
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(RoleProcess([role], settings | environ))
        if role == "api":
            http = await stack.enter_async_context(aiohttp.ClientSession())
            await eventually(lambda: _answers(http, port), seconds=30)
            yield RestDoor(f"http://127.0.0.1:{port}", http)
        else:
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            await channel.channel_ready()
            yield GrpcDoor(channel)


async def _answers(http: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with http.get(f"http://127.0.0.1:{port}/healthz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def asked(*urls: str, **fields: Any) -> dict[str, Any]:
    actions = [webhook(url, f"a{nth}") for nth, url in enumerate(urls)]
    return {"requestedBy": "ann", "duration": 3_600_000, "actionBundle": bundle(*actions)} | fields


@pytest.mark.parametrize("role", ["api", "grpc"])
async def test_literals_are_refused_at_creation_with_their_place(role: str, database_url: str, sql: Sql) -> None:
    async with served(role, database_url) as door:
        for url in REFUSED:
            with pytest.raises(Refused) as refused:
                await door.create("demo", asked("https://example.com/", url))
            assert refused.value.kind == "invalid-timer", url
            assert refused.value.pointers == ("/actionBundle/actions/1/parameters/url",)
        assert not await count(sql, "true")
        for url in OPEN:
            assert (await door.create("demo", asked(url)))["status"] == "scheduled"
        binding = {"adapter": "custom", "target": "http://192.168.7.7/agent"}
        with pytest.raises(Refused) as refused:
            await door.create("demo", asked(agentBinding=binding))
        assert refused.value.pointers == ("/agentBinding/target",)


async def test_a_change_is_looked_at_as_well(database_url: str, sql: Sql) -> None:
    async with served("api", database_url) as door:
        timer = await door.create("demo", asked(OPEN[0]))
        changed = {"actionBundle": asked(REFUSED[0])["actionBundle"]}
        for method, path, body in (
            ("PATCH", f"/timers/{timer['id']}", changed),
            ("PUT", "/timers/by-name/tea", asked(REFUSED[1])),
            ("POST", "/timers/batch", {"items": [asked(OPEN[0]), asked(REFUSED[2])]}),
        ):
            with pytest.raises(Refused) as refused:
                await door._call(method, path, "demo", json=body)
            (pointer,) = refused.value.pointers
            assert pointer.endswith("/actions/0/parameters/url")
    assert await count(sql, "true") == 1
