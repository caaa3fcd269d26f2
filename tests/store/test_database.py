"""The way to Postgres: driver errors become ours, secrets stay secret, and nothing needs a session."""

import asyncio
import json
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from minoots.domain.json_text import read_json
from minoots.domain.outcome import Answer, Delivered
from minoots.domain.timer import NewTimer, TimerRequest, admit
from minoots.embedded.ports import free_port
from minoots.errors import ConfigError, InvalidTimer, MinootsError, StoreUnavailable, TimerNotFound, TimerStateConflict
from minoots.service.readiness import Readiness
from minoots.service.timers import Timers
from minoots.settings import StoreSettings
from minoots.store import installation, outbox
from minoots.store.database import Database, describe_refusal, in_schema, translated
from minoots.store.timers import TimerFilter
from tests.support.life import DELIVERED, attempt, fire, make_deliveries_due
from tests.support.rules import WHOLE, calling
from tests.support.timers import Sql
from tests.support.waiting import eventually

SECRET = "s3cr3t-hunter2"


def store(url: str, *, prepared: bool = True) -> StoreSettings:
    return StoreSettings(url, "minoots", 4, prepared)


def at(url: str, **parts: str) -> str:
    """The URL with another user, port or database."""
    old = urlsplit(url)
    host = f"{parts.get('user', old.username)}:{SECRET}@{old.hostname}:{parts.get('port', old.port)}"
    return urlunsplit(old._replace(netloc=host, path=parts.get("path", old.path)))


def ask(**fields: object) -> NewTimer:
    return admit(read_json(json.dumps({"requestedBy": "ann", "duration": "1h"} | fields).encode(), TimerRequest))


async def refusal(settings: StoreSettings) -> MinootsError:
    with pytest.raises((StoreUnavailable, ConfigError)) as refused:
        async with Database(settings) as database, database.connection() as connection:
            await connection.fetchval("select 1")
    assert SECRET not in refused.value.detail
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    return refused.value


# ---- reaching it ----


async def test_no_url_is_told_by_its_setting() -> None:
    with pytest.raises(ConfigError, match="set MINOOTS_DATABASE_URL"):
        Database(StoreSettings(None, "minoots", 4, True))


@pytest.mark.parametrize(
    "url",
    [f"mysql://ann:{SECRET}@h/d", f"ann:{SECRET}@h", f"postgresql://ann:{SECRET}@h:port/d",
     f"postgresql://ann:{SECRET}@h/d?sslmode=maybe"],
)  # fmt: skip
async def test_a_url_that_is_none_is_told_without_its_password(url: str) -> None:
    refused = await refusal(store(url))
    assert isinstance(refused, ConfigError)
    assert "postgresql://user:password@host:5432/database" in refused.detail


async def test_a_port_where_nobody_listens_is_away(database_url: str) -> None:
    refused = await refusal(store(at(database_url, port=str(free_port()))))
    assert isinstance(refused, StoreUnavailable)
    assert not refused.is_refusal


async def test_a_host_that_there_is_not_is_away() -> None:
    assert isinstance(await refusal(store(f"postgresql://ann:{SECRET}@no-such-host.invalid/d")), StoreUnavailable)


async def test_a_user_or_password_that_is_refused_is_told_as_such(database_url: str) -> None:
    refused = await refusal(store(at(database_url, user="nobody_here")))
    assert refused.detail == "Postgres refuses the user or password in MINOOTS_DATABASE_URL"


async def test_a_database_that_there_is_not_is_told_as_such(database_url: str) -> None:
    url = urlunsplit(urlsplit(database_url)._replace(path="/no_such_database"))
    refused = await refusal(store(url))
    assert refused.detail == "Postgres refuses the database in MINOOTS_DATABASE_URL"


async def test_waiting_for_a_database_ends_at_once_where_waiting_does_not_help(database_url: str) -> None:
    async with Database(store(at(database_url, user="nobody_here"))) as database:
        with pytest.raises(ConfigError, match="user or password"):
            async with asyncio.timeout(5):
                await Readiness(database, "development").wait()


