"""The client commands as people run them: real processes against the roles as real processes."""

import asyncio
import json
import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from minoots.embedded.ports import free_port
from tests.support.processes import ROOT, RoleProcess
from tests.support.receiver import Receiver
from tests.support.waiting import eventually

# ---- fixtures: the roles over this test's database; the program ----


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Program:
    """`python -m minoots` against one address, with nothing else of this machine's environment."""

    environ: dict[str, str]

    async def start(self, *arguments: str, **environ: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "minoots",
            *arguments,
            env={**self.environ, **environ},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, **environ: str) -> Ended:
        process = await self.start(*arguments, **environ)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        assert b"Traceback" not in err, err.decode()
        return Ended(process.returncode, out.decode(), err.decode())

    async def created(self, *arguments: str) -> str:
        """The id of a new timer."""
        made = await self("timer", "create", *arguments, "--json")
        assert made.code == 0, made.err
        return str(made.json["id"])


def program_for(address: str) -> Program:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "COVERAGE_PROCESS_CONFIG")}
    return Program({**kept, "PYTHONPATH": str(ROOT), "MINOOTS_API_ADDRESS": address})


@pytest.fixture
def serving(database_url: str) -> dict[str, str]:
    """The environment of the roles."""
    return {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_API_ADDRESS": f"127.0.0.1:{free_port()}"}


@pytest.fixture
async def minoots(serving: dict[str, str]) -> AsyncIterator[Program]:
    """The program, with a REST door at the address that it looks at."""
    async with RoleProcess(["api"], serving):
        program = program_for(serving["MINOOTS_API_ADDRESS"])

        async def answers() -> bool:
            return (await program("timer", "list")).code == 0

        await eventually(answers)
        yield program


@pytest.fixture
async def firing(minoots: Program, serving: dict[str, str]) -> AsyncIterator[Program]:
    """The program, with everything that fires and delivers as well."""
    async with RoleProcess(["kernel"], serving), RoleProcess(["orchestrator"], serving):
        yield minoots


# ---- create, get, list, cancel ----


async def test_a_created_timer_is_shown_and_listed(minoots: Program) -> None:
    made = await minoots("timer", "create", "1h", "coffee-break", "--label", "team=kitchen", "--metadata", '{"n": 1.0}')
    assert made.code == 0
    assert "coffee-break" in made.out
    timer_id = re.search(r"[0-9a-f-]{36}", made.out)
    assert timer_id
    timer = (await minoots("timer", "get", timer_id[0], "--json")).json
    assert (timer["status"], timer["tenantId"], timer["durationMs"]) == ("scheduled", "demo", 3_600_000)
    assert timer["labels"] == {"team": "kitchen"}
    assert timer["requestedBy"]
    listed = await minoots("timer", "list", "--label", "team:kitchen", "--status", "scheduled")
    assert timer_id[0] in listed.out
    assert re.search(r"scheduled\s+in (1 h|59 min)", listed.out)
    assert "\x1b" not in listed.out


async def test_an_instant_a_bundle_and_a_person_may_be_given(minoots: Program, tmp_path: Path) -> None:
    bundle = {"actions": [{"id": "call", "kind": "webhook", "parameters": {"url": "http://127.0.0.1:9/"}}]}
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(bundle))
    options = ["--at", "2090-01-31T09:00:00+01:00", "tea", "--action-bundle", str(file), "--requested-by", "ann"]
    made = (await minoots("timer", "create", *options, "--tenant", "acme", "--json")).json
    assert made["fireAt"].startswith("2090-01-31T08:00:00")
    assert (made["name"], made["requestedBy"], made["tenantId"]) == ("tea", "ann", "acme")
    assert made["actionBundle"] == bundle
    assert (await minoots("timer", "get", made["id"])).code == 3, "another tenant's"
    assert (await minoots("timer", "get", made["id"], MINOOTS_TENANT="acme")).code == 0


async def test_a_key_makes_a_repeated_create_one_timer(minoots: Program) -> None:
    first = await minoots.created("1h", "--idempotency-key", "k")
    assert await minoots.created("1h", "--idempotency-key", "k") == first
    assert (await minoots("timer", "create", "2h", "--idempotency-key", "k")).code == 4


