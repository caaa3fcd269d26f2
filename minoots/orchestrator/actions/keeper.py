"""A small process beside us that outlives a kill -9 of ours, long enough to end the commands that we leave running.

The kernel tells a program that its parent has died (PR_SET_PDEATHSIG), but not what that program has started itself.
"""

import contextlib
import os
import subprocess
import sys
from typing import Final

import structlog

log = structlog.get_logger("minoots.orchestrator")

# It reads `+` groups that have begun and `-` groups that have ended; its input ends when we do.
_PROGRAM: Final = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Keeper:
    """Started with the first command, and again when somebody ended it. It ends by itself when this process has."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, group: int) -> None:
        """From now on this group ends with us."""
        if self._process is None or self._process.poll() is not None:
            self._process = _start()
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """It has ended."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            return
        # Without it a command still dies with us; only what that has started would not.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._process.stdin.fileno(), line.encode())


def _start() -> subprocess.Popen[bytes] | None:
    """A session of its own, so that what ends our group leaves it alone; and nothing of our environment."""
    environ = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    argv = [sys.executable, "-I", "-S", "-c", _PROGRAM]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, env=environ, cwd="/"
        )
    except OSError as refused:
        log.warning("command.no_keeper", reason=refused.strerror)
        return None
    assert process.stdin is not None, "a pipe was asked for"
    # Never a wait for it: if it were stopped, commands would go on.
    os.set_blocking(process.stdin.fileno(), False)
    return process
