"""Turning what the operating system or a server says into one sentence that says what to do."""

import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minoots.errors import EmbeddedError

_FULL = "no space left on device"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Work on files of ours at `path`; what goes wrong with them comes out as an EmbeddedError."""
    try:
        yield
    except OSError as error:
        raise EmbeddedError(_sentence(error, Path(error.filename) if error.filename else path)) from error


def disk_full(path: Path) -> EmbeddedError:
    """The one cause that is told apart in a server's output."""
    return EmbeddedError(f"the disk that holds {path} is full; free some space there and start again")


def from_output(server: str, output: str, home: Path, log: Path) -> EmbeddedError:
    """Why a server did not start, from what it printed last."""
    if _FULL in output.lower():
        return disk_full(home)
    # Our own first tries to connect come too early, and are no reason.
    lines = [line.strip() for line in output.splitlines() if line.strip() and "the database system is" not in line]
    telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "[FTL]", "[ERR]", "error:"))]
    last = (telling or lines or ["it printed nothing"])[-1]
    return EmbeddedError(f"{server} did not start: {last} (the whole story is in {log})")


def from_death(server: str, code: int, output: str, home: Path, log: Path) -> EmbeddedError:
    """Why a server that was up has ended; a negative code is the signal that ended it."""
    if _FULL in output.lower():
        return disk_full(home)
    cause = f"exit code {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"
    return EmbeddedError(f"{server} has ended ({cause}); its log is {log}")


def port_taken(port: int, what: str, setting: str) -> EmbeddedError:
    """Somebody else listens there."""
    return EmbeddedError(f"port {port} for {what} is in use; stop what uses it, or set {setting} to a free port")


def _sentence(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path).detail
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} cannot be written; make it writable for this user, or choose another folder with --data-dir"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path} is in the way: a folder is needed there; move it, or choose another one with --data-dir"
    return f"{path}: {error.strerror or error}; choose another folder with --data-dir"