async def test_a_list_goes_on_past_a_page_and_says_when_there_is_more(
    minoots: Program, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await sql.execute(
        "insert into minoots.timers (tenant_id, name, fire_at) "
        "select 'demo', 't' || n, minoots.now() + interval '1 day' from generate_series(1, 1203) n"
    )
    short = await minoots("timer", "list", "--limit", "3")
    assert len(short.out.splitlines()) == 4
    assert "--all" in short.err
    everything = (await minoots("timer", "list", "--all", "--json")).json
    assert len({timer["id"] for timer in everything["items"]}) == 1203
    assert everything["nextCursor"] is None
    some = (await minoots("timer", "list", "--limit", "700", "--json")).json
    assert len(some["items"]) == 700
    assert some["nextCursor"]
    assert (await minoots("timer", "list", "--name", "t7", "--json")).json["items"][0]["name"] == "t7"


async def test_cancel_answers_the_same_twice(minoots: Program) -> None:
    timer_id = await minoots.created("1h")
    for _ in range(2):
        done = await minoots("timer", "cancel", timer_id, "--reason", "no more", "--json")
        assert done.code == 0
        assert (done.json["status"], done.json["cancelReason"]) == ("cancelled", "no more")


# ---- recurring timers, and changes ----


async def test_a_schedule_is_created_shown_and_listed(minoots: Program) -> None:
    cron = ("--cron", "0 9 * * 1-5", "--timezone", "Europe/Berlin")
    made = await minoots("timer", "create", *cron, "standup")
    assert made.code == 0, made.err
    assert re.search(
        r"standup  scheduled.*next +\d{4}.*, in .*schedule +cron 0 9 \* \* 1-5 Europe/Berlin", made.out, re.S
    )
    timer = (await minoots("timer", "list", "--name", "standup", "--json")).json["items"][0]
    assert timer["schedule"] == {"specs": [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}]}
    await minoots.created("1h", "once")
    listed = (await minoots("timer", "list")).out.splitlines()
    assert listed[0].split() == ["ID", "STATUS", "DUE", "SCHEDULE", "NAME"]
    assert re.search(r"in .*  cron 0 9 \* \* 1-5 Europe/Berlin  standup$", listed[2])
    whole = {"specs": [{"every": "1h"}], "maxOccurrences": 3}
    made = await minoots("timer", "create", "--schedule", json.dumps(whole), "--json")
    assert made.json["schedule"] == whole


async def test_a_preview_shows_what_a_zone_does_to_a_schedule(minoots: Program) -> None:
    options = ["--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--after", "2026-03-27T12:00:00Z", "-n", "3"]
    shown = await minoots("timer", "preview", *options)
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert len(lines) == 4
    assert re.match(r"2026-03-29T03:00:00\+02:00  .*2026-03-29T01:00:00.*02:30", lines[2])
    items = (await minoots("timer", "preview", *options, "--json")).json["items"]
    assert [item["local"] for item in items][1:] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    never = await minoots("timer", "preview", "--cron", "0 0 30 2 *")
    assert (never.code, never.out) == (4, "")


async def test_pause_resume_reschedule_and_fire(minoots: Program) -> None:
    timer_id = await minoots.created("1h", "tea")
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "scheduled"), ("resume", "scheduled")):
        done = await minoots("timer", verb, timer_id, "--json")
        assert (done.code, done.json["status"]) == (0, status), done.err
    moved = (await minoots("timer", "reschedule", timer_id, "2h", "--json")).json
    assert moved["durationMs"] == 7_200_000
    moved = (await minoots("timer", "reschedule", timer_id, "--at", "2090-01-31T09:00:00Z", "--json")).json
    assert (moved["durationMs"], moved["fireAt"][:10]) == (None, "2090-01-31")
    moved = await minoots("timer", "reschedule", timer_id, "--every", "15m")
    assert "every 15m" in moved.out
    fired = (await minoots("timer", "fire", timer_id, "--json")).json
    assert (fired["status"], fired["occurrence"]) == ("scheduled", 1)
    assert "fired" in (await minoots("timer", "get", timer_id)).out
    once = await minoots.created("1h")
    assert (await minoots("timer", "fire", once, "--json")).json["status"] == "fired"
    for verb in ("pause", "resume", "fire"):
        assert (await minoots("timer", verb, once)).code == 4, verb
    assert (await minoots("timer", "resume", timer_id, "--catch-up")).code == 0


