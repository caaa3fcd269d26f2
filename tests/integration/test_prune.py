"""Pruning beside the traffic: killed in the middle, several at once, while timers fire, and by command."""

import asyncio
import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from minoots.clock import SystemClock
from minoots.domain.retention import Retention
from minoots.kernel.prune import SHARE, EndedPruner
from minoots.store.database import Database
from tests.support.ended import CALL, fail, left, pass_time, recur, settle
from tests.support.life import fire
from tests.support.processes import ROOT, RoleProcess
from tests.support.timers import Sql, count, fired_exactly_once, insert_timers
from tests.support.waiting import eventually

SHORT = {"MINOOTS_RETENTION": "2s"}


async def test_a_kernel_prunes_what_ended_and_leaves_the_rest(database_url: str, sql: Sql, database: Database) -> None:
    await settle(sql, database, 20)
    recurring = await recur(sql, 5)
    waiting = await insert_timers(sql, 7, after_s=3600, actions=CALL)
    await insert_timers(sql, 3, actions=CALL)
    assert (await fire(database)).fired == 3
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url, **SHORT}):
        assert await count(sql, "status = 'settled'") == 20
        await eventually(lambda: _is_left(sql, timers=11, firings=3, deliveries=3), seconds=15)
    assert await count(sql, "status = 'scheduled'") == 8
    assert await sql.fetchval("select count(*) from minoots.timers where id = any($1)", [*waiting, recurring]) == 8


async def test_killed_in_the_middle_it_loses_nothing_but_what_is_past_retention(
    database_url: str, sql: Sql, database: Database
) -> None:
    await settle(sql, database, 150)
    await pass_time(sql, "31 days")
    kept = await settle(sql, database, 50)
    before = await left(sql)
    environ = {"MINOOTS_DATABASE_URL": database_url}
    async with RoleProcess(["kernel"], environ, crash_at="before-prune-commit") as victim:
        await victim.wait()
    assert await left(sql) == before, "what it had removed is there again, whole"
    async with RoleProcess(["kernel"], environ):
        await eventually(lambda: _is_left(sql, timers=50, firings=50, deliveries=50, attempts=50), seconds=15)
    await fired_exactly_once(sql, kept)


async def test_a_stopped_pruner_holds_nobody_up(database_url: str, sql: Sql, database: Database) -> None:
    """Its transaction ends by itself, and another removes what it held."""
    await settle(sql, database, 50)
    await pass_time(sql, "31 days")
    environ = {"MINOOTS_DATABASE_URL": database_url}
    async with RoleProcess(["kernel"], environ, crash_at="stop:before-prune-commit") as victim:
        await eventually(lambda: _is_stopped(victim))
        other = EndedPruner(database, SystemClock(), Retention())
        assert await other.run_once() == 0
        herd = await insert_timers(sql, 50)
        assert (await fire(database)).fired == 50
        await fired_exactly_once(sql, herd)

        async def goes() -> bool:
            await other.tick_again()
            return await count(sql, "status = 'settled'") == 0

        await eventually(goes, seconds=10)


async def test_several_at_once_share_the_work_and_remove_nothing_twice(sql: Sql, database: Database) -> None:
    await settle(sql, database, 300)
    await fail(sql, database, 20)
    await pass_time(sql, "31 days")
    await recur(sql, 40)
    pruners = [EndedPruner(database, SystemClock(), Retention(), batch=20) for _ in range(3)]

    async def work(one: EndedPruner) -> int:
        gone = 0
        for _ in range(40):
            gone += await one.run_once()
        return gone

    went = await asyncio.gather(*(work(one) for one in pruners))
    for one in pruners:
        # What one has passed by because another held it that then removed it is nobody's any more.
        await one.tick_again()
    assert sum(went) == 300
    assert await left(sql) == {"timers": 21, "firings": 60, "deliveries": 60, "attempts": 60}