async def test_waiting_for_a_database_that_is_away_goes_on(database_url: str) -> None:
    async with Database(store(at(database_url, port=str(free_port())))) as database:
        readiness = Readiness(database, "development")
        assert await readiness.problems() == ["the database does not answer"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await readiness.wait()


async def test_a_replaced_clock_stops_production_alone(database: Database, sql: Sql) -> None:
    for replaced in (
        "return statement_timestamp() + interval '1 h'",
        "as 'select clock_timestamp()'",
    ):
        await sql.execute(
            f"create or replace function minoots.now() returns timestamptz language sql stable {replaced}"
        )
        assert await Readiness(database, "development").problems() == []
        (problem,) = await Readiness(database, "production").problems()
        assert "real clock" in problem
    await sql.execute(
        "create or replace function minoots.now() returns timestamptz language sql stable parallel safe "
        "as 'select statement_timestamp()'"
    )
    assert await Readiness(database, "production").problems() == []


# ---- errors on the way ----


async def test_a_lost_connection_is_away_and_the_next_one_works(database: Database, sql: Sql) -> None:
    async def lose() -> None:
        async with database.transaction() as connection:
            await sql.execute("select pg_terminate_backend($1)", connection.get_server_pid())
            await connection.fetchval("select pg_sleep(5)")

    with pytest.raises(StoreUnavailable):
        await lose()
    async with database.connection() as connection:
        assert await connection.fetchval("select 1") == 1


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("select pg_sleep(5)", StoreUnavailable),
        ("insert into minoots.tenants values ('demo')", StoreUnavailable),
    ],
    ids=["a statement that takes too long", "a lock that is not to be had"],
)
async def test_what_may_work_later_is_away(
    statement: str, error: type[Exception], database: Database, sql: Sql
) -> None:
    async with sql.transaction():
        await sql.execute("lock table minoots.tenants in access exclusive mode")
        with pytest.raises(error):
            async with database.guarded(lock="100ms", statement="300ms") as connection:
                await connection.execute(statement)


async def test_what_a_block_raises_is_not_hidden_by_the_rollback_that_fails(database: Database, sql: Sql) -> None:
    async def lose_and_fail() -> None:
        async with database.transaction() as connection:
            pid = connection.get_server_pid()
            await sql.execute("select pg_terminate_backend($1)", pid)
            is_gone = "select not exists (select from pg_stat_activity where pid = $1)"
            await eventually(lambda: sql.fetchval(is_gone, pid))
            raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        await lose_and_fail()
    async with database.connection() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_transaction_whose_settings_are_refused_is_none(database: Database) -> None:
    for _ in range(database._size + 1):
        with pytest.raises(asyncpg.UndefinedObjectError):
            async with database.transaction("set local no_such_setting = 1"):
                pytest.fail("it did not begin")
    async with database.connection() as connection:
        assert not connection.is_in_transaction()
        await connection.execute("insert into minoots.tenants values ('kept')")
    async with database.connection() as connection:
        assert await connection.fetchval("select count(*) from minoots.tenants where tenant_id = 'kept'") == 1


async def test_a_read_only_database_is_away_and_says_so(database: Database) -> None:
    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute("set transaction read only")
            await connection.execute("insert into minoots.tenants values ('demo')")

    with pytest.raises(StoreUnavailable, match="read-only"):
        await write()


async def test_a_rule_that_the_schema_knows_is_a_finding(database: Database) -> None:
    for tenant, fields, pointer in (
        ("a b", {}, "/tenantId"),
        ("demo", {"metadata": {str(n): 1e300 for n in range(230)}}, "/metadata"),
    ):
        with pytest.raises(InvalidTimer) as refused:
            await Timers(database).schedule(tenant, ask(**fields))
        assert [finding.pointer for finding in refused.value.findings] == [pointer]


async def test_every_rule_that_a_caller_can_break_has_its_sentence(sql: Sql) -> None:
    """The other constraints guard what no request writes."""
    ours = {
        "duration",
        "fired",
        "settled",
        "cancelled",
        "failure_reason",
        "occurrence",
        "version",
        "traceparent",
        "status",
        "fire_at",
        "counts",
        "planned",
    }
    rows = await sql.fetch(
        "select distinct conname from pg_constraint where connamespace = 'minoots'::regnamespace and contype = 'c' "
        "and conname like 'timers%'"
    )
    for name in {row["conname"] for row in rows} - {f"timers_{rule}" for rule in ours}:
        error = asyncpg.CheckViolationError("refused")
        error.constraint_name = name
        with pytest.raises(InvalidTimer) as refused, translated():
            raise error
        assert refused.value.detail


async def test_what_is_nobodys_fault_but_ours_stays_what_it_is(database: Database) -> None:
    with pytest.raises(asyncpg.UndefinedTableError):
        async with database.connection() as connection:
            await connection.fetch("select * from minoots.no_such_table")


async def test_the_victim_of_a_deadlock_tries_again(database: Database) -> None:
    tries = 0

    async def work() -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise asyncpg.DeadlockDetectedError("deadlock detected")
        return tries

    assert await database.repeat(work) == 3
    tries = -10
    with pytest.raises(asyncpg.DeadlockDetectedError):
        await database.repeat(work)


