"""The command: one program of the operator's choice, whose exit code is the outcome. There is no shell."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import IO, Final

import msgspec
import structlog

from minoots.domain.command import Command, Commands, Line
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.orchestrator.actions.keeper import Keeper
from minoots.orchestrator.actions.output import Output
from minoots.orchestrator.actions.request import ActionRequest

log = structlog.get_logger("minoots.orchestrator")

# From SIGTERM to SIGKILL. With the time that an orchestrator has to drain it is less than its supervisor waits.
GRACE_S: Final = 2.0
# What is still in the pipe when the program has ended.
REST_S: Final = 1.0
_LOOK_S: Final = 0.02
_LEAST = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


class Places:
    """Places for `many` programs; one tenant's one command has as many as it leaves free, at most half of them."""

    def __init__(self, many: int) -> None:
        self._free = many
        self._held: Counter[tuple[str, str]] = Counter()
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def taken(self, key: tuple[str, str]) -> AsyncIterator[None]:
        """Wait for a place, and have it while the block lasts."""
        while self._held[key] >= self._free:
            self._changed.clear()
            await self._changed.wait()
        self._held[key] += 1
        self._free -= 1
        try:
            yield
        finally:
            self._held[key] -= 1
            self._held += Counter()  # only what is held stays
            self._free += 1
            self._changed.set()


class CommandRunner:
    """Runs what `commands` allow, `at_once` of them side by side; the others wait for a place.

    `settle` makes what a child does between fork and exec, so that it cannot outlive this process.
    """

    def __init__(self, commands: Commands, settle: Callable[[], Callable[[], None]], at_once: int) -> None:
        self._commands = commands
        self._settle = settle
        self._places = Places(at_once)
        self._keeper = Keeper()

    async def run(self, request: ActionRequest) -> Outcome:
        """One attempt: exit code 0 is delivered, a declared one rejected, everything else tried again."""
        try:
            parameters = msgspec.json.decode(request.parameters, type=dict)
        except msgspec.DecodeError as wrong:
            return Rejected(f"the command's parameters cannot be read: {wrong}", Answer())
        line = self._commands.fill(request.tenant_id, parameters)
        if not isinstance(line, Line):
            return Rejected("; ".join(finding.detail for finding in line), Answer())
        name = str(parameters["name"])
        async with self._places.taken((request.tenant_id, name)):
            return await self._run(line, request, name)

    async def _run(self, line: Line, request: ActionRequest, name: str) -> Outcome:
        began = time.monotonic()
        timeout_s = line.command.timeout_ms / 1000
        async with Output.opened() as output:
            try:
                process = await self._start(line, request, output)
            except (OSError, ValueError) as missing:
                why = missing.strerror if isinstance(missing, OSError) and missing.strerror else type(missing).__name__
                log.warning("command.cannot_start", command=name, program=line.argv[0], reason=why)
                return Retry(f"the command {name} cannot be started ({why}); its operator can mend it", Answer())
            output.begin()
            self._keeper.watch(process.pid)
            is_late = False
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                is_late = True
                await _end_group(process)
            except asyncio.CancelledError:
                # This process ends: nobody would record what comes of it, and the lease's end has it run again.
                await _end_group(process)
                raise
            finally:
                # What it has left behind in its group ends with it.
                _signal_group(process, signal.SIGKILL)
                self._keeper.forget(process.pid)
            await output.until_end(REST_S)
            answer = Answer(round((time.monotonic() - began) * 1000), None, output.excerpt())
        if is_late:
            return Retry(f"no end within {timeout_s:g} s; the command was killed", answer)
        return _outcome(line.command, process.returncode, answer)

    async def _start(self, line: Line, request: ActionRequest, output: Output) -> asyncio.subprocess.Process:
        """A session of its own: its group has its number. Standard input is the webhook's body, `{timer, event}`."""
        with _as_file(request.body.encode()) as told:
            return await asyncio.create_subprocess_exec(
                *line.argv,
                stdin=told,
                stdout=output.inlet,
                stderr=output.inlet,
                cwd=line.command.cwd,
                env=environment(line.command, request),
                start_new_session=True,
                preexec_fn=_alone(self._settle()),
            )


def _alone(settle: Callable[[], None]) -> Callable[[], None]:
    """`settle`, and no open file but the three: uvloop passes copies of them on, which would outlive a close."""
    files = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"

    def between_fork_and_exec() -> None:
        settle()
        for number in os.listdir(files):
            if int(number) > 2:
                # The folder that is being read is closed already.
                with contextlib.suppress(OSError):
                    os.set_inheritable(int(number), False)

    return between_fork_and_exec


def environment(command: Command, request: ActionRequest) -> dict[str, str]:
    """All that the program is told; nothing of ours, where the database's password is."""
    return {
        **_LEAST,
        **command.environment,
        "MINOOTS_TIMER_ID": request.timer_id,
        "MINOOTS_OCCURRENCE": str(request.occurrence),
        "MINOOTS_ACTION_ID": request.action_id,
        "MINOOTS_WEBHOOK_ID": request.webhook_id,
    }


def _outcome(command: Command, code: int | None, answer: Answer) -> Outcome:
    if code == 0:
        return Delivered(answer)
    if code is None or code < 0:
        return Retry(f"the command was killed by {_signal_name(-(code or 0))}", answer)
    if code in command.rejected_exit_codes:
        return Rejected(f"exit code {code}", answer)
    return Retry(f"exit code {code}", answer)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _as_file(body: bytes) -> IO[bytes]:
    """In memory where there is such a thing, so that a program may read it or not, and no disk has to have room."""
    has_memory = hasattr(os, "memfd_create")
    # Closed by the caller.
    told: IO[bytes] = os.fdopen(os.memfd_create("event"), "w+b") if has_memory else tempfile.TemporaryFile()  # noqa: SIM115
    told.write(body)
    told.seek(0)
    return told


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """SIGTERM to the program and all that it started, SIGKILL to what is left after a moment."""
    deadline = time.monotonic() + GRACE_S
    alive = _signal_group(process, signal.SIGTERM)
    while alive and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        alive = _signal_group(process, 0)
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: int) -> bool:
    """Whether there was anybody to hear it; 0 only asks."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
        return True
    return False
