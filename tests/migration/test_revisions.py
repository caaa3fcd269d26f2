"""The revisions: up, down, and up again with rows present; one head; and the tables as the code knows them."""

import ast
import json
import re
import warnings
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql import DOMAIN
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from minoots.clock import SystemClock
from minoots.domain.outcome import Answer, Delivered, Retry
from minoots.kernel.firing import Kernel
from minoots.kernel.planning import Planner
from minoots.service.timers import Timers
from minoots.settings import StoreSettings
from minoots.store.database import Database
from minoots.store.migrate import alembic_config, downgrade, newest_revision, upgrade
from minoots.store.tables import metadata
from minoots.wiring import ROLES
from tests.conftest import DatabaseServer, with_database
from tests.support.life import DEAD, DELIVERED, attempt, fire, make_deliveries_due
from tests.support.rules import WHOLE
from tests.support.schema import contents, describe
from tests.support.timers import Sql, bundle, count, insert_timers, webhook

SCRIPTS = ScriptDirectory.from_config(alembic_config(None, "minoots"))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
# What earlier revisions know of what tables_of is asked about.
FOLDER = Path(SCRIPTS.versions)
# Rows with all that has to be escaped or written in one form.
AWKWARD = [
    """update minoots.timers set name = coalesce(name, '') || e'"a" \\\\ b\\n\\tü €', requested_by = 'me "too"'""",
    """insert into minoots.timers (tenant_id, name, fire_at, status, cancelled_at, cancel_reason, cancelled_by)
       values ('demo', 'gone', minoots.now() + interval '1 h', 'cancelled', minoots.now(), e'no "more"\\n', 'ü')""",
    """insert into minoots.timers (tenant_id, name, fire_at, duration_ms, metadata)
       values ('demo:@-x', null, '2100-01-01', 5, '{"n": 1e300, "u": "\\u00fc\\n", "nested": [{}, [], null, 1.50]}')""",
    "update minoots.deliveries set dead_reason = e'\"x\" \\\\ y\\n' where status = 'dead'",
    """update minoots.deliveries set ack_outcome = 'done', ack_note = e'"n"\\nü', ack_result = '{"a": [1, "b"]}',
                                     ack_at = minoots.now() where status = 'delivered'""",
]


@pytest.fixture
async def empty_url(database_server: DatabaseServer) -> AsyncIterator[str]:
    """A database without anything of ours."""
    name = f"test_{uuid4().hex[:12]}"
    server = await asyncpg.connect(database_server.url)
    await server.execute(f'create database "{name}"')
    url = with_database(database_server.url, name)
    yield url
    await server.execute(f'drop database "{name}" with (force)')
    await server.close()


@pytest.fixture
async def empty(empty_url: str) -> AsyncIterator[Sql]:
    connection = await asyncpg.connect(empty_url)
    yield connection
    await connection.close()


async def live(url: str, sql: Sql) -> None:
    """Leave rows of every kind in the newest schema."""
    async with Database(StoreSettings(url, "minoots", 2, True)) as database:
        await sql.execute(
            "select minoots.schedule_timer('demo', 'x', fire_in => '1 h', metadata => $1, idempotency_key => 'k')",
            json.dumps(WHOLE["metadata"]),
        )
        for outcome, verdict in (
            (Delivered(Answer(1, 200, "ok")), DELIVERED),
            (Retry("HTTP 500", Answer(1, 500)), DEAD),
        ):
            await insert_timers(sql, 1, actions=bundle(webhook("http://h/")))
            await fire(database)
            await make_deliveries_due(sql)
            await attempt(database, outcome, verdict)
        await recur(database, sql)
        await sql.execute("insert into minoots.nodes values ('here', $1, '1')", ROLES[0])
        await sql.execute("insert into minoots.retention values ('demo', 'settled', '7 days')")
        await sql.execute("insert into minoots.lanes (tenant_id, lane, concurrency) values ('demo', 'http://h', 3)")
        await sql.execute(
            "insert into minoots.signing_secrets (tenant_id, wrapped) values ('demo', decode(repeat('01', 65), 'hex'))"
        )