async def test_a_refused_row_is_described_without_what_is_in_it(sql: Sql) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await sql.execute("insert into minoots.timers (tenant_id, name, fire_at) values ($1, '', now())", SECRET)
    assert SECRET in str(refused.value.detail)
    assert SECRET not in describe_refusal(refused.value)
    assert "timers_name" in describe_refusal(refused.value)


async def test_a_loops_transaction_ends_when_its_process_is_stopped(database: Database) -> None:
    async def stall() -> None:
        async with database.guarded(idle="100ms") as connection:
            await asyncio.sleep(0.5)
            await connection.fetchval("select 1")

    with pytest.raises(StoreUnavailable):
        await stall()


async def test_a_loops_settings_are_gone_with_its_transaction(database_url: str) -> None:
    async with Database(StoreSettings(database_url, "minoots", 2, True)) as database:
        async with database.guarded() as connection:
            assert await connection.fetchval("show lock_timeout") == "2s"
        async with database.connection() as connection:
            assert await connection.fetchval("show lock_timeout") == "0"
            assert await connection.fetchval("show statement_timeout") == "0"
            assert await connection.fetchval("show idle_in_transaction_session_timeout") == "0"


# ---- without named prepared statements ----


@pytest.fixture
async def pooled(database_url: str) -> AsyncIterator[Database]:
    """As it is set up behind PgBouncer in transaction mode."""
    async with Database(store(database_url, prepared=False)) as opened:
        yield opened


async def prepared_statements(database: Database) -> int:
    async with database.connection() as connection:
        return await connection.fetchval("select count(*) from pg_prepared_statements where name <> ''")


async def test_a_whole_life_leaves_no_prepared_statement_behind(pooled: Database, sql: Sql) -> None:
    timers = Timers(pooled)
    kept = await timers.schedule("demo", ask(**WHOLE))
    many = await timers.schedule_many("demo", [ask(name=str(n)) for n in range(3)], "k")
    assert await timers.schedule_many("demo", [ask(name=str(n)) for n in range(3)], "k") == many
    now = datetime.now(UTC).isoformat()
    acting = await timers.schedule("demo", ask(duration=None, fireAt=now, actionBundle=calling()))
    assert (await timers.get("demo", kept.id)).id == kept.id
    wanted = TimerFilter(
        ("scheduled",), {"kind": "tea"}, WHOLE["name"], datetime.now(UTC) + timedelta(hours=2), None, None, 5
    )
    assert [timer.id for timer in (await timers.list_timers("demo", wanted)).items] == [kept.id]
    assert (await timers.cancel("demo", kept.id, "ann", "why")).status == "cancelled"
    with pytest.raises(TimerNotFound):
        await timers.get("demo", uuid4())
    assert (await fire(pooled)).fired == 1
    await make_deliveries_due(sql)
    assert await attempt(pooled, Delivered(Answer(1, 200)), DELIVERED) == 1
    assert (await timers.get("demo", acting.id)).status == "settled"
    assert [firing.status for firing in (await timers.list_firings("demo", acting.id, None, 5)).items] == ["settled"]
    (delivery,) = (await timers.get_firing("demo", acting.id, 1)).deliveries or ()
    assert (delivery.status, len(delivery.attempts)) == ("delivered", 1)
    with pytest.raises(TimerStateConflict):
        await timers.cancel("demo", acting.id, "ann")
    assert await timers.are_events_on()
    async with pooled.guarded() as connection:
        shards, _ = await outbox.look(pooled, connection, dict.fromkeys(outbox.SHARDS, 0))
        locked, _ = await outbox.lock_shards(pooled, connection, shards, 0, 8)
        found = await outbox.read_events(pooled, connection, dict.fromkeys(locked, 0), 10)
        await outbox.remove_events(pooled, connection, locked, [event.id for event in found])
        assert found
        await installation.beat(pooled, connection, "here", "api", "1")
    assert await Readiness(pooled, "production").problems() == []
    assert await prepared_statements(pooled) == 0


async def test_otherwise_statements_are_prepared_once(database: Database) -> None:
    timers = Timers(database)
    for _ in range(3):
        await timers.schedule("demo", ask())
    assert await prepared_statements(database) > 0


# ---- another schema ----


@pytest.mark.parametrize(
    ("statement", "there"),
    [
        ("select minoots.now() from minoots.timers", 'select "x".now() from "x".timers'),
        ("values ('minoots.timer.fired', minoots.now())", "values ('minoots.timer.fired', \"x\".now())"),
        ("(minoots.f(minoots.g))", '("x".f("x".g))'),
        ("select '/minoots.x', 'a-minoots.b'", "select '/minoots.x', 'a-minoots.b'"),
    ],
)
def test_a_statement_is_put_into_the_installations_schema(statement: str, there: str) -> None:
    assert in_schema(statement, "x") == there
    assert in_schema(statement, "minoots") == statement
