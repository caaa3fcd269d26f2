"""Whatever the other end does, a delivery has its attempts and its end; and the process its memory."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from minoots.store.database import Database
from tests.integration.test_orchestrator import attempts_of, delivery_of, ended, timer_of
from tests.support.life import fire_timers
from tests.support.orchestrating import orchestrating
from tests.support.processes import RoleProcess
from tests.support.scripted_receiver import ScriptedReceiver
from tests.support.timers import Sql, bundle, count, switch_events_off, webhook
from tests.support.waiting import eventually

QUICK = {"backoffInitialMs": 20, "backoffMaxMs": 40}
LONG = 60

_INSERT = """
insert into minoots.timers (tenant_id, name, fire_at, action_bundle)
select 'tenant-' || g || translate($2, '/_', '--'), 'giant', minoots.now(), $3::jsonb from generate_series(1, $1::int) g
"""


@pytest.fixture
async def receiver() -> AsyncIterator[ScriptedReceiver]:
    async with ScriptedReceiver() as playing:
        yield playing


async def deliver(database: Database, sql: Sql, url: str, max_attempts: int = 3, **parameters: Any) -> UUID:
    """One webhook there, tried quickly and up to so often, until its timer has ended."""
    actions = bundle(webhook(url, **{"timeoutMs": 1_000} | parameters), maxAttempts=max_attempts, **QUICK)
    async with orchestrating(database):
        (timer,) = await fire_timers(database, sql, actions)
        await eventually(ended(sql), seconds=LONG)
    return timer


# Scene, how its attempts end, statuses, what the last error says, what becomes of the delivery.
SCENES = {
    "taken": ("/status/200", ["delivered"], [200], None, "delivered"),
    "created": ("/status/201", ["delivered"], [201], None, "delivered"),
    "flapping": ("/status/503,502,200", ["retry", "retry", "delivered"], [503, 502, 200], None, "delivered"),
    "timed out there": ("/status/408,425,200", ["retry", "retry", "delivered"], [408, 425, 200], None, "delivered"),
    "mended": ("/status/404,401,200", ["retry", "retry", "delivered"], [404, 401, 200], None, "delivered"),
    "gone": ("/status/410", ["rejected"], [410], "HTTP 410", "dead"),
    "gone at last": ("/status/500,410", ["retry", "rejected"], [500, 410], "HTTP 410", "dead"),
    "never mended": ("/status/422", ["retry"] * 3, [422] * 3, "HTTP 422", "dead"),
    "moved to loopback": ("/away", ["retry"] * 3, [301] * 3, "redirects are not followed", "dead"),
    "answer lost": ("/lost", ["retry", "delivered"], [None, 200], None, "delivered"),
    "answer cut": ("/cut", ["retry"] * 3, [200] * 3, "in the middle of the answer", "dead"),
    "1 GiB": ("/huge/200", ["delivered"], [200], None, "delivered"),
    "1 GiB of an error": ("/huge/500", ["retry"] * 3, [500] * 3, "HTTP 500", "dead"),
    "gzip bomb": ("/bomb", ["delivered"], [200], None, "delivered"),
    "slow drip": ("/drip", ["retry"] * 3, [200] * 3, "no complete answer within 1 s", "dead"),
    "slow head": ("/drip_head", ["retry"] * 3, [None] * 3, "no complete answer within 1 s", "dead"),
    "head without end": ("/giant_head", ["retry"] * 3, [None] * 3, "no HTTP that can be read", "dead"),
    "line without end": ("/giant_line", ["retry"] * 3, [None] * 3, "no HTTP that can be read", "dead"),
    "only promises": ("/continues", ["retry"] * 3, [None] * 3, "no complete answer within 1 s", "dead"),
    "silent": ("/silent", ["retry"] * 3, [None] * 3, "no complete answer within 1 s", "dead"),
    "garbage": ("/garbage", ["retry"] * 3, [None] * 3, "no HTTP that can be read", "dead"),
}


@pytest.mark.parametrize("scene", SCENES)
async def test_each_scene_has_its_attempts_and_its_end(
    scene: str, receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    path, outcomes, statuses, error, status = SCENES[scene]
    timer = await deliver(database, sql, receiver.url(path))
    attempts = await attempts_of(sql, timer)
    assert [attempt["outcome"] for attempt in attempts] == outcomes
    assert [attempt["status_code"] for attempt in attempts] == statuses
    assert all(attempt["node"] == "here" and attempt["duration_ms"] is not None for attempt in attempts)
    assert all(len(attempt["excerpt"] or "") <= 4_096 for attempt in attempts)
    assert all(attempt["duration_ms"] < 5_000 for attempt in attempts)
    delivery = await delivery_of(sql, timer)
    assert delivery["status"] == status
    assert (await timer_of(sql, timer))["status"] == ("settled" if status == "delivered" else "failed")
    if error is not None:
        assert error in attempts[-1]["error"]
        assert error in delivery["dead_reason"]
    log = await receiver.log()
    assert log["canary"] == 0, "nobody was sent to where an answer pointed"
    assert log["sent"] < 64 << 20, "nobody took a GiB"
    assert [one["webhook_id"] for one in log["heard"]] == [f"{timer}_1_call"] * len(attempts)
    assert len({one["body"] for one in log["heard"]}) == 1, "a repetition says the same, byte for byte"


@pytest.mark.parametrize(
    ("server", "scheme", "error"),
    [
        ("deaf", "http", "no complete answer within 1 s"),
        ("tls", "https", "TLS: the certificate is not valid"),
        ("http", "https", "within 1 s"),
        ("tls", "http", "closed before an answer came"),
    ],
    ids=["half-open connection", "untrusted certificate", "no TLS at all", "TLS where none is spoken"],
)
async def test_connections_that_come_to_nothing_are_tried_again(
    server: str, scheme: str, error: str, receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    url = f"{scheme}://127.0.0.1:{receiver.ports[server]}/status/200"
    timer = await deliver(database, sql, url, max_attempts=2)
    attempts = await attempts_of(sql, timer)
    assert [attempt["outcome"] for attempt in attempts] == ["retry", "retry"]
    assert all(error in attempt["error"] for attempt in attempts)
    assert (await delivery_of(sql, timer))["status"] == "dead"


async def test_retry_after_is_kept_to(receiver: ScriptedReceiver, database: Database, sql: Sql) -> None:
    timer = await deliver(database, sql, receiver.url("/limited/2"))
    first, second = await attempts_of(sql, timer)
    assert (first["status_code"], second["outcome"]) == (429, "delivered")
    assert second["started_at"] - first["started_at"] >= timedelta(seconds=2), "the policy alone would wait 40 ms"
    came = [one["at"] for one in await receiver.heard("/limited/2")]
    assert came[1] - came[0] >= 2


async def test_a_retry_after_of_weeks_is_cut_to_a_day_and_stored(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    async with orchestrating(database):
        (timer,) = await fire_timers(database, sql, bundle(webhook(receiver.url("/limited/9999999")), **QUICK))
        await eventually(lambda: count(sql, "outcome = 'retry'", "attempts"), seconds=LONG)
    wait = await sql.fetchval(
        "select next_attempt_at - minoots.now() from minoots.deliveries where timer_id = $1", timer
    )
    assert timedelta(hours=23) < wait <= timedelta(hours=24)


async def test_giants_from_all_sides_leave_the_process_small(
    receiver: ScriptedReceiver, database: Database, database_url: str, sql: Sql
) -> None:
    """Peak memory of an orchestrator that gets GiBs, bombs, endless heads and drips from all sides."""
    environ = {"MINOOTS_DATABASE_URL": database_url}
    await switch_events_off(sql)
    paths = ["/huge/200", "/huge/500", "/bomb", "/giant_head", "/giant_line", "/drip", "/silent"]

    async def play(many: int) -> None:
        for path in paths:
            actions = bundle(webhook(receiver.url(path), timeoutMs=2_000), maxAttempts=1)
            # Each of a tenant of its own: no lane is held back for what the others do.
            await sql.execute(_INSERT, many, path, json.dumps(actions))

    async with RoleProcess(["kernel"], environ), RoleProcess(["orchestrator"], environ) as orchestrator:
        await play(1)
        await eventually(ended(sql, len(paths)), seconds=LONG)
        before = _peak_mib(orchestrator.pid)
        await play(40)
        await eventually(ended(sql, len(paths) * 41), seconds=2 * LONG)
        grown = _peak_mib(orchestrator.pid) - before
    assert grown < 96, f"{grown} MiB more at the peak"
    assert await count(sql, "true", "attempts") == len(paths) * 41
    assert not await count(sql, "octet_length(excerpt) > 16384 or char_length(excerpt) > 4096", "attempts")


def _peak_mib(pid: int) -> int:
    """The most memory that the process has had (proc(5): VmHWM, in KiB)."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10