async def test_update_replaces_what_is_given_and_minds_the_version(minoots: Program) -> None:
    timer_id = await minoots.created("1h", "tea", "--label", "a=1", "--metadata", '{"n": 1}')
    done = await minoots(
        "timer", "update", timer_id, "--name", "coffee", "--label", "b=2", "--clear", "metadata", "--json"
    )
    assert (done.json["name"], done.json["labels"], done.json["metadata"]) == ("coffee", {"b": "2"}, None)
    assert (done.json["durationMs"], done.json["version"]) == (3_600_000, 2)
    stale = await minoots("timer", "update", timer_id, "2h", "--if-version", "1")
    assert (stale.code, stale.out) == (4, "")
    moved = await minoots("timer", "update", timer_id, "2h", "--if-version", "2", "--json")
    assert (moved.json["durationMs"], moved.json["name"]) == (7_200_000, "coffee")


async def test_put_makes_one_timer_however_often(minoots: Program) -> None:
    nightly = ("timer", "put", "nightly / db: ü", "--cron", "0 3 * * *", "--json")
    first, again = await minoots(*nightly, "--label", "a=1"), await minoots(*nightly)
    assert (first.code, again.code) == (0, 0), again.err
    assert first.json["name"] == "nightly / db: ü"
    assert (again.json["id"], again.json["fireAt"]) == (first.json["id"], first.json["fireAt"])
    assert again.json["labels"] == {}
    assert len((await minoots("timer", "list", "--json")).json["items"]) == 1
    assert (await minoots(*nightly, "--if-version", "1")).code == 4


async def test_a_watched_recurring_timer_goes_on_after_it_fires(firing: Program) -> None:
    async with Receiver() as receiver:
        schedule = json.dumps({"every": "1s", "maxOccurrences": 4})
        options = ("--schedule", schedule, "--webhook", receiver.url(), "beat")
        timer_id = await firing.created(*options)
        some = await firing("timer", "watch", timer_id, "--firings", "1", "--timeout", "30s")
        rest = await firing("timer", "watch", timer_id, "--timeout", "60s")
    assert (some.code, rest.code) == (0, 0), (some.err, rest.err)
    assert re.search(
        r"scheduled  every 1s, next: .*; watching for 1 firing.*fired  occurrence \d: late by.*"
        r"attempt 1: delivered, 200.*settled  occurrence \d",
        some.out,
        re.S,
    )
    assert "settled" in rest.out.splitlines()[-1]
    timer = (await firing("timer", "get", timer_id, "--json")).json
    assert (timer["status"], timer["occurrence"]) == ("settled", 4)


# ---- exit codes ----


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["timer", "create", "banana"], 2),
        (["timer", "create", "0s"], 4),
        (["timer", "create", "--at", "2020-01-01T00:00:00Z"], 4),
        (["timer", "create", "5s", "--webhook", "ftp://x"], 4),
        (["timer", "create", "5s", "--metadata", "[1]"], 4),
        (["timer", "create", "5s", "x" * 201], 4),
        (["timer", "get", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "get", "none"], 3),
        (["timer", "pause", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "fire", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "reschedule", "0197f3a0-0000-7000-8000-000000000000", "5s"], 3),
        (["timer", "update", "0197f3a0-0000-7000-8000-000000000000", "--name", "x"], 3),
        (["timer", "create", "--cron", "61 * * * *"], 4),
        (["timer", "create", "--every", "0s"], 4),
        (["timer", "put", "nightly", "--cron", "0 0 30 2 *"], 4),
        (["timer", "watch", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "firings", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "cancel", "0197f3a0-0000-7000-8000-000000000000"], 3),
        (["timer", "list", "--tenant", "no tenant"], 4),
        (["timer", "list", "--due-before", "tomorrow"], 4),
    ],
)
async def test_a_refusal_is_a_sentence_and_an_exit_code(minoots: Program, arguments: list[str], code: int) -> None:
    refused = await minoots(*arguments)
    assert refused.code == code
    assert refused.out == ""
    assert refused.err.startswith("minoots: ")


