"""The SQL door: a timer made and cancelled inside of somebody's own transaction, as REST would make it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import pytest

from minoots.domain.json_text import read_json
from minoots.domain.timer import NewTimer, Timer, TimerRequest, admit
from minoots.errors import IdempotencyInFlight, IdempotencyMismatch
from minoots.service.timers import Timers
from minoots.store.database import Database
from tests.store.conftest import WRITTEN
from tests.support.life import fire
from tests.support.rules import BAD, WHOLE
from tests.support.timers import Sql, count

ARGUMENTS = {
    "requestedBy": ("requested_by", "text"),
    "name": ("name", "text"),
    "metadata": ("metadata", "jsonb"),
    "labels": ("labels", "jsonb"),
    "actionBundle": ("action_bundle", "jsonb"),
    "agentBinding": ("agent_binding", "jsonb"),
    "idempotencyKey": ("idempotency_key", "text"),
    "fireIn": ("fire_in", "interval"),
    "fireAt": ("fire_at", "timestamptz"),
}


async def schedule(sql: Sql, asked: Mapping[str, Any], tenant: str = "demo") -> UUID:
    """`minoots.schedule_timer` with named arguments, from a request in REST's words; due in an hour by default."""
    asked = {"fireIn": timedelta(hours=1)} | dict(asked) if "fireAt" not in asked else asked
    places, values = ["tenant_id => $1"], [tenant]
    for name, value in asked.items():
        argument, kind = ARGUMENTS[name]
        values.append(json.dumps(value) if kind == "jsonb" else value)
        places.append(f"{argument} => ${len(values)}::{kind}")
    return await sql.fetchval(f"select minoots.schedule_timer({', '.join(places)})", *values)


async def show(sql: Sql, timer_id: UUID) -> dict[str, Any]:
    return json.loads(await sql.fetchval("select minoots.timer_json(t) from minoots.timers t where id = $1", timer_id))


async def events(sql: Sql) -> list[tuple[str, Any]]:
    rows = await sql.fetch("select kind, data from minoots.outbox order by id")
    return [(row["kind"], json.loads(row["data"])) for row in rows]


def ask(**fields: Any) -> NewTimer:
    """The same request at the other doors."""
    return admit(read_json(json.dumps({"requestedBy": "ann"} | fields).encode(), TimerRequest))


# ---- scheduling ----


async def test_a_timer_with_everything_is_kept_as_it_was_asked_for(sql: Sql) -> None:
    timer = await show(sql, await schedule(sql, WHOLE | {"fireIn": timedelta(seconds=90)}))
    assert {name: timer[name] for name in WHOLE} == WHOLE
    assert (timer["tenantId"], timer["status"], timer["durationMs"]) == ("demo", "scheduled", 90_000)
    span = datetime.fromisoformat(timer["fireAt"]) - datetime.fromisoformat(timer["createdAt"])
    assert span == timedelta(seconds=90)
    assert (timer["occurrence"], timer["version"]) == (0, 1)
    assert UUID(timer["id"]).version == 7
    ended = ("firedAt", "settledAt", "cancelledAt", "cancelReason", "cancelledBy", "failureReason", "schedule")
    assert all(timer[name] is None for name in ended)


async def test_the_least_call_names_a_tenant_and_an_instant(sql: Sql) -> None:
    made = await sql.fetchval("select minoots.schedule_timer('demo', fire_at => '2030-01-31 09:00+01')")
    timer = await show(sql, made)
    assert timer["fireAt"] == "2030-01-31T08:00:00.000000Z"
    assert (timer["name"], timer["durationMs"], timer["labels"]) == (None, None, {})
    assert timer["requestedBy"] == await sql.fetchval("select current_user")


async def test_a_timer_is_announced_with_itself(sql: Sql) -> None:
    timer_id = await schedule(sql, WHOLE)
    assert await events(sql) == [("timer.scheduled", {"timer": await show(sql, timer_id)})]


