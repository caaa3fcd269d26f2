"""The REST door, over HTTP."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from tests.contract.door import KEY, Door, Refused, Timer


class RestDoor(Door):
    name = "rest"
    ninety_seconds = ("90s", "1m30s", "1.5m", "PT90S", "PT1M30S", "pt1.5m", "90000ms", 90_000)

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def _call(self, method: str, path: str, tenant: str, key: str | None = None, **given: Any) -> Any:
        return (await self._ask(method, path, tenant, {"Idempotency-Key": key}, **given))[1]

    async def _ask(
        self, method: str, path: str, tenant: str, headers: Mapping[str, str | None], **given: Any
    ) -> tuple[int, Any]:
        sent = {"X-API-Key": KEY, "x-tenant-id": tenant} | {name: v for name, v in headers.items() if v is not None}
        url = URL(self._url + path, encoded=True)
        async with self._http.request(method, url, headers=sent, **given) as answer:
            body = await answer.json(content_type=None)
            if answer.status >= 400:
                pointers = tuple(error["pointer"] for error in body.get("errors") or ())
                raise Refused(body["type"].removeprefix("urn:minoots:problem:"), body["detail"], pointers)
            if "version" in body:
                assert answer.headers["ETag"] == f'"{body["version"]}"'
            return answer.status, body

    async def create(self, tenant: str, fields: Mapping[str, Any], key: str | None = None) -> Timer:
        return await self._call("POST", "/timers", tenant, key, json=dict(fields))

    async def get(self, tenant: str, timer_id: str) -> Timer:
        return await self._call("GET", f"/timers/{timer_id}", tenant)

    async def list_page(
        self, tenant: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[Timer], str | None]:
        query = [("limit", str(limit)), *(("status", status) for status in wanted.get("statuses", ()))]
        query += [("label", f"{key}:{value}") for key, value in wanted.get("labels", {}).items()]
        query += [("name", wanted["name"])] if "name" in wanted else []
        query += [(name, wanted[name].isoformat()) for name in ("dueBefore", "dueAfter") if name in wanted]
        query += [("cursor", cursor)] if cursor else []
        page = await self._call("GET", "/timers", tenant, params=query)
        return page["items"], page["nextCursor"]

    async def cancel(self, tenant: str, timer_id: str, requested_by: str, reason: str | None = None) -> Timer:
        asked = {"requestedBy": requested_by, "reason": reason}
        return await self._call("POST", f"/timers/{timer_id}/cancel", tenant, json=asked)

    async def pause(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer:
        return await self._step("pause", tenant, timer_id, {"requestedBy": requested_by})

    async def resume(
        self, tenant: str, timer_id: str, catch_up: bool | None = None, requested_by: str | None = None
    ) -> Timer:
        return await self._step("resume", tenant, timer_id, {"requestedBy": requested_by, "catchUp": catch_up})

    async def reschedule(self, tenant: str, timer_id: str, fields: Mapping[str, Any]) -> Timer:
        return await self._call("POST", f"/timers/{timer_id}/reschedule", tenant, json=dict(fields))

    async def fire(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer:
        return await self._step("fire", tenant, timer_id, {"requestedBy": requested_by})

    async def _step(self, step: str, tenant: str, timer_id: str, asked: Mapping[str, Any]) -> Timer:
        """What says nothing is not sent, and a body that says nothing is none."""
        said = {name: value for name, value in asked.items() if value is not None}
        given = {"json": said} if said else {}
        return await self._call("POST", f"/timers/{timer_id}/{step}", tenant, **given)

    async def update(
        self, tenant: str, timer_id: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> Timer:
        return (await self._ask("PATCH", f"/timers/{timer_id}", tenant, _matching(if_version), json=dict(fields)))[1]

    async def put(
        self, tenant: str, name: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> tuple[Timer, bool]:
        path = f"/timers/by-name/{quote(name, safe='')}"
        status, timer = await self._ask("PUT", path, tenant, _matching(if_version), json=dict(fields))
        return timer, status == 201

    async def preview(self, tenant: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        shown = await self._call("POST", "/schedules/preview", tenant, json=dict(fields))
        return [{"note": None} | item for item in shown["items"]]

    async def dead_letters(
        self, tenant: str, wanted: Mapping[str, Any], limit: int = 50, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        query = {**wanted, "limit": str(limit), **({"cursor": cursor} if cursor else {})}
        page = await self._call("GET", "/dead-letters", tenant, params=query)
        return page["items"], page["nextCursor"]

    async def redrive(self, tenant: str, asked: Mapping[str, Any]) -> dict[str, int]:
        return await self._call("POST", "/dead-letters/redrive", tenant, json=dict(asked))

    async def firings(self, tenant: str, timer_id: str) -> list[dict[str, Any]]:
        return (await self._call("GET", f"/timers/{timer_id}/firings", tenant))["items"]

    async def firing(self, tenant: str, timer_id: str, occurrence: int) -> dict[str, Any]:
        return await self._call("GET", f"/timers/{timer_id}/firings/{occurrence}", tenant)


def _matching(version: int | None) -> dict[str, str | None]:
    return {"If-Match": None if version is None else "*" if version == 0 else f'"{version}"'}