async def test_a_wrong_key_is_refused_with_the_setting_to_look_at(minoots: Program) -> None:
    refused = await minoots("timer", "list", MINOOTS_API_KEY="wrong")
    assert refused.code == 4
    assert "MINOOTS_API_KEY" in refused.err


async def test_no_server_is_said_with_what_to_do() -> None:
    ended = await program_for(f"127.0.0.1:{free_port()}")("timer", "list")
    assert ended.code == 5
    assert "start one with `make up` or set MINOOTS_API_URL" in ended.err


async def test_a_server_that_is_no_minoots_is_told_apart() -> None:
    async def answer(_: web.Request, __: int) -> web.Response:
        return web.Response(text="hello")

    async with Receiver(answer=answer) as other:
        ended = await program_for(f"127.0.0.1:{other.port}")("timer", "list")
    assert ended.code == 5
    assert "is no MINOOTS" in ended.err


async def test_a_server_that_goes_away_before_it_answers_leaves_it_open() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, family=socket.AF_INET) as server:
        program = program_for(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        made, seen = await program("timer", "create", "1h"), await program("timer", "list")
    assert (made.code, seen.code) == (5, 5)
    assert "whether it was carried out is not known" in made.err
    assert "not known" not in seen.err


# ---- firing, watching ----


async def test_a_watched_timer_tells_its_way_and_ends_well(firing: Program) -> None:
    async def once_away(_: web.Request, nth: int) -> web.Response:
        return web.Response(status=503 if nth == 1 else 200, text="\x1b[31msorry\x1b[0m")

    bundle = {"retryPolicy": {"backoffInitialMs": 50}, "actions": [{"id": "call", "kind": "webhook"}]}
    async with Receiver(answer=once_away) as receiver:
        bundle["actions"][0]["parameters"] = {"url": receiver.url()}
        timer_id = await firing.created("1s", "coffee-break", "--action-bundle", json.dumps(bundle))
        seen = await firing("timer", "watch", timer_id, "--timeout", "30s")
    assert seen.code == 0, seen.err
    assert re.search(
        r"scheduled  due in.*fired  late by.*attempt 1: retry, 503.*attempt 2: delivered.*settled", seen.out, re.S
    )
    assert "\x1b" not in seen.out
    firings = (await firing("timer", "firings", timer_id, "--json")).json
    assert [f["occurrence"] for f in firings["items"]] == [1]
    one = await firing("timer", "firings", timer_id, "1")
    assert re.search(r"attempt 1\s+retry, 503.*attempt 2\s+delivered, 200", one.out, re.S)
    assert (await firing("timer", "firings", timer_id, "2")).code == 3
    assert (await firing("timer", "cancel", timer_id)).code == 4, "it has fired"


async def test_a_timer_without_actions_ends_where_it_fires(firing: Program) -> None:
    seen = await firing("timer", "watch", await firing.created("300ms"), "--timeout", "30", "--json")
    assert (seen.code, seen.json["status"]) == (0, "fired")


async def test_a_watched_timer_that_fails_is_exit_code_1(firing: Program) -> None:
    async def gone(_: web.Request, __: int) -> web.Response:
        return web.Response(status=410)

    async with Receiver(answer=gone) as receiver:
        timer_id = await firing.created("200ms", "--webhook", receiver.url())
        seen = await firing("timer", "watch", timer_id, "--timeout", "30s")
    assert seen.code == 1
    assert re.search(r"rejected, 410.*webhook is dead.*failed", seen.out, re.S)


async def test_what_gave_up_is_listed_and_opened_again(firing: Program) -> None:
    statuses = [410]

    async def answer(_: web.Request, __: int) -> web.Response:
        return web.Response(status=statuses[0])

    async with Receiver(answer=answer) as receiver:
        timer_id = await firing.created("0.1s", "--webhook", receiver.url())
        assert (await firing("timer", "watch", timer_id, "--timeout", "60s")).code == 1
        listed = await firing("dead-letters", "list", "--timer", timer_id, "--reason", "410")
        (delivery,) = re.findall(rf"{timer_id}/1/[a-z0-9-]+", listed.out)
        assert (await firing("dead-letters", "redrive", "--all", "--dry-run")).out == "1 would be opened again\n"
        statuses[0] = 200
        assert (await firing("dead-letters", "redrive", delivery)).out == "1 opened again\n"
        assert (await firing("timer", "watch", timer_id, "--timeout", "60s")).code == 0
    assert receiver.requests[-1].headers["x-minoots-redrive"] == "1"
    assert "nothing" in (await firing("dead-letters", "list")).out
    assert (await firing("dead-letters", "redrive", delivery)).code == 4
    assert (await firing("dead-letters", "redrive")).code == 2
    assert (await firing("dead-letters", "redrive", "x")).code == 2


async def test_a_cancelled_timer_ends_its_watch_with_1(minoots: Program) -> None:
    timer_id = await minoots.created("1h")
    watching = await minoots.start("timer", "watch", timer_id)
    assert watching.stdout is not None
    assert b"scheduled" in await asyncio.wait_for(watching.stdout.readline(), 20)
    await minoots("timer", "cancel", timer_id, "--reason", "rain", "--requested-by", "ann")
    async with asyncio.timeout(20):
        out, _ = await watching.communicate()
    assert watching.returncode == 1
    assert "cancelled  by ann: rain" in out.decode()


async def test_a_watch_ends_when_its_time_is_up(minoots: Program) -> None:
    seen = await minoots("timer", "watch", await minoots.created("1h"), "--timeout", "500ms")
    assert seen.code == 1
    assert "still scheduled" in seen.err


async def test_ctrl_c_ends_a_watch_quietly(minoots: Program) -> None:
    watching = await minoots.start("timer", "watch", await minoots.created("1h"))
    assert watching.stdout is not None
    await asyncio.wait_for(watching.stdout.readline(), 20)
    watching.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        _, err = await watching.communicate()
    assert watching.returncode == 130
    assert err == b""


async def test_a_watch_outlives_a_restart_of_the_server(serving: dict[str, str]) -> None:
    program = program_for(serving["MINOOTS_API_ADDRESS"])
    async with RoleProcess(["api"], serving) as api, RoleProcess(["kernel"], serving):

        async def answers() -> bool:
            return (await program("timer", "list")).code == 0

        await eventually(answers)
        watching = await program.start("timer", "watch", await program.created("4s"))
        assert watching.stdout is not None
        assert watching.stderr is not None
        await asyncio.wait_for(watching.stdout.readline(), 20)
        await api.kill()
        assert b"waiting for it" in await asyncio.wait_for(watching.stderr.readline(), 20)
        async with RoleProcess(["api"], serving), asyncio.timeout(30):
            out, err = await watching.communicate()
    assert watching.returncode == 0, err
    assert "fired" in out.decode()


async def test_a_terminal_has_colours_and_keeps_the_id_whole(minoots: Program) -> None:
    timer_id = await minoots.created("1h", "a name that is longer than what is left of a narrow terminal")
    reader, writer = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "minoots", "timer", "list"),
            env={**minoots.environ, "TERM": "xterm-256color", "COLUMNS": "50"},
            stdout=writer,
        )
        assert await asyncio.wait_for(process.wait(), 30) == 0
        shown = os.read(reader, 65_536).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert timer_id in shown
    assert "\x1b[36mscheduled" in shown


