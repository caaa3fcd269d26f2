"""One embedded server's process: started apart from the terminal, waited for, signalled, cleared away."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import IO

from minoots.embedded.failures import explained, from_death, from_output
from minoots.embedded.place import Place
from minoots.errors import EmbeddedError
from minoots.runtime.child import start_child

_LOG_LIMIT = 8 << 20


class Daemon:
    """`death_signal` is what the server gets when we die without stopping it."""

    def __init__(self, place: Place, name: str, death_signal: signal.Signals) -> None:
        self.name = name
        self.log = place.home / f"{name.lower()}.log"
        self._place = place
        self._death_signal = death_signal
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """None when it does not run."""
        return self._process.pid if self.is_running and self._process is not None else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def launch(self, argv: Sequence[str | Path]) -> None:
        """Start it with an environment of its own: nothing of ours, PG* settings least of all, gets through."""
        with explained(self.log):
            if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
                self.log.replace(self.log.with_suffix(".log.1"))
            with self._open_log() as output:
                self._log_start = output.seek(0, os.SEEK_END)
                self._process = await start_child(
                    argv,
                    env={"PATH": os.defpath, "LC_ALL": "C"},
                    death_signal=self._death_signal,
                    account=self._place.account,
                    output=output,
                )

    def _open_log(self) -> IO[bytes]:
        log = open(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "ab")  # noqa: SIM115
        self._place.give(self.log)
        return log

    def output(self) -> str:
        """What it has printed since it was launched, at most the last 64 KiB."""
        with self.log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - (64 << 10)))
            return log.read().decode(errors="replace")

    def failure(self) -> EmbeddedError:
        """Why it did not start, as far as its output tells."""
        return from_output(self.name, self.output(), self._place.home, self.log)

    async def until(self, is_ready: Callable[[], Awaitable[bool]], seconds: float) -> None:
        """Wait until it takes connections; raises EmbeddedError when it ends first or takes too long."""
        deadline = time.monotonic() + seconds
        while not await is_ready():
            if not self.is_running:
                raise self.failure()
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self.name} was not ready within {seconds:.0f} s; see {self.log}")
            await asyncio.sleep(0.01)

    async def death(self) -> EmbeddedError:
        """Wait until it has ended, and say why as far as it told."""
        code = await self.wait()
        return from_death(self.name, code, self.output(), self._place.home, self.log)

    async def wait(self) -> int:
        """Until it has ended, by whatever cause."""
        return await self._process.wait() if self._process is not None else 0

    async def end(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal and give it its seconds; SIGKILL comes last of all."""
        for step, seconds in (*steps, (signal.SIGKILL, 10.0)):
            if not self.is_running or self._process is None:
                return
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(step)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), seconds)


async def clear_leftover(pid_file: Path, marker: Path, *steps: tuple[signal.Signals, float]) -> None:
    """End a server of ours that outlived the process that started it (where no signal told it).

    `marker` is in its command line and in nobody else's. Call it with the place locked: then it is nobody's.
    """
    pid = _recorded(pid_file)
    if pid is None:
        return
    for step, seconds in (*steps, (signal.SIGKILL, 10.0)):
        if str(marker) not in _command_line(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        await gone([pid], seconds)


def _recorded(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None


async def gone(pids: Sequence[int], seconds: float) -> bool:
    """Wait until none of these processes is left; False when the time is up first."""
    deadline = time.monotonic() + seconds
    while any(_command_line(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


def children_of(parent: int) -> list[int]:
    """Straight from /proc; none where there is none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may itself hold spaces and parentheses.
            if int(entry.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.parent.name))
    return found


def _command_line(pid: int) -> str:
    """Empty when it does not run (a zombie has none either)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        if Path("/proc/self").exists():
            return ""
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=5
    )
    return shown.stdout.strip()