async def test_timers_fire_on_while_their_predecessors_are_pruned(
    database_url: str, sql: Sql, database: Database
) -> None:
    await settle(sql, database, 400)
    async with RoleProcess(["kernel"], {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_RETENTION": "settled=1s"}):
        timers = await insert_timers(sql, 1500, after_s=0.5, apart_s=0.002, actions=CALL)
        await eventually(lambda: _has_fired(sql, 1500), seconds=20)
        await eventually(lambda: _is_left(sql, timers=1500, firings=1500, deliveries=1500), seconds=10)
    await fired_exactly_once(sql, timers)


async def test_it_rests_between_batches_and_for_long_when_there_is_nothing(sql: Sql, database: Database) -> None:
    await settle(sql, database, 60)
    await pass_time(sql, "31 days")
    clock = SystemClock()
    one = EndedPruner(database, clock, Retention(), batch=20)
    began = clock.monotonic()
    rest = await one.tick()
    took = clock.monotonic() - began
    assert rest > 0
    assert rest == pytest.approx(took * (1 / SHARE - 1), rel=0.5)
    await one.tick()
    await one.tick()
    assert await one.tick() == 60.0
    assert await EndedPruner(database, clock, Retention(fired=timedelta(seconds=20))).tick() == 2.0
    assert await EndedPruner(database, clock, Retention(fired=timedelta(seconds=1))).tick() == 1.0
    assert await EndedPruner(database, clock, Retention(None, None, None, None)).tick() == 60.0


async def _is_stopped(process: RoleProcess) -> bool:
    return process.is_stopped


async def _is_left(sql: Sql, **counts: int) -> bool:
    return await left(sql) == counts


async def _has_fired(sql: Sql, many: int) -> bool:
    return await count(sql, "status = 'dispatching'", "firings") == many


# ---- the command ----


def minoots(url: str, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")}
    return subprocess.run(
        [sys.executable, "-m", "minoots", "retention", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "MINOOTS_DATABASE_URL": url, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def in_force(url: str, *arguments: str, **environ: str) -> dict[tuple[str, str], tuple[float | None, str]]:
    shown = minoots(url, "show", "--json", *arguments, **environ)
    assert shown.returncode == 0, shown.stderr
    return {(one["tenant"], one["status"]): (one["keepSeconds"], one["from"]) for one in json.loads(shown.stdout)}


async def test_the_command_shows_sets_and_takes_back(database_url: str) -> None:
    day = 86_400
    assert in_force(database_url)["*", "failed"] == (90 * day, "default")
    assert in_force(database_url, MINOOTS_RETENTION="failed=5d")["*", "failed"] == (5 * day, "MINOOTS_RETENTION")
    assert minoots(database_url, "set", "settled=7d,failed=off").returncode == 0
    assert minoots(database_url, "set", "1d", "--tenant", "acme").returncode == 0
    shown = in_force(database_url, MINOOTS_RETENTION="failed=5d")
    assert shown["*", "failed"] == (None, "a rule for all")
    assert shown["*", "fired"] == (30 * day, "default")
    assert shown["acme", "failed"] == (day, "a rule of the tenant")
    assert minoots(database_url, "clear", "failed", "--tenant", "acme").stdout == "1 rule of tenant acme taken back\n"
    assert in_force(database_url, "--tenant", "acme") == {
        ("acme", "settled"): (day, "a rule of the tenant"),
        ("acme", "failed"): (None, "a rule for all"),
        ("acme", "cancelled"): (day, "a rule of the tenant"),
        ("acme", "fired"): (day, "a rule of the tenant"),
    }
    assert minoots(database_url, "clear").returncode == 0
    assert in_force(database_url)["*", "failed"] == (90 * day, "default")
    table = minoots(database_url, "show").stdout.splitlines()
    assert table[0].split() == ["TENANT", "STATUS", "KEPT", "BY"]
    assert table[2].split() == ["*", "failed", "90", "d", "default"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "tomorrow"], "write it as 30d, 12h or 10s, or off"),
        (["set", "done=1d"], "there are settled, failed, cancelled, fired"),
        (["set", "1d", "--tenant", "a b"], "is no tenant"),
        (["clear", "done"], "done"),
    ],
)
async def test_a_wrong_command_line_is_answered_with_a_right_one(
    arguments: list[str], words: str, database_url: str
) -> None:
    refused = minoots(database_url, *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_without_a_database_it_says_what_to_set() -> None:
    assert "MINOOTS_DATABASE_URL" in minoots("", "show").stderr
    assert minoots("postgresql://minoots@127.0.0.1:1/none", "show").returncode == 5