# ---- import ----


def old_timer(old_id: str, **change: Any) -> dict[str, Any]:
    soon = datetime.now(UTC) + timedelta(hours=1)
    return {
        "id": old_id,
        "tenantId": "demo",
        "requestedBy": "cli",
        "name": f"name of {old_id}",
        "durationMs": 3_600_000,
        "createdAt": (soon - timedelta(hours=1)).isoformat(),
        "fireAt": soon.isoformat(),
        "status": "scheduled",
        "metadata": {"note": "brew"},
        "labels": {},
        "actionBundle": None,
        "agentBinding": None,
    } | change


def written(tmp_path: Path, store: Any) -> str:
    file = tmp_path / "store.json"
    file.write_text(json.dumps(store))
    return str(file)


async def test_an_import_takes_what_waits_and_says_why_it_left_the_rest(minoots: Program, tmp_path: Path) -> None:
    store = [
        old_timer("waits"),
        old_timer("überfällig: ☕", fireAt="2025-01-01T00:00:00Z", status="ARMED"),
        old_timer("over", status="fired"),
        old_timer("wrong", actionBundle={"actions": [{"type": "webhook", "params": {"url": "ftp://x"}}]}),
        old_timer("other", tenantId="acme"),
        old_timer("nowhere", tenantId="no tenant"),
    ]
    file = written(tmp_path, store)
    dry = await minoots("import", file, "--dry-run", "--json")
    assert dry.json["summary"]["dryRun"] is True
    assert (await minoots("timer", "list", "--json")).json["items"] == []
    first = await minoots("import", file, "--json", TIMER_STORE_PATH=file)
    assert first.code == 4, "some broke a rule"
    outcomes = {item["id"]: item["outcome"] for item in first.json["items"]}
    assert outcomes == {
        "waits": "taken",
        "überfällig: ☕": "overdue",
        "over": "ended",
        "wrong": "refused",
        "other": "taken",
        "nowhere": "refused",
    }
    assert len((await minoots("timer", "list", "--json")).json["items"]) == 2
    assert len((await minoots("timer", "list", "--tenant", "acme", "--json")).json["items"]) == 1
    taken = (await minoots("timer", "list", "--label", "imported-from:waits", "--json")).json["items"][0]
    assert datetime.fromisoformat(taken["fireAt"]) == datetime.fromisoformat(store[0]["fireAt"])
    shown = await minoots("import", file)
    assert re.search(r"überfällig: ☕\s+left.*imported before", shown.out)
    assert "taken 0, left 4 (1 had ended, 3 were here already), refused 2; of 6 timers" in shown.out
    assert len((await minoots("timer", "list", "--json")).json["items"]) == 2