async def recur(database: Database, sql: Sql) -> None:
    """A recurring timer with a firing that is still open."""
    planner = Planner(database)
    kernel = Kernel(database, SystemClock(), 500, on_recurring=planner.ask)
    await sql.execute(
        "insert into minoots.timers (tenant_id, schedule, action_bundle) values ('demo', $1, $2)",
        json.dumps({"every": "1h"}),
        json.dumps(bundle(webhook("http://h/"))),
    )
    await planner.run_once()
    await sql.execute("update minoots.timers set extra_firings = 1 where schedule is not null")
    await planner.run_once()
    assert not (await kernel.scan_once()).claimed


# ---- the files ----


def test_there_is_one_head_and_one_line_of_revisions() -> None:
    assert SCRIPTS.get_heads() == [newest_revision()]
    assert [SCRIPTS.get_revision(revision).down_revision for revision in REVISIONS] == [None, *REVISIONS[:-1]]
    assert sorted(REVISIONS) == REVISIONS


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_a_revision_stands_for_itself(file: Path) -> None:
    """It is frozen: what the code becomes later changes nothing of it."""
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names <= {"sqlalchemy", "alembic"}
    assert re.match(r"\d{4}_", file.name)


# ---- up and down ----


async def test_down_to_the_base_leaves_nothing_and_up_again_leaves_the_same(empty_url: str, empty: Sql) -> None:
    await upgrade(empty_url, "minoots")
    first = await describe(empty)
    await downgrade(empty_url, "minoots", "base")
    left = await describe(empty)
    assert set(left.pop("tables")) == {"alembic_version"}
    assert {part for part, found in left.items() if any("alembic_version" not in name for name in found)} == set()
    await upgrade(empty_url, "minoots")
    assert await describe(empty) == first


async def test_each_revision_undoes_what_it_did(empty_url: str, empty: Sql) -> None:
    before: list[Any] = []
    for revision in REVISIONS:
        await upgrade(empty_url, "minoots", revision)
        before.append(await describe(empty))
    for revision, expected in list(zip(REVISIONS, before, strict=True))[-2::-1]:
        await downgrade(empty_url, "minoots", revision)
        assert await describe(empty) == expected, f"down to {revision}"


Contents = Mapping[str, list[dict[str, Any]]]


def without_recurring(before: Contents) -> Contents:
    """As 0005 leaves it on the way down: what no former version could show is gone."""
    recurring = {row["id"] for row in before["timers"] if row["schedule"] is not None}
    return {
        table: [row for row in rows if table == "outbox" or not {row.get("id"), row.get("timer_id")} & recurring]
        for table, rows in before.items()
    }


