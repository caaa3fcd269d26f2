"""The supervisor with small children of its own."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from minoots.runtime.supervise import Child, Patience, Supervisor

REPOSITORY = Path(__file__).parents[2]
QUICK = Patience(drain=5, first_backoff=0.01, longest_backoff=0.05)

# Each child writes a line when it is up and when it has drained.
POLITE = """
import signal, sys, threading
notes, ended = open(sys.argv[1], "a", buffering=1), threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
notes.write("up\\n")
ended.wait()
notes.write("drained\\n")
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write("up\\n")
time.sleep(600)
"""
DYING = """
import os, sys
open(sys.argv[1], "a").write("up\\n")
os._exit(7)
"""
MISCONFIGURED = "import sys; sys.exit(2)"
WITH_GRANDCHILD = """
import subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "a").write(f"{grandchild.pid}\\n")
time.sleep(600)
"""


def child(name: str, code: str, notes: Path) -> Child:
    return Child(name, [sys.executable, "-c", code, str(notes)], dict(os.environ))


def lines(notes: Path) -> list[str]:
    return notes.read_text().split() if notes.exists() else []


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    supervisor: Supervisor, stop: asyncio.Event, hurry: asyncio.Event | None = None
) -> AsyncIterator[asyncio.Task[int]]:
    task = asyncio.create_task(supervisor.run(stop, hurry))
    yield task
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def is_alive(pid: int) -> bool:
    """A zombie that nobody has collected yet is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_all_children_drain_when_told_to_stop(tmp_path: Path) -> None:
    stop, notes = asyncio.Event(), [tmp_path / "one", tmp_path / "two"]
    children = [child(path.name, POLITE, path) for path in notes]
    async with running(Supervisor(children, QUICK), stop) as task:
        await until(lambda: all(lines(path) == ["up"] for path in notes))
        stop.set()
        assert await task == 0
        assert [lines(path) for path in notes] == [["up", "drained"]] * 2


async def test_a_child_that_dies_is_started_again_and_its_end_is_logged(tmp_path: Path) -> None:
    stop, notes = asyncio.Event(), tmp_path / "notes"
    with capture_logs() as logged:
        async with running(Supervisor([child("kernel", DYING, notes)], QUICK), stop) as task:
            await until(lambda: len(lines(notes)) >= 4)
            stop.set()
            assert await task == 0
    deaths = [entry for entry in logged if entry["event"] == "child_died"]
    assert {(entry["child"], entry["exit_code"]) for entry in deaths} == {("kernel", 7)}
    assert [entry["restart_in_s"] for entry in deaths[:4]] == [0.01, 0.02, 0.04, 0.05][: len(deaths)]


async def test_a_killed_child_is_logged_with_its_signal_and_comes_back(tmp_path: Path) -> None:
    stop, notes = asyncio.Event(), tmp_path / "notes"
    supervisor = Supervisor([child("api", POLITE, notes)], QUICK)
    with capture_logs() as logged:
        async with running(supervisor, stop) as task:
            await until(lambda: lines(notes) == ["up"])
            os.kill(supervisor.pids["api"], signal.SIGKILL)
            await until(lambda: lines(notes) == ["up", "up"])
            stop.set()
            assert await task == 0
    assert [entry["signal"] for entry in logged if entry["event"] == "child_died"] == ["SIGKILL"]


async def test_a_misconfigured_child_stops_everything_with_its_exit_code(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    children = [child("api", POLITE, notes), child("relay", MISCONFIGURED, notes)]
    async with running(Supervisor(children, QUICK), asyncio.Event()) as task:
        assert await asyncio.wait_for(task, 10) == 2


async def test_a_child_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    stop, notes = asyncio.Event(), tmp_path / "notes"
    supervisor = Supervisor([child("stubborn", STUBBORN, notes)], Patience(drain=0.2))
    async with running(supervisor, stop) as task:
        await until(lambda: lines(notes) == ["up"])
        pid = supervisor.pids["stubborn"]
        stop.set()
        assert await asyncio.wait_for(task, 5) == 0
        assert not is_alive(pid)


async def test_a_second_signal_hurries_up(tmp_path: Path) -> None:
    stop, hurry, notes = asyncio.Event(), asyncio.Event(), tmp_path / "notes"
    async with running(Supervisor([child("stubborn", STUBBORN, notes)], Patience(drain=60)), stop, hurry) as task:
        await until(lambda: lines(notes) == ["up"])
        stop.set()
        hurry.set()
        assert await asyncio.wait_for(task, 5) == 0


async def test_nothing_of_a_childs_own_children_is_left(tmp_path: Path) -> None:
    stop, notes = asyncio.Event(), tmp_path / "notes"
    async with running(Supervisor([child("api", WITH_GRANDCHILD, notes)], QUICK), stop) as task:
        await until(lambda: len(lines(notes)) == 1)
        stop.set()
        assert await task == 0
        await until(lambda: not is_alive(int(lines(notes)[0])))


async def test_a_program_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    children = [child("api", POLITE, tmp_path / "notes"), Child("none", ["/no/such/program"], {})]
    supervisor = Supervisor(children, QUICK)
    with pytest.raises(FileNotFoundError):
        await supervisor.run(asyncio.Event())
    assert supervisor.pids == {}


PARENT = """
import asyncio, os, sys
from minoots.runtime.supervise import Child, Patience, Supervisor, stop_signals

async def main():
    child = Child("child", [sys.executable, "-c", sys.argv[1], sys.argv[2]], dict(os.environ))
    with stop_signals() as signals:
        return await Supervisor([child], Patience(drain=60)).run(signals.stop, signals.hurry)

sys.exit(asyncio.run(main()))
"""


async def parent_of(code: str, notes: Path) -> asyncio.subprocess.Process:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, code, str(notes), cwd=REPOSITORY, start_new_session=True
    )
    await until(lambda: lines(notes)[:1] == ["up"])
    return parent


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_parent_drains_the_child(tmp_path: Path, number: signal.Signals) -> None:
    notes = tmp_path / "notes"
    parent = await parent_of(POLITE, notes)
    # As a terminal does it: to the whole group, in which the child is not.
    os.killpg(parent.pid, number)
    assert await asyncio.wait_for(parent.wait(), 10) == 0
    assert lines(notes) == ["up", "drained"]


async def test_two_signals_to_the_parent_end_a_stubborn_child(tmp_path: Path) -> None:
    parent = await parent_of(STUBBORN, tmp_path / "notes")
    parent.send_signal(signal.SIGINT)
    # Two pending signals of one kind are one signal: the second goes out until it has been seen.
    async with asyncio.timeout(10):
        while parent.returncode is None:
            await asyncio.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                parent.send_signal(signal.SIGINT)
    # The last one may come when it listens no more.
    assert parent.returncode in (0, -signal.SIGINT)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
async def test_kill_9_of_the_parent_lets_the_child_drain_and_end(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    parent = await parent_of(POLITE, notes)
    parent.kill()
    await parent.wait()
    await until(lambda: lines(notes) == ["up", "drained"])
