"""The SQL door, over a plain connection."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

import asyncpg

from tests.contract.door import Door, Refused, Timer
from tests.support.timers import Sql


class SqlDoor(Door):
    name = "sql"
    ninety_seconds = (timedelta(seconds=90), "90 s", "1.5 min", "PT1M30S", "1 minute 30 seconds", "00:01:30")
    knows_no = frozenset({"a duration that is no number", "an id that is none"})

    _ARGUMENTS: ClassVar = {
        "requestedBy": "requested_by => ${}::text",
        "name": "name => ${}::text",
        "metadata": "metadata => ${}::jsonb",
        "labels": "labels => ${}::jsonb",
        "actionBundle": "action_bundle => ${}::jsonb",
        "agentBinding": "agent_binding => ${}::jsonb",
        "fireAt": "fire_at => ${}::text::timestamptz",
        "duration": "fire_in => ${}::text::interval",
    }

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def create(self, tenant: str, fields: Mapping[str, Any], key: str | None = None) -> Timer:
        values: list[Any] = [tenant, key]
        places = ["tenant_id => $1", "idempotency_key => $2"]
        for name, value in fields.items():
            values.append(_written(name, value))
            places.append(self._ARGUMENTS[name].format(len(values)))
        call = f"select minoots.schedule_timer({', '.join(places)})"
        return await self.get(tenant, await self._run(self._sql.fetchval, call, *values))

    async def _run(self, run: Any, statement: str, *values: Any) -> Any:
        try:
            return await run(statement, *values)
        except asyncpg.LockNotAvailableError as refused:
            raise Refused("idempotency-in-flight", str(refused)) from None
        except (asyncpg.CheckViolationError, asyncpg.DataError) as refused:
            kind = "idempotency-mismatch" if "used with another" in str(refused) else "invalid-timer"
            raise Refused(kind, str(refused)) from None

    async def get(self, tenant: str, timer_id: Any) -> Timer:
        query = "select minoots.timer_json(t) from minoots.timers t where tenant_id = $1 and id = $2"
        text = await self._sql.fetchval(query, tenant, timer_id)
        if text is None:
            raise Refused("timer-not-found", "no row")
        return json.loads(text)

    async def list_page(
        self, tenant: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[Timer], str | None]:
        rows = await self._sql.fetch(
            """select minoots.timer_json(t) from minoots.timers t
                where tenant_id = $1 and ($2::text[] is null or status = any($2)) and labels @> $3::jsonb
                  and ($4::text is null or name = $4) and ($5::timestamptz is null or fire_at < $5)
                  and ($6::timestamptz is null or fire_at > $6) and ($7::uuid is null or id < $7)
                order by id desc limit $8""",
            tenant,
            wanted.get("statuses"),
            json.dumps(wanted.get("labels", {})),
            wanted.get("name"),
            wanted.get("dueBefore"),
            wanted.get("dueAfter"),
            cursor,
            limit,
        )
        shown = [json.loads(row[0]) for row in rows]
        return shown, shown[-1]["id"] if len(shown) == limit else None

    async def cancel(self, tenant: str, timer_id: Any, requested_by: str, reason: str | None = None) -> Timer:
        call = "select minoots.cancel_timer($1, $2, $3, $4)"
        is_cancelled = await self._run(self._sql.fetchval, call, tenant, timer_id, requested_by, reason)
        timer = await self.get(tenant, timer_id)
        if not is_cancelled:
            raise Refused("timer-state-conflict", timer["status"])
        return timer

    async def firings(self, tenant: str, timer_id: Any) -> list[dict[str, Any]]:
        await self.get(tenant, timer_id)
        query = """select minoots.firing_json(f) from minoots.firings f
                    where tenant_id = $1 and timer_id = $2 order by occurrence desc"""
        return [json.loads(row[0]) for row in await self._sql.fetch(query, tenant, timer_id)]

    async def firing(self, tenant: str, timer_id: Any, occurrence: int) -> dict[str, Any]:
        found = [firing for firing in await self.firings(tenant, timer_id) if firing["occurrence"] == occurrence]
        if not found:
            raise Refused("firing-not-found", "no row")
        where = "where timer_id = $1 and occurrence = $2"
        deliveries = await self._sql.fetch(
            f"select minoots.delivery_json(d) from minoots.deliveries d {where} order by position", timer_id, occurrence
        )
        attempts = await self._sql.fetch(
            f"select action_id, minoots.attempt_json(a) from minoots.attempts a {where} order by attempt",
            timer_id,
            occurrence,
        )
        shown = [json.loads(row[0]) for row in deliveries]
        for delivery in shown:
            delivery["attempts"] = [json.loads(row[1]) for row in attempts if row[0] == delivery["actionId"]]
        return found[0] | {"deliveries": shown}


def _written(name: str, value: Any) -> Any:
    if name in ("metadata", "labels", "actionBundle", "agentBinding"):
        return json.dumps(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} s"
    if name == "duration" and not isinstance(value, str):
        return f"{value} ms"
    return value
