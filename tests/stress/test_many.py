"""Many processes over one database, many timers, and cancels racing them: none lost, none twice, none early."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any
from uuid import UUID

import aiohttp

from minoots.embedded.nats import EmbeddedNats
from minoots.embedded.ports import free_port
from tests.support.processes import RoleProcess
from tests.support.receiver import Receiver
from tests.support.stream import StreamEvent, kinds_by_timer, read_stream
from tests.support.timers import Sql, bundle, count, webhook
from tests.support.waiting import eventually

TIMERS = 10_000
CANCELS = 1_000
SPAN_S = 15.0
BEFORE_S = 4.0
ROLES = [["kernel"]] * 3 + [["relay"]] * 2 + [["orchestrator"]] * 2 + [["api"]]
# Half of the cancels set out around the due instant; the others sooner, so that some come first on a busy machine too.
RACES_S = ((-0.02, 0.02), (-2.0, 0.0))

SCHEDULE = """
select minoots.schedule_timer(
           'demo', fire_in => ($2::float8 + random() * $3::float8) * interval '1 s', action_bundle => $4::jsonb)
  from generate_series(1, $1::int)
"""


async def test_many_kernels_relays_and_orchestrators_keep_every_promise(
    database_url: str, nats: EmbeddedNats, sql: Sql
) -> None:
    port = free_port()
    environ = {
        "MINOOTS_DATABASE_URL": database_url,
        "NATS_URL": nats.url,
        "MINOOTS_API_ADDRESS": f"127.0.0.1:{port}",
    }
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        processes = [RoleProcess(roles, environ) for roles in ROLES]
        await asyncio.gather(*(stack.enter_async_context(process) for process in processes))
        call = json.dumps(bundle(webhook(receiver.url())))
        timers = [row[0] for row in await sql.fetch(SCHEDULE, TIMERS, BEFORE_S, SPAN_S, call)]
        answers = await race_cancels(sql, timers, f"http://127.0.0.1:{port}")
        await eventually(lambda: has_ended(sql), seconds=60, every=0.2)
        await eventually(lambda: is_outbox_empty(sql), seconds=30, every=0.2)
        events = await read_stream(nats.url)
        for process in processes:
            assert process.process is not None
            assert process.process.returncode is None
            assert not process.logged("loop.failed")
    rows = {row["id"]: row for row in await sql.fetch("select * from minoots.timers")}
    check_cancels(rows, answers)
    await check_firings(sql, rows)
    check_events(rows, events)
    settled = {str(timer) for timer, row in rows.items() if row["status"] == "settled"}
    assert {key.removesuffix("_1_call") for key in receiver.seen} == settled, "every action is attempted"
    # With nobody killed, nothing is attempted twice but what outlived its lease on a machine that is too busy.
    assert sum(receiver.seen.values()) - len(settled) <= await count(sql, "outcome = 'unknown'", "attempts")


async def race_cancels(sql: Sql, timers: list[UUID], url: str) -> dict[UUID, int]:
    """Cancel some of the timers through REST, each about at its due instant: the status of each answer."""
    rng = random.Random(20)
    chosen = rng.sample(timers, CANCELS)
    offset = time.time() - asyncio.get_running_loop().time()
    due: dict[UUID, datetime] = {
        row["id"]: row["due_at"] for row in await sql.fetch("select id, fire_at as due_at from minoots.timers")
    }
    answers: dict[UUID, int] = {}

    async def cancel(client: aiohttp.ClientSession, timer: UUID) -> None:
        at = due[timer].timestamp() - offset + rng.uniform(*rng.choice(RACES_S))
        await asyncio.sleep(max(at - asyncio.get_running_loop().time(), 0))
        body = {"tenantId": "demo", "requestedBy": "racer"}
        async with client.post(f"{url}/timers/{timer}/cancel", json=body) as answer:
            answers[timer] = answer.status

    headers = {"X-API-Key": "mnt_example"}
    async with aiohttp.ClientSession(headers=headers) as client, asyncio.TaskGroup() as group:
        for timer in chosen:
            group.create_task(cancel(client, timer))
    return answers


async def has_ended(sql: Sql) -> bool:
    return not await count(sql, "status not in ('settled', 'cancelled')")


async def is_outbox_empty(sql: Sql) -> bool:
    return not await count(sql, "true", "outbox")


def check_cancels(rows: Mapping[UUID, Any], answers: Mapping[UUID, int]) -> None:
    """A cancel is answered 200 exactly when the timer never fires."""
    outcomes = Counter(answers.values())
    assert set(outcomes) == {200, 409}, f"both win sometimes: {outcomes}"
    for timer, row in rows.items():
        is_cancelled = row["status"] == "cancelled"
        assert is_cancelled == (answers.get(timer) == 200), (timer, row["status"], answers.get(timer))
        assert is_cancelled == (row["fired_at"] is None)


async def check_firings(sql: Sql, rows: Mapping[UUID, Any]) -> None:
    """One firing for what was not cancelled, none for what was, none early; all settled once."""
    firings = await sql.fetch("select * from minoots.firings")
    assert len(rows) == TIMERS
    assert Counter(f["timer_id"] for f in firings) == Counter(
        t for t, row in rows.items() if row["status"] != "cancelled"
    )
    for firing in firings:
        assert firing["occurrence"] == 1
        assert firing["fired_at"] >= firing["due_at"]
        assert (firing["status"], firing["open_deliveries"]) == ("settled", 0)
    versions = {(row["status"], row["version"]) for row in rows.values()}
    assert versions == {("settled", 3), ("cancelled", 2)}, "every transition happened once"


def check_events(rows: Mapping[UUID, Any], events: list[StreamEvent]) -> None:
    """Each timer's events are all on the stream, once, in the order in which they became true."""
    assert len({event.message_id for event in events}) == len(events)
    assert [event.sequence for event in events] == sorted(event.sequence for event in events)
    ways = {
        "settled": ["timer.scheduled", "timer.fired", "timer.settled"],
        "cancelled": ["timer.scheduled", "timer.cancelled"],
    }
    assert kinds_by_timer(events) == {str(timer): ways[row["status"]] for timer, row in rows.items()}
    delivered = Counter(event.timer_id for event in events if event.kind == "delivery.delivered")
    assert delivered == Counter(str(timer) for timer, row in rows.items() if row["status"] == "settled")
