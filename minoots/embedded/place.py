"""Where the embedded servers' binaries and files live, and which system user runs them."""

import fcntl
import hashlib
import os
import pwd
import secrets
import signal
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from minoots.access.keyring import make_key
from minoots.embedded.binaries import Binaries
from minoots.embedded.failures import explained
from minoots.errors import EmbeddedError
from minoots.runtime.child import Account, settle_in

# Where root keeps what an unprivileged user cannot reach in the data folder.
SHELTER = Path("/var/lib/minoots")
_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Place:
    """One data folder, ours alone from `prepare` to `release`.

    `data_dir` is the folder as it was asked for. `home` is where the files really are: the same folder, or one below
    `/var/lib/minoots` that `data_dir/home` points to, when the user that runs the servers cannot enter `data_dir`.
    `account` is that user, where we are root; None means ourselves.
    """

    data_dir: Path
    home: Path
    binaries: Binaries
    account: Account | None
    _lock: int

    @classmethod
    def prepare(cls, data_dir: Path) -> Self:
        """Make the folder, lock it, and see who can run what; raises EmbeddedError with what to do."""
        data_dir = Path(os.path.abspath(data_dir))
        binaries = Binaries.installed()
        with explained(data_dir):
            _make(data_dir, 0o711 if os.geteuid() == 0 else 0o700)
            lock = _lock(data_dir)
            try:
                account, home, binaries = _settle(data_dir, binaries)
            except BaseException:
                os.close(lock)
                raise
        return cls(data_dir, home, binaries, account, lock)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def folder(self, name: str) -> Path:
        """A folder below `home` that the servers' user owns and nobody else may enter."""
        folder = self.home / name
        with explained(folder):
            if not folder.exists():
                folder.mkdir(mode=0o700)
                self.give(folder)
        return folder

    def give(self, path: Path) -> None:
        """Hand a file or folder of ours to the servers' user; never what a link points to."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    def write(self, name: str, text: str, *, for_server: bool = True) -> Path:
        """Write a file below `home` that its owner alone can read: the servers' user, or ourselves.

        It appears whole or not at all, and replaces a link instead of following it.
        """
        path = self.home / name
        with explained(path):
            new = path.with_name(f"{name}.new")
            new.unlink(missing_ok=True)
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if for_server:
                self.give(new)
            new.rename(path)
        return path

    def password(self) -> str:
        """The servers' password, made at first use and readable by us alone."""
        return self._kept("password", lambda: secrets.token_hex(16))

    def secrets_key(self) -> str:
        """What wraps signing secrets where no MINOOTS_SECRETS_KEY is given; made and kept like the password."""
        return self._kept("secrets-key", make_key)

    def _kept(self, name: str, make: Callable[[], str]) -> str:
        path = self.home / name
        with explained(path):
            if not path.exists():
                self.write(path.name, make(), for_server=False)
            return path.read_text().strip()


def _make(folder: Path, mode: int) -> None:
    """Make the folder with this mode whatever the umask is; one that exists is left as it is."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        folder.chmod(mode)


def _lock(data_dir: Path) -> int:
    """The kernel gives the lock back when we end, however we end."""
    lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise EmbeddedError(
            f"another `minoots up` is running on {data_dir}; stop it first, or give this one another --data-dir"
        ) from None
    return lock


def _settle(data_dir: Path, binaries: Binaries) -> tuple[Account | None, Path, Binaries]:
    """Decide who runs the servers, and from where: what that user cannot reach moves into the shelter."""
    home = _home(data_dir)
    if os.geteuid() != 0:
        return None, home, binaries
    account = _owner(home / "postgres") or _unprivileged()
    shelter = SHELTER / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    if home == data_dir and not _can_enter(account, data_dir):
        if (data_dir / "postgres").exists():
            raise EmbeddedError(
                f"user {account.name}, who runs Postgres for root, can no longer enter {data_dir}; "
                "open the folders above it to that user again, or start anew with another --data-dir"
            )
        home = _make_shelter(shelter)
        (data_dir / "home").symlink_to(home)
        account = _owner(home / "postgres") or account
    if not _can_run(account, binaries):
        binaries = binaries.copied_to(_make_shelter(shelter) / "servers")
    return account, home, binaries


def _make_shelter(shelter: Path) -> Path:
    _make(SHELTER, 0o755)
    _make(shelter, 0o711)
    return shelter


def _home(data_dir: Path) -> Path:
    link = data_dir / "home"
    return Path(os.path.realpath(link)) if link.is_symlink() else data_dir


def _owner(folder: Path) -> Account | None:
    """Who owns the data that is there already, if not root: nobody else may run Postgres on it."""
    try:
        owner = folder.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(owner.st_mode) or owner.st_uid == 0:
        return None
    try:
        name = pwd.getpwuid(owner.st_uid).pw_name
    except KeyError:
        name = str(owner.st_uid)
    return Account(name, owner.st_uid, owner.st_gid)


def _unprivileged() -> Account:
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "Postgres does not run as root, and this machine has neither a user postgres nor nobody; "
        "run this as a plain user, or give MINOOTS_DATABASE_URL and NATS_URL of servers of your own"
    )


def _can_run(account: Account, binaries: Binaries) -> bool:
    """By trying: modes, access lists and missing libraries all show."""
    return all(_runs_as(account, str(binary), "--version") for binary in (binaries.initdb, binaries.nats))


def _can_enter(account: Account, folder: Path) -> bool:
    """By trying as well: `cd` and a file's test are what a server does with its folder."""
    return _runs_as(account, "/bin/sh", "-c", 'cd "$0"', str(folder))


def _runs_as(account: Account, *argv: str) -> bool:
    try:
        ended = subprocess.run(
            argv,
            check=False,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath},
            preexec_fn=settle_in(account, signal.SIGKILL),
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return ended.returncode == 0
