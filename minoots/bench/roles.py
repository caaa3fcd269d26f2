"""Roles as processes of their own, as in production: `minoots serve …`."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from minoots.bench.failures import BenchFailed
from minoots.runtime.child import start_child

START_S = 30.0
STOP_S = 20.0


class RoleProcess:
    """One process, its log in a file. `name` is its roles, with a number from the second of its kind on."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._argv = argv
        self._environ = environ
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._is_ending = False
        self._has_died = False

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as output:
            self._process = await start_child(self._argv, env=self._environ, death_signal=signal.SIGKILL, output=output)
        try:
            await self._until_started()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_S)
        except TimeoutError:
            self.kill()
            await self._process.wait()
        if self._has_died and error is None:
            raise BenchFailed(f"{self.name} ended in the middle: {self._last_line()}")

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid

    def terminate(self) -> None:
        """Tell it to end; leaving the context waits for that."""
        assert self._process is not None
        if self._process.returncode is None:
            self._is_ending = True
            self._process.terminate()
        elif not self._is_ending:
            self._has_died = True

    def kill(self) -> None:
        """kill -9, it and what it may have started."""
        self._is_ending = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def complaints(self) -> list[str]:
        """The events that it logged as warnings or errors."""
        return [line["event"] for line in self._lines() if line.get("level") in ("warning", "error", "critical")]

    async def _until_started(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while not any(line.get("event") == "started" for line in self._lines()):
            if self._process.returncode is not None:
                raise BenchFailed(f"{self.name} does not start: {self._last_line()}")
            if time.monotonic() > deadline:
                raise BenchFailed(f"{self.name} has not started within {START_S:.0f} s: {self._last_line()}")
            await asyncio.sleep(0.01)

    def _lines(self) -> list[dict[str, Any]]:
        lines = self._log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def _last_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def serving(group: Sequence[str]) -> list[str]:
    """What production runs for these roles."""
    return [sys.executable, "-m", "minoots", "serve", *group]
