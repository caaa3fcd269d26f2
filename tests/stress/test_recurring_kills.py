"""Recurring timers under kernels that are killed: each instant fires once or is told as missed, and none twice."""

import asyncio
import json
import random
from datetime import UTC, datetime, timedelta

from tests.support.processes import RoleProcess
from tests.support.timers import Sql, bundle, webhook

TIMERS = 60
KILLS = 8
CALL = json.dumps(bundle(webhook("http://127.0.0.1:9/hook")))


async def test_kernels_are_killed_and_no_occurrence_is_lost_or_doubled(database_url: str, sql: Sql) -> None:
    rng = random.Random(5)
    environ = {"MINOOTS_DATABASE_URL": database_url}
    await sql.execute(
        "insert into minoots.timers (tenant_id, schedule, action_bundle) select 'demo', $1::jsonb, $2::jsonb "
        "from generate_series(1, $3::int)",
        json.dumps({"every": "1s", "catchUp": {"policy": "all"}}),
        CALL,
        TIMERS,
    )
    kernels = [RoleProcess(["kernel"], environ) for _ in range(2)]
    await asyncio.gather(*(kernel.start() for kernel in kernels))
    try:
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 1.2))
            place = rng.randrange(2)
            await kernels[place].kill()
            kernels[place] = RoleProcess(["kernel"], environ)
            await kernels[place].start()
        await asyncio.sleep(3)
        assert not any(kernel.logged("loop.failed") for kernel in kernels)
    finally:
        await asyncio.gather(*(kernel.kill() for kernel in kernels))
    rows = await sql.fetch(
        "select timer_id, array_agg(nominal_at order by nominal_at) as nominals, count(distinct occurrence) as many, "
        "bool_or(fired_at < due_at) as is_early from minoots.firings group by timer_id"
    )
    assert len(rows) == TIMERS
    for row in rows:
        nominals = row["nominals"]
        whole = [nominals[0] + timedelta(seconds=n) for n in range(len(nominals))]
        assert nominals == whole, "every second once, with nothing left out"
        assert row["many"] == len(nominals)
        assert not row["is_early"]
        assert datetime.now(UTC) - nominals[-1] < timedelta(seconds=5)
    assert await sql.fetchval("select sum(missed) from minoots.timers") == 0
