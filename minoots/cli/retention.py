"""`minoots retention show|set|clear`: how long what ended is kept, straight from the database."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from minoots.domain.limits import TENANT
from minoots.domain.retention import EVERYONE, STATUSES, Retention, parse_retention

if TYPE_CHECKING:
    from minoots.settings import Settings
    from minoots.store.database import Connection, Database
    from minoots.store.retention import Rule

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="How long ended timers and their firings are kept, and changing it.")


class EndStatus(StrEnum):
    """What a timer or firing ends with."""

    settled = "settled"
    failed = "failed"
    cancelled = "cancelled"
    fired = "fired"


Tenant = Annotated[
    str | None, typer.Option("--tenant", metavar="TENANT", help="One tenant's; all that have none of their own if not.")
]


@app.command()
def show(
    tenant: Tenant = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Say what is kept for how long, and who says so.

    A tenant's own rule comes first, then the installation's (tenant *), then MINOOTS_RETENTION, then the default. The
    setting is read from this command's environment: run it with that of the kernels.
    """
    from minoots.store import retention

    settings = _settings()
    rules = _run(settings, lambda db, connection: retention.list_rules(db, connection, _checked(tenant)))
    lines = describe_retention(rules, settings.retention, tenant)
    if as_json:
        typer.echo(
            json.dumps([dict(zip(("tenant", "status", "keepSeconds", "from"), line, strict=True)) for line in lines])
        )
        return
    _print(lines)


@app.command("set")
def set_retention(
    keep: Annotated[
        str, typer.Argument(metavar="KEEP", help="30d for all, settled=7d,failed=90d for some; off: for ever.")
    ],
    tenant: Tenant = None,
) -> None:
    """Keep what ends for so long. Kernels know it within a minute."""
    from minoots.cli.exits import misused
    from minoots.store import retention

    try:
        said = parse_retention(keep)
    except ValueError as refused:
        raise misused(str(refused)) from None
    whose = _checked(tenant) or EVERYONE
    _run(_settings(), lambda db, connection: retention.set_rules(db, connection, whose, said))
    typer.echo(f"set for {_name(whose)}: {', '.join(f'{status} {_words(kept)}' for status, kept in said.items())}")


@app.command()
def clear(
    statuses: Annotated[list[EndStatus] | None, typer.Argument(help="Which; all when none is named.")] = None,
    tenant: Tenant = None,
) -> None:
    """Take back what was set, so that the next in the order holds again."""
    from minoots.store import retention

    whose, which = _checked(tenant) or EVERYONE, [status.value for status in statuses or EndStatus]
    cleared = _run(_settings(), lambda db, connection: retention.clear_rules(db, connection, whose, which))
    typer.echo(f"{cleared} {'rule' if cleared == 1 else 'rules'} of {_name(whose)} taken back")


def describe_retention(
    rules: "Sequence[Rule]", otherwise: Retention, tenant: str | None
) -> list[tuple[str, str, float | None, str]]:
    """What is in force: tenant, status, seconds (None: for ever), and who says so."""
    said = {(rule.tenant_id, rule.status): rule.keep for rule in rules}
    lines: list[tuple[str, str, timedelta | None, str]] = []
    for status in STATUSES:
        keep: timedelta | None = getattr(otherwise, status)
        source = "default" if keep == getattr(Retention(), status) else "MINOOTS_RETENTION"
        for whose in (EVERYONE, tenant):
            if whose is not None and (whose, status) in said:
                keep, source = said[whose, status], "a rule of the tenant" if whose == tenant else "a rule for all"
        lines.append((tenant or EVERYONE, status, keep, source))
    if tenant is None:
        lines += [(*key, keep, "a rule of the tenant") for key, keep in said.items() if key[0] != EVERYONE]
    return [
        (whose, status, None if keep is None else keep.total_seconds(), source) for whose, status, keep, source in lines
    ]


def _print(lines: Sequence[tuple[str, str, float | None, str]]) -> None:
    from minoots.cli.show import lean_table, print_table

    table = lean_table("TENANT", "STATUS", "KEPT", "BY")
    for whose, status, seconds, source in lines:
        table.add_row(whose, status, _words(None if seconds is None else timedelta(seconds=seconds)), source)
    print_table(table)


def _words(keep: timedelta | None) -> str:
    from minoots.cli.words import span

    if keep is None:
        return "for ever"
    days = keep / timedelta(days=1)
    return f"{days:.0f} d" if days >= 1 and days == int(days) else span(keep.total_seconds())


def _name(whose: str) -> str:
    return "all tenants without a rule of their own" if whose == EVERYONE else f"tenant {whose}"


def _checked(tenant: str | None) -> str | None:
    from minoots.cli.exits import misused

    if tenant is not None and not re.fullmatch(TENANT, tenant):
        raise misused(
            f'"{tenant}" is no tenant: 1 to 128 letters, digits and _ : @ -, beginning with a letter or digit'
        )
    return tenant


def _settings() -> "Settings":
    from minoots.settings import Settings

    return Settings.from_env(os.environ)


def _run(settings: "Settings", work: "Callable[[Database, Connection], Awaitable[T]]") -> T:
    async def run() -> T:
        async with _opened(settings) as database, database.connection() as connection:
            return await work(database, connection)

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[Database]":
    """The database, if its schema is the one that this version knows."""
    from minoots.errors import ConfigError, StoreUnavailable
    from minoots.service.readiness import NO_ANSWER, Readiness
    from minoots.store.database import Database

    async with Database(settings.store) as database:
        if found := await Readiness(database, settings.env).problems():
            raise StoreUnavailable(found[0]) if found[0] == NO_ANSWER else ConfigError(found[0])
        yield database
