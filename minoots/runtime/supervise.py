"""Keeping a set of child processes running until told to stop, and stopping them together."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from minoots.runtime.child import start_child

log = structlog.get_logger(__name__)

# Exit codes of a child that has said in a sentence what is wrong with its settings (78 is EX_CONFIG of sysexits.h).
CONFIGURATION_ERRORS: Final = frozenset({2, 78})
# A child that has run this long starts its backoff anew.
_STEADY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running; it inherits our standard output and error."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: `drain` from SIGTERM to SIGKILL, `first_backoff` doubling up to `longest_backoff` between restarts."""

    drain: float = 15.0
    first_backoff: float = 0.2
    longest_backoff: float = 10.0


@dataclass(frozen=True, slots=True)
class StopSignals:
    """`stop` is set by the first SIGINT or SIGTERM, `hurry` by the second."""

    stop: asyncio.Event
    hurry: asyncio.Event


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Take SIGINT and SIGTERM for the running loop; in the main thread only."""
    signals = StopSignals(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()

    def told() -> None:
        (signals.hurry if signals.stop.is_set() else signals.stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told)
    try:
        yield signals
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class Supervisor:
    """Restarts a child that dies; gives up on all when one says that it is not set up right."""

    def __init__(self, children: Sequence[Child], patience: Patience | None = None) -> None:
        self._children = children
        self._patience = patience or Patience()
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._exit_code = 0

    @property
    def pids(self) -> dict[str, int]:
        """Of the children that run now."""
        return {name: process.pid for name, process in self._running.items()}

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> int:
        """Keep the children running until `stop`, then end them all; `hurry` cuts their time to drain.

        Returns 0, or the code of a child that ended with one of CONFIGURATION_ERRORS. Cancelling kills the children.
        """
        ended = asyncio.Event()
        keepers = [asyncio.create_task(self._keep(child, ended), name=child.name) for child in self._children]
        waiters = [asyncio.create_task(event.wait()) for event in (stop, ended)]
        try:
            await asyncio.wait([*waiters, *keepers], return_when=asyncio.FIRST_COMPLETED)
            ended.set()
            await self._end_all(keepers, hurry or asyncio.Event())
        finally:
            self._kill_all()
            for task in (*keepers, *waiters):
                task.cancel()
            await asyncio.gather(*keepers, *waiters, return_exceptions=True)
        for keeper in keepers:
            keeper.result()  # raises what kept a program from being started at all
        return self._exit_code

    async def _keep(self, child: Child, ended: asyncio.Event) -> None:
        """One child, start after start, until the end has come."""
        backoff = self._patience.first_backoff
        while not ended.is_set():
            started = time.monotonic()
            code = await self._run_once(child, ended)
            if ended.is_set():
                return
            if code in CONFIGURATION_ERRORS:
                log.error("child_misconfigured", child=child.name, exit_code=code)
                self._exit_code = code
                ended.set()
                return
            if time.monotonic() - started > _STEADY_SECONDS:
                backoff = self._patience.first_backoff
            log.warning("child_died", child=child.name, **_cause(code), restart_in_s=backoff)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), backoff)
            backoff = min(backoff * 2, self._patience.longest_backoff)

    async def _run_once(self, child: Child, ended: asyncio.Event) -> int:
        process = await start_child(child.argv, env=child.env, death_signal=signal.SIGTERM)
        self._running[child.name] = process
        try:
            if ended.is_set():  # it was being started while the others were told to end
                process.terminate()
            return await process.wait()
        finally:
            _kill_group(process)  # what it may have left of its own children
            del self._running[child.name]

    async def _end_all(self, keepers: Sequence[asyncio.Task[None]], hurry: asyncio.Event) -> None:
        """SIGTERM, then SIGKILL for what is left when the time is up or somebody is in a hurry."""
        for process in self._running.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
        drained = asyncio.create_task(asyncio.wait(keepers))
        hurried = asyncio.create_task(hurry.wait())
        await asyncio.wait([drained, hurried], timeout=self._patience.drain, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        for name in self._kill_all():
            log.warning("child_killed", child=name)
        await drained

    def _kill_all(self) -> list[str]:
        """SIGKILL for every child that still runs and all that it started, and say which."""
        for process in self._running.values():
            _kill_group(process)
        return list(self._running)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """A child leads its own session, so its group has its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _cause(code: int) -> dict[str, int | str]:
    """A negative code is the signal that killed it."""
    if code >= 0:
        return {"exit_code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"signal": str(-code)}
