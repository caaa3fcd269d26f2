"""Brings the schema to the newest revision, and says which revision a database is at; the revisions are Alembic's."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

import minoots
from minoots.errors import ConfigError
from minoots.store.database import reach

_PACKAGE = Path(minoots.__file__).parent
# Alembic's environment is one for the whole process.
_ALEMBIC = threading.Lock()


def alembic_config(url: str | None, schema: str) -> Config:
    """Alembic's configuration for the revisions: inside of the package in a wheel, next to it in a checkout."""
    home = _PACKAGE if (_PACKAGE / "migrations").is_dir() else _PACKAGE.parent
    config = Config(str(home / "alembic.ini"))
    config.attributes["url"] = url
    config.attributes["schema"] = schema
    return config


def newest_revision() -> str:
    """The revision that this code was written for."""
    head = ScriptDirectory.from_config(alembic_config(None, "minoots")).get_current_head()
    if head is None:
        raise RuntimeError("the installation carries no revisions")
    return head


async def upgrade(url: str, schema: str, revision: str = "head") -> None:
    """Run what is missing, in one transaction. Several at once are safe: they wait for each other.

    Raises StoreUnavailable or ConfigError when the database cannot be had.
    """
    await reach(url)
    await asyncio.to_thread(_run, command.upgrade, alembic_config(url, schema), revision)


async def downgrade(url: str, schema: str, revision: str) -> None:
    """Undo revisions down to `revision` (`base` undoes all, with everything they hold)."""
    await reach(url)
    await asyncio.to_thread(_run, command.downgrade, alembic_config(url, schema), revision)


def _run(step: Callable[[Config, str], None], config: Config, revision: str) -> None:
    try:
        with _ALEMBIC:
            step(config, revision)
    except CommandError as unknown:
        schema = config.attributes["schema"]
        raise ConfigError(f"the schema {schema} is not one that this version knows: {unknown}") from None