async def test_without_events_nothing_is_announced(sql: Sql) -> None:
    await sql.execute("update minoots.installation set events = false")
    timer_id = await schedule(sql, WHOLE)
    assert await sql.fetchval("select minoots.cancel_timer('demo', $1)", timer_id)
    assert await count(sql, "true", "outbox") == 0


async def test_a_rollback_leaves_nothing(sql: Sql) -> None:
    transaction = sql.transaction()
    await transaction.start()
    timer_id = await schedule(sql, WHOLE | {"idempotencyKey": "k"})
    assert await sql.fetchval("select minoots.cancel_timer('demo', $1)", timer_id)
    assert [await count(sql, "true", table) for table in WRITTEN] == [1, 2, 1, 1]
    await transaction.rollback()
    assert [await count(sql, "true", table) for table in WRITTEN] == [0, 0, 0, 0]


async def test_the_timer_and_the_users_own_rows_are_committed_together(sql: Sql, database_url: str) -> None:
    await sql.execute("create table orders (id int primary key, timer_id uuid)")
    other = await asyncpg.connect(database_url)
    try:
        async with sql.transaction():
            await sql.execute("insert into orders values (1, minoots.schedule_timer('demo', fire_in => '1 h'))")
            assert await count(other, "true") == 0
        joined = "select count(*) from orders o join minoots.timers t on t.id = o.timer_id"
        assert await other.fetchval(joined) == 1
        with pytest.raises(asyncpg.UniqueViolationError):
            await sql.execute("insert into orders values (1, minoots.schedule_timer('demo', fire_in => '1 h'))")
        assert await count(other, "true") == 1
        assert await count(other, "true", "outbox") == 1
    finally:
        await other.close()


async def test_one_statement_schedules_many(sql: Sql) -> None:
    await sql.execute(
        "select minoots.schedule_timer('demo', 'n' || g, fire_in => g * interval '1 min') from generate_series(1, 50) g"
    )
    assert await count(sql, "duration_ms = substr(name, 2)::int * 60000") == 50
    assert await count(sql, "kind = 'timer.scheduled'", "outbox") == 50


async def test_the_sessions_settings_change_nothing_that_is_shown(sql: Sql) -> None:
    timer_id = await schedule(sql, WHOLE | {"fireAt": datetime(2030, 7, 1, 9, tzinfo=UTC)})
    shown = await show(sql, timer_id)
    await sql.execute("set timezone = 'America/New_York'")
    await sql.execute("set datestyle = 'German, DMY'")
    await sql.execute("set intervalstyle = 'sql_standard'")
    await sql.execute("set search_path = pg_temp")
    assert await show(sql, timer_id) == shown
    assert shown["fireAt"] == "2030-07-01T09:00:00.000000Z"
    again = await show(sql, await schedule(sql, WHOLE | {"fireAt": datetime(2030, 7, 1, 9, tzinfo=UTC)}))
    assert again["fireAt"] == shown["fireAt"]


async def test_an_interval_of_days_ends_when_the_sessions_calendar_says(sql: Sql) -> None:
    """As `now() + interval` does everywhere in Postgres; what was asked is then known in milliseconds."""
    await sql.execute("set timezone = 'Europe/Berlin'")
    timer = await show(sql, await schedule(sql, {"fireIn": timedelta(days=400)}))
    created, fires = datetime.fromisoformat(timer["createdAt"]), datetime.fromisoformat(timer["fireAt"])
    assert (fires - created) / timedelta(milliseconds=1) == pytest.approx(timer["durationMs"], abs=1)
    local = await sql.fetchrow(
        "select (created_at::timestamp + interval '400 days') = fire_at::timestamp as same from minoots.timers"
    )
    assert local["same"]


@pytest.mark.parametrize("bad", BAD)
async def test_what_rest_refuses_is_refused_and_leaves_nothing(bad: str, untouched: Sql) -> None:
    with pytest.raises(
        (asyncpg.CheckViolationError, asyncpg.UntranslatableCharacterError, asyncpg.DataError)
    ) as refused:
        await schedule(untouched, BAD[bad][0])
    if isinstance(refused.value, asyncpg.CheckViolationError):
        assert refused.value.constraint_name.startswith("timers_")


