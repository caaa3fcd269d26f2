"""Another schema is another MINOOTS: beside the first in one database, and nothing to do with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from minoots.clock import SystemClock
from minoots.domain.json_text import read_json
from minoots.domain.outcome import Answer, Delivered
from minoots.domain.timer import NewTimer, TimerRequest, admit
from minoots.embedded.ports import free_port
from minoots.errors import StoreUnavailable
from minoots.kernel.firing import Kernel
from minoots.kernel.prune import Pruner
from minoots.service.readiness import Readiness
from minoots.service.timers import Timers
from minoots.settings import Settings
from minoots.store import installation
from minoots.store.database import Database
from minoots.store.migrate import downgrade, upgrade
from minoots.store.timers import TimerFilter
from tests.support.life import DELIVERED, attempt, fire
from tests.support.rules import WHOLE, calling
from tests.support.schema import contents, describe
from tests.support.timers import Sql

# A word of SQL, so that a name that is not quoted somewhere shows.
OTHER = "order"


def ask(**fields: object) -> NewTimer:
    return admit(read_json(json.dumps({"requestedBy": "ann", "duration": "1h"} | fields).encode(), TimerRequest))


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[Database]:
    await upgrade(database_url, OTHER)
    environ = {"MINOOTS_DATABASE_URL": database_url, "MINOOTS_SCHEMA": OTHER}
    async with Database(Settings.from_env(environ).store) as opened:
        yield opened


async def live(database: Database, sql: Sql) -> None:
    """Every door and every role, once, in the schema of this database."""
    timers = Timers(database)
    made = await timers.schedule("demo", ask(**WHOLE), "k")
    assert (await timers.schedule("demo", ask(**WHOLE), "k")).id == made.id
    page = await timers.list_timers("demo", TimerFilter(("scheduled",), {"kind": "tea"}, limit=10))
    assert [timer.id for timer in page.items] == [made.id]
    assert (await timers.cancel("demo", made.id, "ann")).status == "cancelled"
    door = f'"{database.schema}"'
    by_sql = await sql.fetchval(
        f"select {door}.schedule_timer('demo', fire_at => {door}.now(), action_bundle => $1, idempotency_key => 's')",
        json.dumps(calling()),
    )
    assert (await timers.get("demo", by_sql)).status == "scheduled"
    cancelled = await sql.fetchval(f"select {door}.schedule_timer('demo', fire_in => '1 h')")
    assert await sql.fetchval(f"select {door}.cancel_timer('demo', $1)", cancelled)
    assert (await fire(database)).fired == 1
    await sql.execute(f"update {door}.deliveries set next_attempt_at = {door}.now()")
    assert await attempt(database, Delivered(Answer(1, 200)), DELIVERED) == 1
    assert (await timers.get("demo", by_sql)).status == "settled"
    firing = await timers.get_firing("demo", by_sql, 1)
    assert firing.status == "settled"
    assert await Pruner(database).run_once() == 0
    async with database.transaction() as connection:
        await installation.beat(database, connection, "here", "api", "1")
    for view in ("timer_overview", "lateness"):
        assert await sql.fetch(f"select * from {door}.{view}")


async def test_another_schema_is_made_like_the_first(other: Database, sql: Sql) -> None:
    assert await describe(sql, OTHER) == await describe(sql, "minoots")
    assert await Readiness(other, "production").problems() == []


async def test_nothing_in_it_speaks_of_the_first(other: Database, sql: Sql) -> None:
    await sql.execute("set search_path = pg_catalog")
    for column, query in {
        "function": f"""select pg_get_functiondef(oid) from pg_proc where pronamespace = '"{OTHER}"'::regnamespace""",
        "view": f"""select pg_get_viewdef(oid) from pg_class where relnamespace = '"{OTHER}"'::regnamespace""",
        "default": f"""select pg_get_expr(adbin, adrelid) from pg_attrdef d join pg_class c on c.oid = d.adrelid
                        where relnamespace = '"{OTHER}"'::regnamespace""",
        "check": f"""select pg_get_constraintdef(oid) from pg_constraint
                      where connamespace = '"{OTHER}"'::regnamespace""",
    }.items():
        shown = [row[0] for row in await sql.fetch(query)]
        assert shown
        assert [text for text in shown if text and "minoots." in text] == [], column


async def test_a_whole_life_in_one_leaves_the_other_as_it_was(other: Database, database: Database, sql: Sql) -> None:
    empty = await contents(sql, "minoots")
    await live(other, sql)
    assert await contents(sql, "minoots") == empty
    lived = await contents(sql, OTHER)
    await live(database, sql)
    assert await contents(sql, OTHER) == lived


async def test_a_kernel_looks_and_scans_in_its_own(other: Database, sql: Sql) -> None:
    await sql.execute("""insert into "order".timers (tenant_id, name, fire_at) values ('demo', 'x', now())""")
    kernel = Kernel(other, SystemClock(), 10)
    await kernel.scan_once()
    await kernel.tick()
    assert await sql.fetchval('select count(*) from "order".firings') == 1


async def test_one_goes_on_when_the_other_is_gone(other: Database, database: Database, sql: Sql) -> None:
    await sql.execute("drop schema minoots cascade")
    await live(other, sql)
    assert await Readiness(other, "development").problems() == []
    (problem,) = await Readiness(database, "development").problems()
    assert problem == "the schema minoots is not there yet: run `minoots migrate` (or `alembic upgrade head`)"


async def test_a_key_in_flight_in_one_is_free_in_the_other(other: Database, sql: Sql) -> None:
    async with sql.transaction():
        assert await sql.fetchval("select minoots.lock_idempotency_key('demo', 'k')")
        assert (await Timers(other).schedule("demo", ask(), "k")).status == "scheduled"


async def test_events_are_switched_in_one_alone(other: Database, database: Database) -> None:
    async with other.connection() as connection:
        await installation.switch_events(other, connection, False)
    assert not await Timers(other).are_events_on()
    assert await Timers(database).are_events_on()


async def test_undoing_one_leaves_the_other_as_it_was(other: Database, database_url: str, sql: Sql) -> None:
    before = await describe(sql, "minoots")
    await downgrade(database_url, OTHER, "base")
    assert await describe(sql, "minoots") == before


async def test_a_user_that_owns_the_schema_alone_can_migrate_it(database_url: str, sql: Sql) -> None:
    """As where somebody else made the database, its user and the schema: no right to create schemas."""
    await sql.execute("create role keeper_of_timers login password 'x' nosuperuser")
    try:
        await sql.execute("create schema kept authorization keeper_of_timers")
        scheme, _, rest = database_url.partition("://")
        await upgrade(f"{scheme}://keeper_of_timers:x@{rest.rpartition('@')[2]}", "kept")
        assert await sql.fetchval("select version_num from kept.alembic_version")
    finally:
        await sql.execute("drop schema kept cascade")
        await sql.execute("drop role keeper_of_timers")


async def test_a_url_may_hold_what_asyncpg_understands(database_url: str, sql: Sql) -> None:
    await sql.execute("drop schema minoots cascade")
    await upgrade(f"{database_url}?sslmode=prefer&application_name=migrating", "minoots")
    async with Database(Settings.from_env({"MINOOTS_DATABASE_URL": database_url}).store) as database:
        await live(database, sql)


async def test_two_upgrades_at_once_both_succeed(database_url: str, sql: Sql) -> None:
    before = await describe(sql, "minoots")
    await sql.execute("drop schema minoots cascade")
    results = await asyncio.gather(*(upgrade(database_url, "minoots") for _ in range(4)), return_exceptions=True)
    assert results == [None] * 4
    assert await describe(sql, "minoots") == before


@pytest.mark.parametrize("step", [upgrade, downgrade])
async def test_a_database_that_is_away_is_told_as_everywhere(step: Any, database_url: str) -> None:
    for url, words in (
        (f"postgresql://ann@127.0.0.1:{free_port()}/x", "cannot be reached"),
        (database_url.rsplit("/", 1)[0] + "/no_such_database", "refuses the database"),
    ):
        with pytest.raises(StoreUnavailable, match=words):
            await step(url, "minoots", "head")
