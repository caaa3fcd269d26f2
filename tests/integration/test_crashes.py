"""A process that dies with SIGKILL at any step of a timer's way costs nothing but time."""

import asyncio

import asyncpg
import pytest

from minoots.embedded.nats import EmbeddedNats
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.waiting import eventually

KERNEL_STEPS = ["before-claim", "before-fire-commit", "after-fire", "after-fire-commit"]
RELAY_STEPS = ["before-publish", "before-remove", "before-remove-commit"]
INTAKE_STEPS = ["before-lease-commit", "after-lease-commit", "before-dispatch"]
RESULT_STEPS = ["before-record", "before-record-commit", "after-record-commit"]

SCHEDULE = """
select minoots.schedule_timer('demo', 'crash', fire_in => interval '300 ms',
    action_bundle => jsonb_build_object('actions', jsonb_build_array(jsonb_build_object(
        'id', 'call', 'kind', 'webhook', 'parameters', jsonb_build_object('url', $1::text, 'timeoutMs', 700)))))
"""


@pytest.mark.parametrize(
    ("step", "role"),
    [(step, "kernel") for step in KERNEL_STEPS]
    + [(step, "relay") for step in RELAY_STEPS]
    + [(step, "orchestrator") for step in INTAKE_STEPS + RESULT_STEPS],
)
async def test_a_process_killed_at_any_step_loses_nothing(
    step: str, role: str, database_url: str, nats: EmbeddedNats, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url, "MINOOTS_LEASE_MARGIN_MS": "500"}
    others = [other for other in ("kernel", "relay", "orchestrator") if other != role]
    async with Receiver() as receiver, RoleProcess([others[0]], environ), RoleProcess([others[1]], environ):
        # Without prepared statements the kernel's statement stands in a transaction of its own making.
        unprepared = {"MINOOTS_PREPARED_STATEMENTS": "off"} if step == "before-fire-commit" else {}
        crash_at = "after-fire" if step == "before-fire-commit" else step
        async with RoleProcess([role], {**environ, **unprepared}, crash_at=crash_at) as victim:
            timer_id = await sql.fetchval(SCHEDULE, receiver.url())
            assert await victim.wait(20) == -9, "the process has to die at the step"
        async with RoleProcess([role], environ):

            async def is_settled() -> bool:
                return await sql.fetchval("select status from minoots.timers where id = $1", timer_id) == "settled"

            await eventually(is_settled, seconds=20)
            await eventually(lambda: _is_empty(sql), seconds=10)
    fired = await sql.fetch("select *, fired_at < due_at as early from minoots.firings")
    assert len(fired) == 1
    assert fired[0]["status"] == "settled"
    assert not fired[0]["early"]
    delivery = await sql.fetchrow("select * from minoots.deliveries")
    attempts = await sql.fetch("select * from minoots.attempts order by attempt")
    assert delivery["status"] == "delivered"
    assert [row["attempt"] for row in attempts] == list(range(1, delivery["attempt_count"] + 1))
    assert [row["outcome"] for row in attempts] == ["unknown"] * (len(attempts) - 1) + ["delivered"]
    assert {r.headers["webhook-id"] for r in receiver.requests} == {f"{timer_id}_1_call"}
    assert len({r.body for r in receiver.requests}) == 1, "a repetition is the same request"
    assert len(receiver.requests) == (2 if step in ("before-record", "before-record-commit") else 1)


async def _is_empty(sql: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return not await sql.fetchval("select exists (select from minoots.outbox)")


async def test_everything_killed_at_once_goes_on_where_it_was(
    database_url: str, nats: EmbeddedNats, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    environ = {"MINOOTS_DATABASE_URL": database_url, "NATS_URL": nats.url, "MINOOTS_LEASE_MARGIN_MS": "500"}
    groups = [["kernel", "relay"], ["orchestrator"]]
    async with Receiver() as receiver:
        for _ in range(60):
            await sql.execute(SCHEDULE, receiver.url())
        for life in (0.45, 0.6, 0.9):
            processes = [RoleProcess(roles, environ) for roles in groups]
            await asyncio.gather(*(process.start() for process in processes))
            await asyncio.sleep(life)
            await asyncio.gather(*(process.kill() for process in processes))
        async with RoleProcess(groups[0], environ), RoleProcess(groups[1], environ):

            async def are_settled() -> bool:
                return await sql.fetchval("select count(*) from minoots.timers where status = 'settled'") == 60

            await eventually(are_settled, seconds=30)
    assert await sql.fetchval("select count(*) from minoots.firings where occurrence = 1") == 60
    assert len(receiver.seen) == 60
