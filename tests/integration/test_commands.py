"""Commands, with real programs: what they are told, what their end means, and that nothing of them is left behind."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from minoots.clock import SystemClock
from minoots.kernel.firing import Kernel
from minoots.store.database import Database
from tests.support.processes import RoleProcess
from tests.support.timers import Sql, bundle, count, insert_timers, switch_events_off
from tests.support.waiting import eventually

SECRET = "a-secret-of-the-orchestrator"
ONCE = {"maxAttempts": 1}


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code.replace("{", "{{").replace("}", "}}"), *arguments]


def run(name: str, action_id: str = "call", **arguments: Any) -> dict[str, Any]:
    parameters: dict[str, Any] = {"name": name} | ({"arguments": arguments} if arguments else {})
    return {"id": action_id, "kind": "command", "parameters": parameters}


class Running:
    """An orchestrator that may run these commands, as a process of its own, without NATS."""

    def __init__(self, url: str, database: Database, sql: Sql, path: Path) -> None:
        self._database = database
        self._sql = sql
        self._path = path
        self.environ = {
            "MINOOTS_DATABASE_URL": url, "MINOOTS_COMMANDS_PATH": str(path), "MINOOTS_LEASE_MARGIN_MS": "1000",
            "SOME_PASSWORD": SECRET, "NATS_URL": "",
        }  # fmt: skip
        self.process = RoleProcess(["orchestrator"], self.environ)

    def allow(self, commands: dict[str, Any]) -> None:
        self._path.write_text(json.dumps(commands))

    async def start(self, commands: dict[str, Any]) -> None:
        self.allow(commands)
        await switch_events_off(self._sql)
        await self.process.start()
        assert self.process.logged("started"), self.process.lines

    async def fire(self, *actions: dict[str, Any], policy: dict[str, Any] | None = None) -> UUID:
        (timer,) = await insert_timers(self._sql, 1, actions=bundle(*actions, **(policy or ONCE)))
        kernel = Kernel(self._database, SystemClock(), 500)
        while (await kernel.run_once()).claimed:
            pass
        return timer

    async def attempts(self, timer: UUID, action_id: str = "call") -> list[Any]:
        statement = "select * from minoots.attempts where timer_id = $1 and action_id = $2 order by attempt"
        return list(await self._sql.fetch(statement, timer, action_id))

    async def settled(self, many: int = 1) -> None:
        async def are_settled() -> bool:
            return await count(self._sql, "status in ('settled', 'failed')") == many

        await eventually(are_settled, 60)

    async def outcome(self, *actions: dict[str, Any]) -> Any:
        """The one attempt of the action that is fired."""
        before = await count(self._sql, "status in ('settled', 'failed')")
        timer = await self.fire(*actions)
        await self.settled(before + 1)
        (attempt,) = await self.attempts(timer)
        return attempt


@pytest.fixture
async def running(database_url: str, database: Database, sql: Sql, tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(database_url, database, sql, tmp_path / "commands.json")
    yield made
    await made.process.kill()


async def test_the_exit_code_is_the_outcome(running: Running) -> None:
    code = {"code": {"type": "integer"}}
    exits = {"argv": python("import sys; print('so long'); sys.exit(int(sys.argv[1]))", "{code}"), "parameters": code}
    dies = {"argv": python("import os; os.kill(os.getpid(), 11)")}
    await running.start(
        {
            "exits": exits | {"rejectedExitCodes": [3]},
            "dies": dies,
            "missing": {"argv": ["/no/such/program"]},
            "nowhere": {"argv": ["true"], "cwd": "/no/such/folder"},
        }
    )
    attempt = await running.outcome(run("exits", code=0))
    assert (attempt["outcome"], attempt["error"], attempt["excerpt"]) == ("delivered", None, "so long\n")
    attempt = await running.outcome(run("exits", code=3))
    assert (attempt["outcome"], attempt["error"]) == ("rejected", "exit code 3")
    attempt = await running.outcome(run("exits", code=4))
    assert (attempt["outcome"], attempt["error"]) == ("retry", "exit code 4")
    attempt = await running.outcome(run("dies"))
    assert (attempt["outcome"], attempt["error"]) == ("retry", "the command was killed by SIGSEGV")
    for name in ("missing", "nowhere"):
        attempt = await running.outcome(run(name))
        assert attempt["outcome"] == "retry"
        assert f"the command {name} cannot be started (No such file or directory)" in attempt["error"]
        assert "/no/such" not in attempt["error"]


async def test_what_plain_sql_wrote_and_nobody_can_run_says_why(running: Running) -> None:
    await running.start({"hello": {"argv": ["echo", "{text}"], "parameters": {"text": {"type": "string"}}}})
    for action, words in ((run("hullo"), "no command 'hullo'"), (run("hello"), "needs the argument text"),
                          (run("hello", text="-n"), "begin with -")):  # fmt: skip
        attempt = await running.outcome(action)
        assert attempt["outcome"] == "rejected"
        assert words in attempt["error"]


TELLS = """
import json, os, sys
files = {name: os.readlink("/proc/self/fd/" + name) for name in os.listdir("/proc/self/fd")
         if os.path.lexists("/proc/self/fd/" + name)}
