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
    knows_no = frozenset(
        {"a duration that is no number", "an id that is none", "a preview", "an instant that is cleared", "a plan"}
    )

    _ARGUMENTS: ClassVar = {
        "requestedBy": "requested_by => ${}::text",
        "name": "name => ${}::text",
        "metadata": "metadata => ${}::jsonb",
        "labels": "labels => ${}::jsonb",
        "actionBundle": "action_bundle => ${}::jsonb",
        "agentBinding": "agent_binding => ${}::jsonb",
        "fireAt": "fire_at => ${}::text::timestamptz",
        "duration": "fire_in => ${}::text::interval",
        "schedule": "schedule => ${}::jsonb",
    }

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def create(self, tenant: str, fields: Mapping[str, Any], key: str | None = None) -> Timer:
        made = await self._do("schedule_timer", fields, tenant_id=tenant, idempotency_key=key)
        return await self.get(tenant, made)

    async def _do(self, function: str, fields: Mapping[str, Any], **named: Any) -> Any:
        """Call a function with named arguments: `fields` in REST's words, a short form as a schedule in short."""
        short = {name: fields[name] for name in ("cron", "every", "timezone") if name in fields}
        fields = {name: value for name, value in fields.items() if name not in short}
        fields |= {"schedule": short} if short else {}
        values = list(named.values())
        places = [f"{name} => ${nth}" for nth, name in enumerate(named, start=1)]
        for name, value in fields.items():
            values.append(_written(name, value))
            places.append(self._ARGUMENTS[name].format(len(values)))
        return await self._run(self._sql.fetchval, f"select minoots.{function}({', '.join(places)})", *values)

    async def _run(self, run: Any, statement: str, *values: Any) -> Any:
        try:
            return await run(statement, *values)
        except asyncpg.LockNotAvailableError as refused:
            raise Refused("idempotency-in-flight", str(refused)) from None
        except asyncpg.ObjectNotInPrerequisiteStateError as refused:
            raise Refused("stale-version", str(refused)) from None
        except asyncpg.UniqueViolationError as refused:
            raise Refused("name-taken", str(refused)) from None
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
        return await self._step("cancel_timer", tenant, timer_id, {}, requested_by=requested_by, reason=reason)

    async def _step(self, function: str, tenant: str, timer_id: Any, fields: Mapping[str, Any], **named: Any) -> Timer:
        """A function that says whether it was done, and the timer as it is then."""
        named = {name: value for name, value in named.items() if value is not None}
        is_done = await self._do(function, fields, tenant_id=tenant, timer_id=timer_id, **named)
        timer = await self.get(tenant, timer_id)
        if not is_done:
            raise Refused("timer-state-conflict", timer["status"])
        return timer

    async def pause(self, tenant: str, timer_id: Any, requested_by: str | None = None) -> Timer:
        return await self._step("pause_timer", tenant, timer_id, {}, requested_by=requested_by)

    async def resume(
        self, tenant: str, timer_id: Any, catch_up: bool | None = None, requested_by: str | None = None
    ) -> Timer:
        return await self._step("resume_timer", tenant, timer_id, {}, catch_up=catch_up, requested_by=requested_by)

    async def reschedule(self, tenant: str, timer_id: Any, fields: Mapping[str, Any]) -> Timer:
        return await self._step("reschedule_timer", tenant, timer_id, fields)

    async def fire(self, tenant: str, timer_id: Any, requested_by: str | None = None) -> Timer:
        return await self._step("fire_timer", tenant, timer_id, {}, requested_by=requested_by)

    async def update(
        self, tenant: str, timer_id: Any, fields: Mapping[str, Any], if_version: int | None = None
    ) -> Timer:
        given = {name: value for name, value in fields.items() if value is not None}
        columns = {"actionBundle": "action_bundle", "agentBinding": "agent_binding"}
        clear = [columns.get(name, name) for name in fields if name not in given]
        return await self._step("update_timer", tenant, timer_id, given, clear=clear, if_version=if_version)

    async def put(
        self, tenant: str, name: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> tuple[Timer, bool]:
        made = await self._do("put_timer", fields, tenant_id=tenant, name=name, if_version=if_version)
        timer = await self.get(tenant, made)
        return timer, timer["version"] == 1

    async def preview(self, tenant: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        raise NotImplementedError("SQL computes no instants")

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
            f"select minoots.delivery_json(d) from minoots.deliveries d {where} order by position, action_id",
            timer_id,
            occurrence,
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
    if name in ("metadata", "labels", "actionBundle", "agentBinding", "schedule"):
        return json.dumps(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} s"
    if name == "duration" and not isinstance(value, str):
        return f"{value} ms"
    return value
