"""Webhooks as they arrive, verified by the library that receivers use."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from minoots.access.keyring import Keyring
from minoots.clock import SystemClock
from minoots.domain.signing import SecretRequest, admit_secret
from minoots.domain.target import Targets
from minoots.embedded.ports import free_port
from minoots.kernel.firing import Kernel
from minoots.orchestrator.actions.webhook import WebhookRunner
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.signing import Signer
from minoots.service.secrets import SigningSecrets
from minoots.store.database import Database
from tests.support.orchestrating import orchestrating
from tests.support.receiver import Received, Receiver
from tests.support.timers import bundle, switch_events_off, webhook
from tests.support.waiting import eventually

KEYRING = Keyring([b"k" * 32])
README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as made:
        yield made


@pytest.fixture(autouse=True)
async def no_events(sql: asyncpg.Connection) -> None:
    await switch_events_off(sql)


def signing(database: Database, keyring: Keyring = KEYRING) -> AbstractAsyncContextManager[Orchestrator]:
    """An orchestrator that signs."""
    webhooks = WebhookRunner(8, Targets.of((), loopback=True), signer=Signer(database, keyring))
    return orchestrating(database, webhooks=webhooks)


async def make(database: Database, tenant: str = "demo", **fields: Any) -> Webhook:
    wanted = admit_secret(SecretRequest(requested_by="ann", **fields))
    return Webhook((await SigningSecrets(database, KEYRING).create(tenant, wanted)).secret)


async def fire(sql: asyncpg.Connection, database: Database, *actions: Any, tenant: str = "demo", **policy: Any) -> str:
    """A timer that fires now; what is due is left to the orchestrator of the test."""
    timer_id = await sql.fetchval(
        "insert into minoots.timers (tenant_id, name, fire_at, action_bundle) values ($1, 'signed', minoots.now(), $2) "
        "returning id",
        tenant,
        json.dumps(bundle(*actions, concurrency=8, **policy)),
    )
    await Kernel(database, SystemClock(), 100).run_once()
    return str(timer_id)


async def arrived(receiver: Receiver, many: int = 1) -> list[Received]:
    async def have_come() -> bool:
        return len(receiver.requests) >= many

    await eventually(have_come, seconds=30)
    return receiver.requests


async def settled(sql: asyncpg.Connection, timer_id: str) -> None:
    async def has_ended() -> bool:
        status = await sql.fetchval("select status from minoots.timers where id = $1", timer_id)
        return status in ("settled", "failed")

    await eventually(has_ended, seconds=30)


def is_verified(by: Webhook, received: Received) -> bool:
    try:
        by.verify(received.body, received.headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"body": {"täg": "☕", "n": 1.50, "deep": [{}]}},
        {"body": "as it is,  with two blanks"},
        {"method": "GET"},
        {"method": "PUT", "body": None, "headers": {"content-type": "application/vnd.acme+json"}},
    ],
)
async def test_the_library_verifies_the_bytes_that_arrive(
    parameters: dict[str, Any], receiver: Receiver, database: Database, sql: asyncpg.Connection
) -> None:
    by = await make(database)
    timer_id = await fire(sql, database, webhook(receiver.url(), **parameters))
    async with signing(database):
        (received,) = await arrived(receiver)
    assert received.headers["webhook-id"] == f"{timer_id}_1_call"
    by.verify(received.body, received.headers, json_parse=False)
    changed = Received(received.path, received.method, received.headers, received.body + b" ", received.at)
    assert not is_verified(by, changed)
    assert not is_verified(await make(database, "beta"), received)


async def test_both_secrets_verify_during_the_overlap(
    receiver: Receiver, database: Database, sql: asyncpg.Connection
) -> None:
    old = await make(database)
    new = await make(database, overlap="1h")
    await fire(sql, database, webhook(receiver.url()))
    async with signing(database):
        (during,) = await arrived(receiver)
        assert len(during.headers["webhook-signature"].split(" ")) == 2
        assert is_verified(old, during)
        assert is_verified(new, during)
        await sql.execute("delete from minoots.signing_secrets where expires_at is not null")

        async def only_new() -> bool:
            many = len(receiver.requests)
            await fire(sql, database, webhook(receiver.url()))
            await arrived(receiver, many + 1)
            return is_verified(new, receiver.requests[-1]) and not is_verified(old, receiver.requests[-1])

        await eventually(only_new, seconds=30)


async def test_a_destination_has_its_own_secret_and_a_tenant_without_any_sends_unsigned(
    receiver: Receiver, database: Database, sql: asyncpg.Connection
) -> None:
    own = await make(database, destination=receiver.url(""))
    async with Receiver() as elsewhere:
        await fire(sql, database, webhook(receiver.url(), "here"), webhook(elsewhere.url(), "there"), tenant="demo")
        await fire(sql, database, webhook(elsewhere.url("/beta")), tenant="beta")
        async with signing(database):
            (here,) = await arrived(receiver)
            others = await arrived(elsewhere, 2)
    assert is_verified(own, here)
    for other in others:
        assert "webhook-signature" not in other.headers
        assert abs(int(other.headers["webhook-timestamp"]) - int(here.headers["webhook-timestamp"])) <= 60
        assert other.headers["webhook-id"]


async def test_each_attempt_has_its_own_time_and_the_same_id(
    receiver: Receiver, database: Database, sql: asyncpg.Connection
) -> None:
    by = await make(database)

    async def failing_once(request: web.Request, nth: int) -> web.Response:
        return web.Response(status=503 if nth == 1 else 200)

    receiver.answer = failing_once
    await fire(sql, database, webhook(receiver.url()), backoffInitialMs=1_000, backoffMaxMs=1_000)
    async with signing(database):
        first, second = await arrived(receiver, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(first.headers["webhook-timestamp"]) <= int(second.headers["webhook-timestamp"])
    assert is_verified(by, first)
    assert is_verified(by, second)


async def test_what_cannot_be_signed_is_tried_again_and_not_sent(
    receiver: Receiver, database: Database, sql: asyncpg.Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    await make(database)
    timer_id = await fire(sql, database, webhook(receiver.url()), maxAttempts=2, backoffInitialMs=10)
    async with signing(database, Keyring([b"o" * 32])):
        await settled(sql, timer_id)
    assert receiver.requests == []
    rows = await sql.fetch("select outcome, error from minoots.attempts where timer_id = $1 order by attempt", timer_id)
    assert [row["outcome"] for row in rows] == ["retry", "retry"]
    assert "cannot sign" in rows[0]["error"]


async def test_a_secret_is_in_no_log_no_event_and_no_row(
    receiver: Receiver, database: Database, sql: asyncpg.Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    await sql.execute("update minoots.installation set events = true")
    wanted = admit_secret(SecretRequest(requested_by="ann"))
    secret = (await SigningSecrets(database, KEYRING).create("demo", wanted)).secret
    timer_id = await fire(sql, database, webhook(receiver.url()))
    async with signing(database):
        await settled(sql, timer_id)
    tables = [row[0] for row in await sql.fetch("select tablename from pg_tables where schemaname = 'minoots'")]
    rows = [str(row) for table in tables for row in await sql.fetch(f"select * from minoots.{table}")]
    captured = capfd.readouterr()
    for text in (captured.out, captured.err, *rows):
        assert secret.removeprefix("whsec_") not in text
    assert any("timer.settled" in row for row in rows)
    assert "delivery.delivered" in captured.out + captured.err


async def test_the_readmes_receiver_works(database: Database, sql: asyncpg.Connection) -> None:
    """The snippet as it stands there, but for its port."""
    section = README.read_text().partition("## Verifying webhooks")[2].partition("\n## ")[0]
    snippet = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert snippet is not None
    port = free_port()
    program = snippet[1].replace("8080", str(port))
    assert program != snippet[1]
    wanted = admit_secret(SecretRequest(requested_by="ann"))
    secret = (await SigningSecrets(database, KEYRING).create("demo", wanted)).secret
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        "-c",
        program,
        env={"PATH": os.environ["PATH"], "WEBHOOK_SECRET": secret},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:

        async def is_open() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await eventually(is_open, seconds=30)
        good = await fire(sql, database, webhook(f"http://127.0.0.1:{port}/hook"))
        bad = await fire(sql, database, webhook(f"http://127.0.0.1:{port}/hook"), tenant="beta", maxAttempts=1)
        async with signing(database):
            await settled(sql, good)
            await settled(sql, bad)
        assert process.stdout is not None
        assert f"{good}_1_call" in (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        statuses = await sql.fetch("select timer_id, status_code from minoots.attempts")
        assert {str(row["timer_id"]): row["status_code"] for row in statuses} == {good: 204, bad: 401}
    finally:
        process.kill()
        await process.wait()
