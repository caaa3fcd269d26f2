"""The commands that run roles, migrate, and switch events."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

import typer
import uvloop

from minoots.access.keyring import load_keyring
from minoots.access.keys import load_keys
from minoots.errors import ConfigError, StoreUnavailable
from minoots.runtime.files import raise_limit
from minoots.runtime.garbage import look_rarely
from minoots.runtime.supervise import Child, Supervisor, stop_signals
from minoots.service.abilities import load_commands
from minoots.settings import Settings
from minoots.telemetry.logging import configure_logging

# Roles are processes, so that a burst of requests makes no timer late; kernel and relay share one, so that firing
# wakes the relay at once.
PROCESSES = (("api",), ("grpc",), ("kernel", "relay"), ("orchestrator",))


def serve(roles: Sequence[str]) -> None:
    """Run the roles: one process as itself, several as children that are restarted when they die."""
    settings = Settings.from_env(os.environ)
    groups = [tuple(role for role in group if role in roles) for group in PROCESSES]
    groups = [group for group in groups if group]
    configure_logging(settings.log, " ".join(groups[0]) if len(groups) == 1 else "serve")
    if len(groups) == 1:
        uvloop.run(_serve_here(settings, groups[0]))
        return
    # A mistake in the settings is said once, here, before there are four processes to say it.
    if settings.store.url is None:
        raise ConfigError("set MINOOTS_DATABASE_URL to the Postgres that keeps the timers (or use `minoots up`)")
    if {"api", "grpc"} & set(roles):
        load_keys(settings.env, settings.doors.keys_path, settings.doors.keys_json)
    if {"api", "grpc", "orchestrator"} & set(roles):
        load_keyring(settings.env, settings.secrets_key)
        load_commands(settings.commands.path)
    code = asyncio.run(_serve_children(groups))
    if code:
        raise typer.Exit(code)


async def _serve_here(settings: Settings, roles: Sequence[str]) -> None:
    from minoots.wiring import run_roles

    look_rarely()
    raise_limit()
    with stop_signals() as signals:
        await run_roles(settings, roles, signals.stop)


async def _serve_children(groups: Sequence[Sequence[str]]) -> int:
    with stop_signals() as signals:
        return await Supervisor(role_children(groups, os.environ)).run(signals.stop, signals.hurry)


def role_children(groups: Sequence[Sequence[str]], environ: Mapping[str, str]) -> list[Child]:
    """A child process for each group of roles; `minoots up` runs the same."""
    return [
        Child(" ".join(group), [sys.executable, "-m", "minoots", "serve", *group], dict(environ)) for group in groups
    ]


def migrate() -> None:
    """Bring the schema to this version."""
    from minoots.store.migrate import newest_revision, upgrade

    settings = Settings.from_env(os.environ)
    if settings.store.url is None:
        raise ConfigError("set MINOOTS_DATABASE_URL to the Postgres to migrate")
    asyncio.run(upgrade(settings.store.url, settings.store.schema))
    typer.echo(f"the schema {settings.store.schema} is at revision {newest_revision()}")


def events(state: str) -> None:
    """Turn lifecycle events on or off for the installation."""
    asyncio.run(_switch_events(Settings.from_env(os.environ), state == "on"))
    typer.echo(f"events are {state}")


async def _switch_events(settings: Settings, on: bool) -> None:
    from minoots.service.readiness import NO_ANSWER, Readiness
    from minoots.store import installation
    from minoots.store.database import Database

    async with Database(settings.store) as database:
        if found := await Readiness(database, settings.env).problems():
            raise StoreUnavailable(found[0]) if found[0] == NO_ANSWER else ConfigError(found[0])
        async with database.connection() as connection:
            await installation.switch_events(database, connection, on)
