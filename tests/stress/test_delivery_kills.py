"""Orchestrators killed with -9 a hundred times while they deliver to a receiver that fails three times in ten."""

import asyncio
import hashlib
import json
import random
from collections import defaultdict
from contextlib import AsyncExitStack

from aiohttp import web

from minoots.embedded.nats import EmbeddedNats
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually

# Scheduled wave by wave, so that most kills find something under way; how many did is counted.
TIMERS = 20_000
WAVES = 50
WAVE_S = 1.0
KILLS = 100
ORCHESTRATORS = 2
FAILING = 0.3
# An attempt that is lost is taken up again after this and the action's own time-out.
MARGIN_MS = 500
TIMEOUT_MS = 1_500
POLICY = {"maxAttempts": 50, "backoffInitialMs": 100, "backoffMultiplier": 1.5, "backoffMaxMs": 1_000}

SCHEDULE = """
select minoots.schedule_timer(
           'tenant-' || n % 5, fire_in => (0.1 + random() * $2::float8) * interval '1 s', action_bundle => $3::jsonb)
  from generate_series(1, $1::int) n
"""

# Each attempt is recorded once, under the number that follows the one before; the last one was delivered.
ODD_RECORDS = """
select d.timer_id, d.status, d.attempt_count, count(a.attempt) as recorded, max(a.attempt) as last,
       count(*) filter (where a.outcome = 'delivered') as delivered
  from minoots.deliveries d left join minoots.attempts a using (timer_id, occurrence, action_id)
 group by d.timer_id, d.occurrence, d.action_id
having d.status <> 'delivered' or count(*) filter (where a.outcome = 'delivered') <> 1
    or count(a.attempt) <> d.attempt_count or max(a.attempt) <> d.attempt_count
"""


async def test_a_hundred_killed_orchestrators_lose_no_delivery_and_double_no_record(
    database_url: str, nats: EmbeddedNats, sql: Sql
) -> None:
    rng = random.Random(4)
    environ = {
        "MINOOTS_DATABASE_URL": database_url,
        "NATS_URL": nats.url,
        "MINOOTS_LEASE_MARGIN_MS": str(MARGIN_MS),
    }

    async def answer(_: web.Request, __: int) -> web.StreamResponse:
        # Long enough that a kill finds attempts under way.
        await asyncio.sleep(rng.uniform(0, 0.2))
        return web.Response(status=rng.choice([500, 503, 404]) if rng.random() < FAILING else 200)

    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver(answer))
        others = [RoleProcess(roles, environ) for roles in (["kernel", "relay"], ["orchestrator"])]
        await asyncio.gather(*(stack.enter_async_context(process) for process in others))
        call = json.dumps(bundle(webhook(receiver.url(), timeoutMs=TIMEOUT_MS), **POLICY))
        async with asyncio.TaskGroup() as group:
            for nth in range(ORCHESTRATORS):
                times = len(range(nth, KILLS, ORCHESTRATORS))
                group.create_task(start_and_kill(environ, times, random.Random(nth)))
            group.create_task(schedule(sql, call))
        await eventually(lambda: has_settled(sql), seconds=120, every=0.5)
    assert await count(sql, "status = 'settled'") == TIMERS
    for table in ("firings", "deliveries"):
        assert await count(sql, "true", table) == TIMERS
    assert await sql.fetch(ODD_RECORDS) == []
    # Each process is a node of its own.
    killed_at_work = await sql.fetchval("select count(distinct node) from minoots.attempts where outcome = 'unknown'")
    assert killed_at_work >= KILLS / 4
    await check_receiver(sql, receiver)


async def schedule(sql: Sql, call: str) -> None:
    """All timers, in waves that fall due one after the other."""
    for _ in range(WAVES):
        await sql.execute(SCHEDULE, TIMERS // WAVES, WAVE_S, call)
        await asyncio.sleep(WAVE_S)


async def start_and_kill(environ: dict[str, str], times: int, rng: random.Random) -> None:
    """So often: an orchestrator starts, works for a while, and is killed with -9."""
    for _ in range(times):
        async with RoleProcess(["orchestrator"], environ) as process:
            await asyncio.sleep(rng.uniform(0.05, 1.0))
            assert process.process is not None
            assert process.process.returncode is None, f"it ended by itself: {process.lines[-5:]}"
            await process.kill()


async def has_settled(sql: Sql) -> bool:
    return not await count(sql, "status <> 'settled'")


async def check_receiver(sql: Sql, receiver: Receiver) -> None:
    """Every delivery came; a repetition under the same webhook-id with the same body; none that is not on record."""
    bodies: dict[str, set[bytes]] = defaultdict(set)
    for request in receiver.requests:
        bodies[request.headers["webhook-id"]].add(hashlib.sha256(request.body).digest())
    assert len(bodies) == TIMERS
    assert all(len(different) == 1 for different in bodies.values())
    rows = await sql.fetch("select timer_id, occurrence, action_id, attempt_count from minoots.deliveries")
    for row in rows:
        sent = receiver.seen[f"{row['timer_id']}_{row['occurrence']}_{row['action_id']}"]
        assert 1 <= sent <= row["attempt_count"]