leads = os.getpid() == os.getpgid(0) == os.getsid(0)
print(json.dumps({"argv": sys.argv[1:], "environ": dict(os.environ), "cwd": os.getcwd(), "told": json.load(sys.stdin),
                  "files": files, "leads": leads}), file=open(os.environ["OUT"], "w"))
"""


async def test_a_program_is_told_what_its_file_says_and_no_secret(running: Running, tmp_path: Path) -> None:
    text = {"type": "string", "maxLength": 100}
    await running.start(
        {
            "tells": {
                "argv": python(TELLS, "--text={text}", "{text}", "{text}{count}"),
                "parameters": {"text": text, "count": {"type": "integer"}},
                "cwd": str(tmp_path),
                "environment": {"OUT": str(tmp_path / "out.json"), "LANG": "C"},
            }
        }
    )
    odd = "$(touch pwned); `touch pwned` && touch pwned | * ~ {count} \"'\n%s"
    timer = await running.fire(run("tells", text=odd, count=7))
    await running.settled()
    (attempt,) = await running.attempts(timer)
    assert attempt["outcome"] == "delivered", dict(attempt)
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["argv"] == [f"--text={odd}", odd, f"{odd}7"]
    assert found["cwd"] == str(tmp_path)
    assert found["leads"], "a session and a group of its own"
    assert found["told"]["timer"]["id"] == str(timer)
    assert found["told"]["event"]["data"]["firing"]["occurrence"] == 1
    found["environ"].pop("LC_CTYPE", None)  # Python sets it for itself
    assert found["environ"] == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C",
        "OUT": str(tmp_path / "out.json"), "MINOOTS_TIMER_ID": str(timer), "MINOOTS_OCCURRENCE": "1",
        "MINOOTS_ACTION_ID": "call", "MINOOTS_WEBHOOK_ID": f"{timer}_1_call",
    }  # fmt: skip
    assert {number for number, to in found["files"].items() if not to.endswith("out.json")} == {"0", "1", "2"}
    assert set(os.listdir(tmp_path)) == {"commands.json", "out.json"}
    shown = json.dumps([running.process.lines, dict(attempt)], default=str)
    assert SECRET not in shown


# Three generations, all deaf to SIGTERM; the last one's number is written down when all are there.
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
for _ in range(2):
    if os.fork():
        break
with open(sys.argv[1], "a") as out:
    out.write(f"{os.getpid()}\\n")
time.sleep(600)
"""


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    """A zombie that nobody collects is dead."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(path: Path, many: int) -> Callable[[], Awaitable[bool]]:
    async def are_gone() -> bool:
        return len(pids(path)) == many and not any(map(is_alive, pids(path)))

    return are_gone


def there(path: Path, many: int) -> Callable[[], Awaitable[bool]]:
    async def are_there() -> bool:
        return len(pids(path)) >= many

    return are_there


async def test_a_time_out_kills_the_whole_group(running: Running, tmp_path: Path) -> None:
    out = tmp_path / "pids"
    await running.start({"deaf": {"argv": python(DEAF, str(out)), "timeoutMs": 3_000}})
    attempt = await running.outcome(run("deaf"))
    assert attempt["outcome"] == "retry"
    assert attempt["error"] == "no end within 3 s; the command was killed"
    assert attempt["excerpt"] == "begun\n", "what it said before is kept"
    assert attempt["duration_ms"] >= 3_000
    await eventually(gone(out, 3), 20)


async def test_what_a_program_leaves_behind_ends_with_it(running: Running, tmp_path: Path) -> None:
    out = tmp_path / "pids"
    leaves = DEAF.replace("time.sleep(600)", "time.sleep(600 if os.getpid() != os.getsid(0) else 1)")
    await running.start({"leaves": {"argv": python(leaves, str(out)), "timeoutMs": 60_000}})
    attempt = await running.outcome(run("leaves"))
    assert attempt["outcome"] == "delivered"
    assert attempt["duration_ms"] < 30_000
    await eventually(gone(out, 3), 20)


async def test_a_program_that_prints_without_end_costs_no_memory(running: Running) -> None:
    await running.start(
        {
            "bomb": {"argv": ["yes", "\x1b[31mred\x00".replace("\x00", "")], "timeoutMs": 4_000},
            "large": {"argv": python("import sys; sys.stdout.write('x' * 20_000_000)"), "timeoutMs": 60_000},
        }
    )
    await running.outcome(run("large"))
    before = memory_of(running.process.pid)
    attempt = await running.outcome(run("bomb"))
    assert attempt["outcome"] == "retry"
    assert len(attempt["excerpt"]) == 4_096
    assert attempt["excerpt"].startswith("\\x1b[31mred\n")
    assert memory_of(running.process.pid) - before < 16_000_000
    attempt = await running.outcome(run("large"))
    assert (attempt["outcome"], len(attempt["excerpt"])) == ("delivered", 4_096)


def memory_of(pid: int) -> int:
    """The most that it has held, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def test_a_stop_ends_the_program_and_the_next_orchestrator_runs_it_again(
    running: Running, tmp_path: Path
) -> None:
    out = tmp_path / "pids"
    await running.start({"deaf": {"argv": python(DEAF, str(out)), "timeoutMs": 600_000}})
    timer = await running.fire(run("deaf"))
    await eventually(there(out, 3), 30)
    assert await running.process.stop(30) == 0
    await eventually(gone(out, 3), 20)
    running.allow({"deaf": {"argv": ["true"]}})
    running.process = RoleProcess(["orchestrator"], running.environ)
    await running.process.start()
    await running.settled()
    assert [a["outcome"] for a in await running.attempts(timer)] == ["unknown", "delivered"]


async def test_kill_9_of_the_orchestrator_takes_the_program_and_its_children_along(
    running: Running, tmp_path: Path
) -> None:
    out = tmp_path / "pids"
    await running.start({"deaf": {"argv": python(DEAF, str(out)), "timeoutMs": 600_000}})
    timer = await running.fire(run("deaf"))
    await eventually(there(out, 3), 30)
    os.kill(running.process.pid, signal.SIGKILL)  # it alone: not what it has started
    await running.process.wait()
    await eventually(gone(out, 3), 20)
    running.allow({"deaf": {"argv": ["true"]}})
    running.process = RoleProcess(["orchestrator"], running.environ)
    await running.process.start()
    await running.settled()
    assert [a["outcome"] for a in await running.attempts(timer)] == ["unknown", "delivered"]
