"""REST, kernel and orchestrator in one process of their own, and timers that are made at its door."""

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import aiohttp

from minoots.embedded.ports import free_port
from tests.support.processes import RoleProcess
from tests.support.timers import Sql, switch_events_off
from tests.support.waiting import eventually

HEADERS = {"X-API-Key": "mnt_example", "x-tenant-id": "demo"}


class Installation:
    """Works from Postgres alone, so that what fires is delivered at once; `environ` adds to its settings."""

    def __init__(self, database_url: str, sql: Sql, environ: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._sql = sql
        given = {
            "MINOOTS_DATABASE_URL": database_url, "MINOOTS_API_ADDRESS": f"127.0.0.1:{self.port}",
            "MINOOTS_PUBLIC_URL": self.url, "NATS_URL": "",
        }  # fmt: skip
        self.process = RoleProcess(["api", "kernel", "orchestrator"], given | dict(environ or {}))
        self.http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await switch_events_off(self._sql)
        await self.process.start()
        assert self.process.logged("started"), self.process.lines
        self.http = aiohttp.ClientSession(headers=HEADERS)
        await eventually(self._is_ready, 30)
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self.http is not None:
            await self.http.close()
        await self.process.kill()

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        assert self.http is not None
        async with self.http.request(method, f"{self.url}{path}", json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    async def create(self, **fields: Any) -> tuple[int, Any]:
        """POST /timers of the tenant demo, due in a moment."""
        return await self.call("POST", "/timers", {"requestedBy": "ann", "duration": 50} | fields)

    async def run(self, **fields: Any) -> dict[str, Any]:
        """A timer that has ended, and its one firing."""
        status, timer = await self.create(**fields)
        assert status == 201, timer
        return await self.ended(timer["id"])

    async def ended(self, timer_id: str) -> dict[str, Any]:
        """The timer's firing, once it has settled or failed."""

        async def firing() -> dict[str, Any] | None:
            status, found = await self.call("GET", f"/timers/{timer_id}/firings/1")
            return found if status == 200 and found["status"] in ("settled", "failed") else None

        return await eventually(firing, 60)

    async def _is_ready(self) -> bool:
        try:
            return (await self.call("GET", "/readyz"))[0] == 200
        except (aiohttp.ClientError, OSError):
            await asyncio.sleep(0.05)
            return False
