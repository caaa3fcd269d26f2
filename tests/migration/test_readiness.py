"""A schema of another version stops a process before it does anything, and says what to do."""

import pytest

from minoots.errors import ConfigError
from minoots.service.readiness import Readiness
from minoots.store.database import Database
from minoots.store.migrate import downgrade, newest_revision, upgrade
from tests.support.timers import Sql


@pytest.mark.parametrize("env", ["development", "production"])
@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("9999", r"newer than this version \(\d{4}\): install a newer one"),
        ("zzzz", "newer"),
        ("0000", "run `minoots migrate`"),
    ],
)
async def test_an_unknown_revision_is_told(revision: str, words: str, env: str, database: Database, sql: Sql) -> None:
    await sql.execute("update minoots.alembic_version set version_num = $1", revision)
    (problem,) = await Readiness(database, env).problems()
    assert f"the schema minoots is at revision {revision}" in problem
    with pytest.raises(ConfigError, match=words):
        await Readiness(database, env).wait()


async def test_an_older_revision_is_told_and_gone_after_migrating(database: Database, database_url: str) -> None:
    await downgrade(database_url, "minoots", "-1")
    with pytest.raises(ConfigError, match=f"this version needs {newest_revision()}: run `minoots migrate`"):
        await Readiness(database, "development").wait()
    await upgrade(database_url, "minoots")
    await Readiness(database, "production").wait()


async def test_a_schema_that_was_never_migrated_is_told(database: Database, database_url: str, sql: Sql) -> None:
    await downgrade(database_url, "minoots", "base")
    with pytest.raises(ConfigError, match="the schema minoots is not there yet: run `minoots migrate`"):
        await Readiness(database, "development").wait()
    await sql.execute("drop schema minoots cascade")
    with pytest.raises(ConfigError, match="the schema minoots is not there yet: run `minoots migrate`"):
        await Readiness(database, "development").wait()