@pytest.mark.parametrize("tenant", ["", "-a", "a b", "a/b", "é", "a" * 129, "a\n"])
async def test_a_tenant_that_is_none_is_refused(tenant: str, untouched: Sql) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await schedule(untouched, {}, tenant)
    assert refused.value.constraint_name == "timers_tenant_id"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "either fire_in or fire_at"),
        (", fire_in => '1 h', fire_at => '2030-01-01'", "either fire_in or fire_at"),
        (", fire_in => '0'", "longer than 0"),
        (", fire_in => '-1 s'", "longer than 0"),
        (", fire_in => '1 mon -40 days'", "longer than 0"),
        (", fire_in => '6971 years'", "year 9000"),
        (", fire_in => '100000 years'", "year 9000"),
        (", fire_at => minoots.now() - interval '61 s'", "more than a minute in the past"),
        (", fire_at => '-infinity'", "more than a minute in the past"),
        (", fire_at => '9000-01-01 00:00Z'", "timers_instants"),
        (", fire_at => 'infinity'", "timers_instants"),
        (", fire_in => '1 h', traceparent => 'x'", "timers_traceparent"),
        (", fire_in => '1 h', idempotency_key => ''", "idempotency_keys_key_check"),
        (", fire_in => '1 h', idempotency_key => repeat('k', 256)", "idempotency_keys_key_check"),
    ],
)
async def test_instants_and_keys_that_rest_refuses_are_refused(arguments: str, words: str, untouched: Sql) -> None:
    with pytest.raises(asyncpg.PostgresError, match=words):
        await untouched.execute(f"select minoots.schedule_timer('demo'{arguments})")


async def test_a_refusal_says_what_to_write_instead(untouched: Sql) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
        await untouched.execute("select minoots.schedule_timer('demo')")
    assert refused.value.hint == (
        "fire_in => interval '30 s', fire_at => timestamptz '2030-01-01 09:00+00', "
        'or schedule => \'{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}\''
    )


async def test_an_instant_up_to_a_minute_past_fires_at_once(sql: Sql, database: Database) -> None:
    await sql.execute("select minoots.schedule_timer('demo', fire_at => minoots.now() - interval '59 s')")
    assert (await fire(database)).fired == 1
    assert await count(sql, "fired_at >= created_at and due_at is null") == 1
    assert await count(sql, "due_at = (select created_at from minoots.timers) and fired_at >= due_at", "firings") == 1


# ---- the same key through two doors ----


async def test_a_key_used_through_sql_counts_at_the_other_doors(sql: Sql, database: Database) -> None:
    made = await schedule(sql, WHOLE | {"idempotencyKey": "k", "fireIn": timedelta(seconds=30)})
    again = await Timers(database).schedule("demo", ask(**WHOLE, duration="PT30S"), "k")
    assert again.id == made
    assert json.loads(msgspec.json.encode(again)) == await show(sql, made)
    assert await count(sql, "true") == 1
    with pytest.raises(IdempotencyMismatch):
        await Timers(database).schedule("demo", ask(**WHOLE, duration="31s"), "k")


async def test_a_key_used_at_another_door_counts_through_sql(sql: Sql, database: Database) -> None:
    at = datetime(2031, 1, 31, 9, 0, 0, 123_456, tzinfo=UTC)
    made = await Timers(database).schedule("demo", ask(**WHOLE, fireAt=at.isoformat()), "k")
    assert await schedule(sql, WHOLE | {"idempotencyKey": "k", "fireAt": at}) == made.id
    assert await count(sql, "true") == 1
    assert await count(sql, "true", "outbox") == 1
    with pytest.raises(asyncpg.InvalidParameterValueError, match="used with another request"):
        await schedule(sql, WHOLE | {"name": "other", "idempotencyKey": "k", "fireAt": at})