async def test_an_overdue_timer_of_the_store_fires_and_delivers(firing: Program, tmp_path: Path) -> None:
    async with Receiver() as receiver:
        actions = [{"type": "webhook", "payload": {"url": receiver.url()}}]
        late = old_timer("late", fireAt=1_735_689_600_000, actionBundle={"actions": actions})
        taken = await firing("import", written(tmp_path, {"timers": {"late": late}}), "--json")
        assert taken.code == 0, taken.err
        seen = await firing("timer", "watch", taken.json["items"][0]["timerId"], "--timeout", "30s")
        assert seen.code == 0, seen.out
        assert len(receiver.requests) == 1


async def test_two_imports_at_once_take_each_timer_once(minoots: Program, tmp_path: Path) -> None:
    file = written(tmp_path, [old_timer(f"t{n}") for n in range(40)])
    both = await asyncio.gather(minoots("import", file), minoots("import", file))
    assert [ended.code for ended in both] == [0, 0]
    assert len((await minoots("timer", "list", "--all", "--json")).json["items"]) == 40


async def test_an_import_that_lost_its_server_is_completed_by_a_second(
    minoots: Program, serving: dict[str, str], tmp_path: Path
) -> None:
    """The server takes the third timer and dies before it answers."""
    upstream = f"http://{serving['MINOOTS_API_ADDRESS']}"
    posts = 0

    async def forward(request: web.Request, _: int) -> web.StreamResponse:
        nonlocal posts
        posts += request.method == "POST"
        if posts <= 3:
            headers = {
                n: v for n, v in request.headers.items() if n in ("X-API-Key", "Content-Type", "Idempotency-Key")
            }
            asked = upstream + request.path_qs
            async with client.request(request.method, asked, headers=headers, data=await request.read()) as answer:
                content = await answer.read()
                if posts < 3:
                    return web.Response(body=content, status=answer.status, content_type=answer.content_type)
        posts = 4
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    file = written(tmp_path, {f"t{n}": old_timer(f"t{n}") for n in range(6)})
    async with aiohttp.ClientSession() as client, Receiver(answer=forward) as front:
        broken = await program_for(f"127.0.0.1:{front.port}")("import", file)
    assert broken.code == 5
    assert "run it again" in broken.err
    assert "taken 2, left 0" in broken.out
    again = await minoots("import", file)
    assert again.code == 0
    assert "taken 3, left 3" in again.out
    assert len((await minoots("timer", "list", "--json")).json["items"]) == 6


async def test_a_file_that_is_none_is_a_usage_error(minoots: Program, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('[{"id": ')
    for file in (tmp_path / "none.json", broken, tmp_path):
        ended = await minoots("import", str(file))
        assert ended.code == 2
        assert str(file) in ended.err
