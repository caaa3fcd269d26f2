"""Workflow events: what JetStream keeps, once whatever is repeated, and what an endpoint is sent."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from minoots.broker.jetstream import Broker
from minoots.broker.workflow import WorkflowStream
from minoots.clock import SystemClock
from minoots.embedded.nats import EmbeddedNats
from minoots.kernel.firing import Kernel
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.actions.workflow import WorkflowRunner
from minoots.settings import Settings
from minoots.store.database import Database
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, count, insert_timers, switch_events_off
from tests.support.waiting import eventually

STREAM = "MINOOTS_WORKFLOW"


def event(name: str = "order.overdue", **parameters: Any) -> dict[str, Any]:
    return {"id": "tell", "kind": "workflow_event", "parameters": {"name": name} | parameters}


@pytest.fixture
async def client(nats: EmbeddedNats) -> AsyncIterator[Client]:
    connected = await _connect(nats.url)
    yield connected
    await connected.close()


async def _connect(url: str) -> Client:
    return await nats.connect(url)


async def kept(client: Client, stream: str = STREAM) -> list[tuple[str, dict[str, str], Any]]:
    """What the stream holds, in its order: subject, headers, event."""
    js = client.jetstream()
    state = (await js.stream_info(stream)).state
    found = [await js.get_msg(stream, nth) for nth in range(state.first_seq, state.last_seq + 1)]
    return [(message.subject or "", message.headers or {}, json.loads(message.data or b"")) for message in found]


async def fire(database: Database, sql: Sql, *actions: dict[str, Any], **policy: Any) -> UUID:
    (timer,) = await insert_timers(sql, 1, actions=bundle(*actions, **(policy or {"maxAttempts": 1})))
    kernel = Kernel(database, SystemClock(), 500)
    while (await kernel.run_once()).claimed:
        pass
    return timer


async def settled(sql: Sql, many: int = 1) -> None:
    async def are_settled() -> bool:
        return await count(sql, "status in ('settled', 'failed')") == many

    await eventually(are_settled, 60)


async def attempts_of(sql: Sql, timer: UUID) -> list[Any]:
    statement = "select * from minoots.attempts where timer_id = $1 order by attempt"
    return list(await sql.fetch(statement, timer))


async def test_an_event_is_kept_in_a_stream_of_its_own(
    database_url: str, database: Database, sql: Sql, nats: EmbeddedNats, client: Client
) -> None:
    await switch_events_off(sql)
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url, "MINOOTS_WORKFLOW_MAX_BYTES": "10000000"}
    async with RoleProcess(["orchestrator"], environ) as process:
        assert process.logged("started"), process.lines
        timer = await fire(database, sql, event(payload={"order": 7, "large": 9007199254740993}))
        await settled(sql)
        (attempt,) = await attempts_of(sql, timer)
        assert attempt["outcome"] == "delivered", dict(attempt)
        ((subject, headers, told),) = await kept(client)
        assert subject == "minoots.workflow.demo.order.overdue"
        assert headers["Nats-Msg-Id"] == f"{timer}_1_tell"
        assert headers["Content-Type"] == "application/cloudevents+json"
        fired_at = await sql.fetchval("select minoots.iso(fired_at) from minoots.firings")
        data = told.pop("data")
        assert told == {
            "specversion": "1.0", "id": f"{timer}_1_tell", "source": "/minoots/tenants/demo", "type": "order.overdue",
            "subject": str(timer), "time": fired_at, "datacontenttype": "application/json",
        }  # fmt: skip
        assert data["payload"] == {"order": 7, "large": 9007199254740993}
        assert (data["timer"]["id"], data["firing"]["occurrence"]) == (str(timer), 1)
        config = (await client.jetstream().stream_info(STREAM)).config
        assert (config.subjects, config.max_bytes, config.max_age) == (["minoots.workflow.>"], 10_000_000, 72 * 3600)

        # The timer is read by a template, and the stream is made again when somebody removes it.
        await client.jetstream().delete_stream(STREAM)
        again = await fire(
            database, sql, event("a", payloadTemplate={"who": "{{timer.tenantId}}", "n": "{{firing.occurrence}}"})
        )
        await settled(sql, 2)
        ((subject, headers, told),) = await kept(client)
        assert subject == "minoots.workflow.demo.a"
        assert told["subject"] == str(again)
        assert told["data"]["payload"] == {"who": "demo", "n": 1}


async def test_what_nats_lost_with_its_disk_is_made_again(
    database_url: str, database: Database, sql: Sql, nats: EmbeddedNats
) -> None:
    """Away: the attempt is tried again. Wiped: the stream is made again."""
    await switch_events_off(sql)
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url}
    async with RoleProcess(["orchestrator"], environ):
        await fire(database, sql, event())
        await settled(sql)
        await nats.kill()
        nats.wipe()
        timer = await fire(database, sql, event("late"), maxAttempts=50, backoffInitialMs=100, backoffMaxMs=500)

        async def has_failed() -> bool:
            return bool(await attempts_of(sql, timer))

        await eventually(has_failed, 60)
        (first, *_) = await attempts_of(sql, timer)
        assert first["outcome"] == "retry"
        assert "NATS" in first["error"] or "JetStream" in first["error"]
        await nats.start()
        await settled(sql, 2)
        client = await _connect(nats.url)
        assert [subject for subject, _, _ in await kept(client)] == ["minoots.workflow.demo.late"]
        await client.close()


def request(name: str = "a", **fields: Any) -> ActionRequest:
    body = {
        "timer": {"id": "t1", "tenantId": "demo"},
        "event": {"time": "2026-01-01T00:00:00Z", "data": {"firing": {}}},
    }
    parameters = {"name": name} | fields
    return ActionRequest(
        tenant_id="demo", timer_id="t1", occurrence=1, action_id="tell", kind="workflow_event",
        parameters=json.dumps(parameters), body=json.dumps(body), traceparent=None,
    )  # fmt: skip


async def test_a_repetition_is_dropped_and_an_installation_has_a_stream_of_its_own(
    nats: EmbeddedNats, client: Client
) -> None:
    settings = Settings.from_env({"NATS_URL": nats.url, "MINOOTS_SCHEMA": "other"})
    async with Broker(settings.broker, "test") as broker:
        runner = WorkflowRunner(None, WorkflowStream(broker, settings.workflow), None)  # type: ignore[arg-type]
        for _ in range(3):
            outcome = await runner.run(request())
            assert type(outcome).__name__ == "Delivered", outcome
        assert [subject for subject, _, _ in await kept(client, "MINOOTS_WORKFLOW_OTHER")] == ["other.workflow.demo.a"]
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info(STREAM)
        outcome = await runner.run(request("large", payload="x" * (3 << 20)))
        assert type(outcome).__name__ == "Rejected", "no retry makes it smaller"


async def test_without_nats_and_endpoint_it_is_dead_at_once_with_the_reason() -> None:
    outcome = await WorkflowRunner(None, None, None).run(request())  # type: ignore[arg-type]
    assert type(outcome).__name__ == "Rejected"
    assert "NATS_URL" in outcome.error  # type: ignore[union-attr]


async def test_an_endpoint_gets_the_event_as_a_webhook(database_url: str, database: Database, sql: Sql) -> None:
    """The operator's for all events; an action's own goes before it."""
    await switch_events_off(sql)
    async with Receiver() as operators, Receiver() as own:
        environ = {
            "MINOOTS_DATABASE_URL": database_url, "NATS_URL": "", "MINOOTS_WORKFLOW_ENDPOINT": operators.url("/events"),
        }  # fmt: skip
        async with RoleProcess(["orchestrator"], environ):
            timer = await fire(database, sql, event(payload=[1]), event(endpoint=own.url("/mine")) | {"id": "other"})
            await settled(sql)
        assert {a["outcome"] for a in await attempts_of(sql, timer)} == {"delivered"}
        (told,) = operators.requests
        assert (told.method, told.path) == ("POST", "/events")
        assert told.headers["content-type"] == "application/cloudevents+json"
        assert told.headers["webhook-id"] == f"{timer}_1_tell"
        shown = json.loads(told.body)
        assert (shown["id"], shown["type"], shown["data"]["payload"]) == (f"{timer}_1_tell", "order.overdue", [1])
        (mine,) = own.requests
        assert json.loads(mine.body)["id"] == f"{timer}_1_other"
        lanes = await sql.fetch("select lane from minoots.deliveries order by lane")
        assert [row["lane"] for row in lanes] == [own.url(""), "workflow"]


async def test_the_operators_endpoint_may_be_where_no_tenant_may_send(
    database_url: str, database: Database, sql: Sql
) -> None:
    await switch_events_off(sql)
    async with Receiver() as operators, Receiver() as canary:
        environ = {
            "MINOOTS_DATABASE_URL": database_url, "NATS_URL": "", "MINOOTS_WORKFLOW_ENDPOINT": operators.url("/events"),
            "MINOOTS_ENV": "production", "MINOOTS_SECRETS_KEY": base64.b64encode(bytes(range(32))).decode(),
        }  # fmt: skip
        async with RoleProcess(["orchestrator"], environ) as process:
            assert process.logged("started"), process.lines
            timer = await fire(database, sql, event(), event(endpoint=canary.url()) | {"id": "other"})
            await settled(sql)
        outcomes = {a["action_id"]: a["outcome"] for a in await attempts_of(sql, timer)}
        assert outcomes["tell"] == "delivered"
        assert outcomes["other"] != "delivered"
        assert (len(operators.requests), canary.requests) == (1, [])
