"""Roles as real processes, to be killed and stopped for real."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


class RoleProcess:
    """`minoots serve ROLE…` in a process of its own; its log is kept in `lines`.

    `crash_at` names a step at which the process kills itself with SIGKILL, or `stop:` and a step at which it stops
    itself with SIGSTOP (tests/support/crashing.py).
    """

    def __init__(self, roles: Sequence[str], environ: Mapping[str, str], crash_at: str | None = None) -> None:
        self.roles = list(roles)
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), "MINOOTS_LOG_FORMAT": "json", **environ}
        self._crash_at = crash_at
        self.lines: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.kill()

    async def start(self) -> None:
        """Until it says that it has started (or has ended)."""
        argv = [sys.executable, "-m", "minoots", "serve", *self.roles]
        if self._crash_at:
            argv = [sys.executable, "-m", "tests.support.crashing", self._crash_at, *self.roles]
        self.process = await asyncio.create_subprocess_exec(
            *argv, env=self._environ, cwd=ROOT, stderr=asyncio.subprocess.PIPE, start_new_session=True
        )
        self._reading = asyncio.create_task(self._read())
        for _ in range(1500):
            if self.process.returncode is not None or any('"started"' in line for line in self.lines):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{self.roles} did not start: {self.lines[-20:]}")

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.lines.append(line.decode(errors="replace").rstrip())

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP holds it (proc(5): the state follows the name, which ends with the last parenthesis)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    @property
    def cpu_s(self) -> float:
        """User and system time that the process has used so far, in seconds (proc(5): fields 14 and 15)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of one event, in order."""
        lines = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self, seconds: float = 30) -> int:
        """Until it has ended by itself: its exit code, negative for a signal."""
        assert self.process is not None
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def kill(self) -> None:
        """kill -9, for real."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
        if self._reading is not None:
            await self._reading

    async def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and wait for the end."""
        self.send(signal.SIGTERM)
        return await self.wait(seconds)
