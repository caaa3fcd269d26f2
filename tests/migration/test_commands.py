"""`alembic upgrade head` in a checkout and `minoots migrate` from a wheel do the same."""

import asyncio
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from minoots.store.migrate import newest_revision
from tests.conftest import DatabaseServer, with_database
from tests.support.processes import ROOT
from tests.support.schema import describe
from tests.support.timers import Sql

OURS = ("MINOOTS_", "DATABASE_URL", "NATS_", "API_KEYS_", "PYTHONPATH")


@pytest.fixture
async def empty_url(database_server: DatabaseServer) -> AsyncIterator[str]:
    """A database without anything of ours."""
    name = f"test_{uuid4().hex[:12]}"
    server = await asyncpg.connect(database_server.url)
    await server.execute(f'create database "{name}"')
    yield with_database(database_server.url, name)
    await server.execute(f'drop database "{name}" with (force)')
    await server.close()


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(empty_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, and unpacked where nothing of it can be seen."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]

    async def build() -> None:
        await run([*pip, "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(folder)], {}, folder)
        (made,) = folder.glob("minoots-*.whl")
        await run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(made)], {}, folder)

    asyncio.run(build())
    return folder


async def run(argv: list[str], environ: Mapping[str, str], cwd: Path) -> str:
    """What the command printed; fails unless it ends well."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        *argv, env=kept | dict(environ), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        shown, _ = await process.communicate()
    assert process.returncode == 0, shown.decode()
    return shown.decode()


@pytest.fixture
def alembic() -> list[str]:
    return [sys.executable, "-m", "alembic"]


async def test_alembic_in_the_checkout_makes_what_upgrade_makes(
    alembic: list[str], empty_url: str, empty: Sql, sql: Sql
) -> None:
    await run([*alembic, "upgrade", "head"], {"MINOOTS_DATABASE_URL": empty_url}, ROOT)
    assert await describe(empty) == await describe(sql)


async def test_alembic_reads_the_settings_of_every_command(
    alembic: list[str], empty_url: str, empty: Sql, sql: Sql
) -> None:
    await run([*alembic, "upgrade", "head"], {"DATABASE_URL": empty_url, "MINOOTS_SCHEMA": "other"}, ROOT)
    assert await describe(empty, "other") == await describe(sql)
    shown = await run([*alembic, "current"], {"DATABASE_URL": empty_url, "MINOOTS_SCHEMA": "other"}, ROOT)
    assert f"{newest_revision()} (head)" in shown


async def test_alembics_offline_sql_makes_what_upgrade_makes(
    alembic: list[str], empty_url: str, empty: Sql, sql: Sql
) -> None:
    """For whoever must hand a script to a keeper of the database."""
    script = await run([*alembic, "upgrade", "head", "--sql"], {}, ROOT)
    await empty.execute("\n".join(line for line in script.splitlines() if not line.startswith("INFO ")))
    assert await describe(empty) == await describe(sql)


async def test_alembic_without_a_database_says_what_to_set(alembic: list[str]) -> None:
    with pytest.raises(AssertionError, match="set MINOOTS_DATABASE_URL"):
        await run([*alembic, "upgrade", "head"], {}, ROOT)


def revisions() -> Iterator[str]:
    return (file.name for file in (ROOT / "migrations/versions").glob("*.py"))


def test_a_wheel_carries_the_migrations(wheel: Path) -> None:
    (made,) = wheel.glob("minoots-*.whl")
    names = set(zipfile.ZipFile(made).namelist())
    assert names >= {f"minoots/migrations/versions/{name}" for name in revisions()}
    assert names >= {"minoots/alembic.ini", "minoots/migrations/env.py", "minoots/rpc/pb/timer_pb2.py"}
    assert not [name for name in names if name.startswith(("tests/", "migrations/"))]


async def test_migrate_from_a_wheel_makes_what_alembic_in_the_checkout_makes(
    wheel: Path, empty_url: str, empty: Sql, sql: Sql
) -> None:
    environ = {"PYTHONPATH": str(wheel / "site"), "MINOOTS_DATABASE_URL": empty_url, "PYTHONSAFEPATH": "1"}
    where = await run([sys.executable, "-c", "import minoots; print(minoots.__file__)"], environ, wheel)
    assert Path(where.strip()).is_relative_to(wheel), "the checkout must not be what is tried"
    shown = await run([sys.executable, "-m", "minoots", "migrate"], environ, wheel)
    assert f"the schema minoots is at revision {newest_revision()}" in shown
    assert await describe(empty) == await describe(sql)
    again = await run([sys.executable, "-m", "minoots", "migrate"], environ, wheel)
    assert f"the schema minoots is at revision {newest_revision()}" in again


async def test_migrations_started_at_once_as_processes_all_succeed(empty_url: str, empty: Sql, sql: Sql) -> None:
    environ = {"PYTHONPATH": str(ROOT), "MINOOTS_DATABASE_URL": empty_url}
    await asyncio.gather(*(run([sys.executable, "-m", "minoots", "migrate"], environ, ROOT) for _ in range(2)))
    assert await describe(empty) == await describe(sql)