def as_known(rows: list[dict[str, Any]], kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These rows with the columns that the older schema has."""
    columns = set(kept[0]) if kept else set()
    return [{name: value for name, value in row.items() if name in columns} for row in rows]


async def test_up_and_down_with_rows_keeps_what_both_sides_know(database_url: str, sql: Sql) -> None:
    await live(database_url, sql)
    before = await contents(sql)
    assert [table for table, rows in before.items() if not rows] == []
    for revision in REVISIONS[-2::-1]:
        await downgrade(database_url, "minoots", revision)
        kept = await contents(sql)
        del kept["alembic_version"]
        known = without_recurring(before) if revision < "0005" else before
        assert kept == {table: as_known(known[table], kept[table]) for table in kept}, f"down to {revision}"
        assert kept["timers"]
    await upgrade(database_url, "minoots")
    assert (await contents(sql))["timers"] == without_recurring(before)["timers"]
    async with Database(StoreSettings(database_url, "minoots", 2, True)) as database:
        (timer,) = [one for one in before["timers"] if one["name"] == "x"]
        assert (await Timers(database).cancel("demo", timer["id"], "ann")).status == "cancelled"


async def test_down_to_the_base_with_rows_is_not_in_the_way_of_a_new_beginning(database_url: str, sql: Sql) -> None:
    await live(database_url, sql)
    await downgrade(database_url, "minoots", "base")
    await upgrade(database_url, "minoots")
    assert await count(sql, "true") == 0
    assert await count(sql, "events", "installation") == 1
    assert await count(sql, "true", "outbox_shards") == 8


async def test_what_is_shown_of_a_row_has_not_changed_by_a_byte(database_url: str, sql: Sql) -> None:
    """Every attempt sends the same body, also one that is made after an upgrade."""
    await live(database_url, sql)
    for statement in AWKWARD:
        await sql.execute(statement)

    async def shown() -> list[str]:
        rows = []
        for kind, table in (("timer", "timers"), ("firing", "firings"), ("delivery", "deliveries")):
            rows += await sql.fetch(f"select minoots.{kind}_json(x)::text from minoots.{table} x order by 1")
        return [row[0] for row in rows]

    now = await shown()
    assert len(now) > 8
    await downgrade(database_url, "minoots", "0013")
    assert await shown() == now


async def test_a_revision_that_fails_leaves_nothing_of_itself(empty_url: str, empty: Sql) -> None:
    await upgrade(empty_url, "minoots", REVISIONS[0])
    before = await describe(empty)
    # In the way of the last revision, so that those between have run already.
    await empty.execute("create table minoots.nodes (x int)")
    with pytest.raises(sa.exc.ProgrammingError, match="already exists"):
        await upgrade(empty_url, "minoots")
    await empty.execute("drop table minoots.nodes")
    assert await describe(empty) == before
    await upgrade(empty_url, "minoots")


# ---- the tables in the code ----


def plain(columns: Mapping[str, str], domains: Mapping[str, str]) -> dict[str, str]:
    """A default that is a number may be kept with its type; a domain is its base with rules of the revisions."""
    shown = {name: re.sub(r"'(\d+)'::(smallint|bigint)\b", r"\1", text) for name, text in columns.items()}
    shown = {name: text.replace("(schedule)::jsonb", "schedule") for name, text in shown.items()}
    return {name: re.sub(r"^minoots\.(\w+)", lambda found: domains[found[1]], text) for name, text in shown.items()}


def differs(_: Any, __: Any, ___: Any, migrated: Any, known: Any) -> bool | None:
    """Alembic's own comparison (None), but for domains: those are the revisions', the code knows their base."""
    if isinstance(migrated, DOMAIN):
        return not isinstance(migrated.data_type, type(known))
    return None


def engine(url: str) -> AsyncEngine:
    # A user named minoots would have the schema minoots in its search path, and then tables show up without a schema.
    connect = partial(asyncpg.connect, url, server_settings={"search_path": "public"})
    return create_async_engine("postgresql+asyncpg://", poolclass=sa.NullPool, async_creator=connect)


async def test_the_tables_in_the_code_are_those_of_the_schema(database_url: str) -> None:
    def compare(connection: sa.Connection) -> list[Any]:
        options = {
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == "minoots",
            "version_table_schema": "minoots",
            "compare_type": differs,
            "compare_server_default": True,
        }
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    opened = engine(database_url)
    async with opened.connect() as connection:
        with warnings.catch_warnings():
            # Postgres writes a generated column's expression in its own way; the next test compares them.
            warnings.filterwarnings("ignore", "Computed default on .* cannot be modified")
            found = await connection.run_sync(compare)
    await opened.dispose()
    changes = [change for group in found for change in (group if isinstance(group, list) else [group])]
    # Comments are the revisions' alone: the code has no use for them, and would have to repeat every one.
    assert [change for change in changes if change[0] not in {"remove_table_comment", "modify_comment"}] == []


async def test_tables_made_by_the_code_are_those_that_the_revisions_make(database_url: str, sql: Sql) -> None:
    """Columns, defaults, generated columns, keys and indexes. CHECKs and storage settings are the revisions' alone."""
    migrated = await describe(sql)
    await sql.execute("drop function minoots.forget_timers cascade")
    for table in metadata.tables.values():
        await sql.execute(f"drop table minoots.{table.name} cascade")
    opened = engine(database_url)
    async with opened.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await opened.dispose()
    made = await describe(sql)
    assert plain(made["columns"], {}) == plain(migrated["columns"], migrated["domains"])
    assert made["indexes"] == {
        # How full its pages are is a storage setting.
        name: re.sub(r" WITH \(fillfactor='\d+'\)", "", shown)
        for name, shown in migrated["indexes"].items()
    }

    def keys(schema: Any) -> dict[str, str]:
        return {name: shown for name, shown in schema["constraints"].items() if shown.startswith(("PRIMARY", "UNIQUE"))}

    assert keys(made) == keys(migrated)
