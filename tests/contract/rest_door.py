"""The REST door, over HTTP."""

from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.contract.door import KEY, Door, Refused, Timer


class RestDoor(Door):
    name = "rest"
    ninety_seconds = ("90s", "1m30s", "1.5m", "PT90S", "PT1M30S", "pt1.5m", "90000ms", 90_000)

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def _call(self, method: str, path: str, tenant: str, key: str | None = None, **given: Any) -> Any:
        headers = {"X-API-Key": KEY, "x-tenant-id": tenant} | ({"Idempotency-Key": key} if key is not None else {})
        async with self._http.request(method, self._url + path, headers=headers, **given) as answer:
            body = await answer.json(content_type=None)
            if answer.status >= 400:
                pointers = tuple(error["pointer"] for error in body.get("errors") or ())
                raise Refused(body["type"].removeprefix("urn:minoots:problem:"), body["detail"], pointers)
            return body

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

    async def firings(self, tenant: str, timer_id: str) -> list[dict[str, Any]]:
        return (await self._call("GET", f"/timers/{timer_id}/firings", tenant))["items"]

    async def firing(self, tenant: str, timer_id: str, occurrence: int) -> dict[str, Any]:
        return await self._call("GET", f"/timers/{timer_id}/firings/{occurrence}", tenant)
