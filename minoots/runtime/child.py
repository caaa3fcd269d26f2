"""Starting a child process that has its own session and cannot outlive us."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
# Looked up before any fork: between fork and exec nothing may be imported.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged system user whom root hands a server to."""

    name: str
    uid: int
    gid: int


async def start_child(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    death_signal: signal.Signals,
    account: Account | None = None,
    output: IO[bytes] | None = None,
) -> asyncio.subprocess.Process:
    """Start `argv`; with `output`, both of its streams go there, else they are ours.

    The child leads its own session, so Ctrl-C at the terminal reaches only us. On Linux it gets `death_signal` when
    the thread that called this ends, however it ends; so call it from the main thread.
    """
    return await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=dict(env),
        start_new_session=True,
        preexec_fn=settle_in(account, death_signal),
    )


def settle_in(account: Account | None, death_signal: signal.Signals) -> Callable[[], None]:
    """What the child does between fork and exec: become `account`, and tie its life to ours."""
    parent = os.getpid()

    def between_fork_and_exec() -> None:
        if account is not None:
            os.setgroups([])
            os.setgid(account.gid)
            os.setuid(account.uid)
            os.umask(0o077)
        if _LIBC is not None:
            # After the change of user, which would clear it.
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
            if os.getppid() != parent:  # we died before the child could ask to be told
                os._exit(1)

    return between_fork_and_exec