async def test_the_least_timer_is_the_same_request_at_both_doors(sql: Sql, database: Database) -> None:
    made = await schedule(sql, {"requestedBy": "ann", "idempotencyKey": "k", "fireIn": timedelta(milliseconds=1500)})
    assert (await Timers(database).schedule("demo", ask(duration=1500), "k")).id == made


async def test_a_key_in_an_open_transaction_is_in_flight_at_the_other_doors(sql: Sql, database: Database) -> None:
    async with sql.transaction():
        made = await schedule(sql, {"requestedBy": "ann", "idempotencyKey": "k", "fireIn": timedelta(seconds=9)})
        with pytest.raises(IdempotencyInFlight):
            await Timers(database).schedule("demo", ask(duration="9s"), "k")
    assert (await Timers(database).schedule("demo", ask(duration="9s"), "k")).id == made


async def test_a_key_in_flight_elsewhere_is_told_to_come_again(sql: Sql, database_url: str) -> None:
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await schedule(other, {"idempotencyKey": "k"})
            with pytest.raises(asyncpg.LockNotAvailableError, match="still being worked on"):
                await schedule(sql, {"idempotencyKey": "k"})
            await schedule(sql, {"idempotencyKey": "k"}, tenant="other")
    finally:
        await other.close()


# ---- cancelling ----


async def test_a_cancelled_timer_says_by_whom_and_why(sql: Sql) -> None:
    timer_id = await schedule(sql, WHOLE)
    cancel = (
        "select minoots.cancel_timer(tenant_id => 'demo', timer_id => $1, requested_by => 'bob', reason => 'no tea')"
    )
    assert await sql.fetchval(cancel, timer_id) is True
    timer = await show(sql, timer_id)
    assert (timer["status"], timer["cancelledBy"], timer["cancelReason"]) == ("cancelled", "bob", "no tea")
    assert timer["version"] == 2
    assert timer["cancelledAt"] >= timer["createdAt"]
    assert (await events(sql))[1:] == [("timer.cancelled", {"timer": timer, "reason": "no tea"})]
    assert await sql.fetchval(cancel, timer_id) is True
    assert await show(sql, timer_id) == timer
    assert len(await events(sql)) == 2


async def test_a_cancel_that_is_rolled_back_never_was(sql: Sql, database: Database) -> None:
    timer_id = await schedule(sql, {"fireAt": datetime.now(UTC) - timedelta(seconds=1)})
    transaction = sql.transaction()
    await transaction.start()
    assert await sql.fetchval("select minoots.cancel_timer('demo', $1)", timer_id)
    assert (await fire(database)).claimed == 0
    await transaction.rollback()
    assert (await fire(database)).fired == 1


async def test_too_late_unknown_or_anothers_is_false_and_changes_nothing(sql: Sql, database: Database) -> None:
    fired = await schedule(sql, {"fireAt": datetime.now(UTC) - timedelta(seconds=1)})
    await fire(database)
    others = await schedule(sql, {}, tenant="other")
    before = await events(sql)
    for timer_id in (fired, others, uuid4(), None):
        assert await sql.fetchval("select minoots.cancel_timer('demo', $1)", timer_id) is False
    assert await events(sql) == before
    assert await count(sql, "status = 'cancelled'") == 0


@pytest.mark.parametrize(
    "arguments", [", requested_by => ''", ", requested_by => repeat('x', 201)", ", reason => repeat('x', 1001)"]
)
async def test_who_and_why_have_the_bounds_of_rest(arguments: str, sql: Sql) -> None:
    timer_id = await schedule(sql, {})
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.fetchval(f"select minoots.cancel_timer('demo', $1{arguments})", timer_id)
    assert await count(sql, "status = 'scheduled'") == 1


def test_the_whole_example_is_admitted_by_the_other_doors() -> None:
    assert isinstance(ask(**WHOLE, duration="1s"), NewTimer)
    assert {field.encode_name for field in msgspec.structs.fields(Timer)} >= WHOLE.keys()
