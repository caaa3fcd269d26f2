"""What is past its retention goes, with all that belongs to it, and nothing else does."""

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from minoots.clock import SystemClock
from minoots.domain.outcome import Answer, Delivered
from minoots.domain.retention import STATUSES, Retention, parse_retention
from minoots.kernel.prune import EndedPruner
from minoots.orchestrator.intake import Intake
from minoots.store import retention
from minoots.store.database import Database
from minoots.store.results import Result, record_results
from tests.support.ended import CALL, cancel, fail, fire_only, left, pass_time, recur, settle
from tests.support.life import DELIVERED, attempt, fire, make_deliveries_due
from tests.support.plans import Plan
from tests.support.timers import Sql, count, insert_timers

DAY = timedelta(days=1)


def pruner(database: Database, batch: int = 1_000, **keeps: timedelta | None) -> EndedPruner:
    return EndedPruner(database, SystemClock(), Retention(**keeps), batch)


async def prune(database: Database, batch: int = 1_000, **keeps: timedelta | None) -> int:
    """All that one that has just started finds: what went."""
    one = pruner(database, batch, **keeps)
    gone = 0
    # Firings before the timers that wait for them to go.
    for _ in range(2):
        while went := await one.run_once():
            gone += went
    return gone


async def statuses(sql: Sql) -> list[str]:
    return [row[0] for row in await sql.fetch("select status from minoots.timers order by 1")]


# ---- by age and status ----


async def one_of_each(sql: Sql, database: Database) -> None:
    await settle(sql, database)
    await fail(sql, database)
    await cancel(sql)
    await fire_only(sql, database)
    assert await statuses(sql) == ["cancelled", "failed", "fired", "settled"]


async def test_nothing_goes_before_its_time(sql: Sql, database: Database) -> None:
    await one_of_each(sql, database)
    before = await left(sql)
    await pass_time(sql, "29 days 23 hours")
    assert await prune(database) == 0
    assert await left(sql) == before


async def test_by_default_a_month_is_kept_and_three_of_what_failed(sql: Sql, database: Database) -> None:
    await one_of_each(sql, database)
    await pass_time(sql, "30 days 1 s")
    assert await prune(database) == 3
    assert await statuses(sql) == ["failed"]
    assert await left(sql) == {"timers": 1, "firings": 1, "deliveries": 1, "attempts": 1}
    await pass_time(sql, "60 days")
    assert await prune(database) == 1
    assert await left(sql) == {}


@pytest.mark.parametrize("status", STATUSES)
async def test_each_status_has_its_own_time(status: str, sql: Sql, database: Database) -> None:
    await one_of_each(sql, database)
    await pass_time(sql, "1 day")
    assert await prune(database, **{status: timedelta(hours=23)}) == 1
    assert status not in await statuses(sql)
    assert await count(sql, "true") == 3


async def test_what_is_kept_for_ever_stays(sql: Sql, database: Database) -> None:
    await one_of_each(sql, database)
    await pass_time(sql, "10 years")
    assert await prune(database, settled=None, failed=None, cancelled=None, fired=None) == 0
    assert await prune(database, settled=None) == 3
    assert await statuses(sql) == ["settled"]


async def test_age_counts_from_the_end_and_not_from_the_firing(sql: Sql, database: Database) -> None:
    await insert_timers(sql, 1, actions=CALL)
    await fire(database)
    await pass_time(sql, "40 days")
    await make_deliveries_due(sql)
    assert await attempt(database, Delivered(Answer(1, 200, "ok")), DELIVERED) == 1
    assert await prune(database) == 0
    await pass_time(sql, "31 days")
    assert await prune(database) == 1


@pytest.mark.parametrize("state", ["scheduled", "paused", "dispatching"])
async def test_what_has_not_ended_is_never_touched(state: str, sql: Sql, database: Database) -> None:
    await insert_timers(sql, 3, after_s=0 if state == "dispatching" else 3600, actions=CALL)
    if state == "dispatching":
        assert (await fire(database)).fired == 3
    if state == "paused":
        await sql.execute("update minoots.timers set status = 'paused'")
    before = await left(sql)
    await pass_time(sql, "20 years")
    assert await prune(database, settled=DAY, failed=DAY, cancelled=DAY, fired=DAY) == 0
    assert await left(sql) == before


async def test_a_timer_that_could_not_be_fired_goes_as_failed(sql: Sql, database: Database) -> None:
    await insert_timers(sql, 1)
    await sql.execute("update minoots.timers set occurrence = 2147483647")
    assert (await fire(database)).failed == 1
    await pass_time(sql, "89 days")
    assert await prune(database) == 0
    await pass_time(sql, "2 days")
    assert await prune(database) == 1
    assert await left(sql) == {}


# ---- recurring timers ----


@pytest.mark.parametrize(("firing", "days"), [("settled", 30), ("failed", 90)])
async def test_a_recurring_timer_stays_and_its_old_firings_go(
    firing: str, days: int, sql: Sql, database: Database
) -> None:
    old = await recur(sql, 5, firing=firing)
    await pass_time(sql, f"{days - 1} days")
    await recur(sql, 3, firing=firing)
    assert await prune(database) == 0
    await pass_time(sql, "2 days")
    assert await prune(database) == 5
    assert await left(sql) == {"timers": 2, "firings": 3, "deliveries": 3, "attempts": 3}
    assert await count(sql, f"timer_id = '{old}'", "firings") == 0
    assert await sql.fetchval("select occurrence from minoots.timers where id = $1", old) == 5


async def test_an_open_firing_of_a_recurring_timer_stays(sql: Sql, database: Database) -> None:
    timer = await recur(sql, 3)
    await sql.execute(
        "update minoots.firings set status = 'dispatching', settled_at = null, open_deliveries = 1 where occurrence = 2"
    )
    await sql.execute("insert into minoots.open_firings values ('demo', $1, 2)", timer)
    await sql.execute("update minoots.timers set status = 'cancelled', cancelled_at = minoots.now()")
    await pass_time(sql, "1 year")
    assert await prune(database) == 2
    assert await left(sql) == {"timers": 1, "firings": 1, "deliveries": 1, "attempts": 1, "open_firings": 1}


@pytest.mark.parametrize(("status", "days"), [("settled", 30), ("failed", 90), ("cancelled", 30)])
async def test_a_recurring_timer_that_ended_goes_after_its_firings(
    status: str, days: int, sql: Sql, database: Database
) -> None:
    await recur(sql, 4, status=status)
    await pass_time(sql, f"{days - 1} days")
    await prune(database)
    assert await count(sql, "true") == 1
    await pass_time(sql, "2 days")
    await prune(database)
    assert await left(sql) == {}


async def test_the_last_firing_stays_until_the_timers_end_is_told_from_it(sql: Sql, database: Database) -> None:
    timer = await recur(sql, 3, firing="failed")
    await sql.execute("update minoots.timers set fire_at = null, plan_ends = true")
    await pass_time(sql, "1 year")
    assert await prune(database) == 2
    assert await sql.fetchval("select array_agg(occurrence) from minoots.firings where timer_id = $1", timer) == [3]


# ---- whose rule it is ----


async def test_a_tenants_rule_comes_before_that_of_all_and_that_before_the_setting(
    sql: Sql, database: Database
) -> None:
    tenants = ["none", "own", "forever"]
    for tenant in tenants:
        await fire_only(sql, database)
        await sql.execute("update minoots.timers set tenant_id = $1 where tenant_id = 'demo'", tenant)
        await sql.execute("update minoots.firings set tenant_id = $1 where tenant_id = 'demo'", tenant)
    async with database.connection() as connection:
        await retention.set_rules(database, connection, "*", {"fired": 5 * DAY})
        await retention.set_rules(database, connection, "own", {"fired": 2 * DAY, "failed": DAY})
        await retention.set_rules(database, connection, "forever", {"fired": None})

    async def kept(after: str, **keeps: timedelta) -> set[str]:
        await pass_time(sql, after)
        await prune(database, **keeps)
        return {row[0] for row in await sql.fetch("select tenant_id from minoots.timers")}

    assert await kept("1 day", fired=timedelta(seconds=1)) == {"none", "own", "forever"}
    assert await kept("36 hours", fired=timedelta(seconds=1)) == {"none", "forever"}
    assert await kept("1 day", fired=timedelta(seconds=1)) == {"none", "forever"}
    assert await kept("3 days") == {"forever"}
    assert await kept("10 years", fired=DAY) == {"forever"}
    async with database.connection() as connection:
        assert await retention.clear_rules(database, connection, "forever", STATUSES) == 1
    assert await kept("1 s") == set()


async def test_rules_are_listed_and_replaced(database: Database) -> None:
    async with database.connection() as connection:
        await retention.set_rules(database, connection, "acme", {"settled": DAY, "failed": DAY})
        await retention.set_rules(database, connection, "acme", {"settled": None})
        await retention.set_rules(database, connection, "*", {"fired": 3 * DAY})
        rules = await retention.list_rules(database, connection)
        assert rules == [
            retention.Rule("*", "fired", 3 * DAY),
            retention.Rule("acme", "failed", DAY),
            retention.Rule("acme", "settled", None),
        ]
        assert await retention.list_rules(database, connection, "other") == rules[:1]


@pytest.mark.parametrize(
    "row",
    [
        "('a b', 'settled', '1 d')",
        "('demo', 'paused', '1 d')",
        "('demo', 'settled', '0')",
        "('demo', 'settled', '-1 d')",
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused_by_the_table(row: str, sql: Sql) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await sql.execute(f"insert into minoots.retention values {row}")


async def test_a_rule_in_months_is_as_good(sql: Sql, database: Database) -> None:
    await sql.execute("insert into minoots.retention values ('demo', 'fired', '1 month')")
    await fire_only(sql, database)
    await pass_time(sql, "27 days")
    assert await prune(database, fired=DAY) == 0
    await pass_time(sql, "5 days")
    assert await prune(database, fired=None) == 1


# ---- many ----


async def test_more_at_one_instant_than_a_batch_takes(sql: Sql, database: Database) -> None:
    """The mark is an instant: it may not hide the rest of those that fired together."""
    await settle(sql, database, 25)
    await sql.execute("update minoots.firings set fired_at = (select max(fired_at) from minoots.firings)")
    await pass_time(sql, "31 days")
    one = pruner(database, batch=10)
    assert [await one.run_once() for _ in range(4)] == [10, 10, 5, 0]
    assert await left(sql) == {}


async def test_what_was_left_behind_is_found_by_walking_again(sql: Sql, database: Database) -> None:
    await settle(sql, database, 3)
    await pass_time(sql, "31 days")
    one = pruner(database)
    async with sql.transaction():
        await sql.execute("select from minoots.firings for update")
        assert await one.run_once() == 0, "locked by somebody who may redrive it"
    assert await one.run_once() == 0, "it lies behind"
    await one.tick_again()
    assert await left(sql) == {}


async def test_walking_again_comes_back_to_the_beginning(sql: Sql, database: Database) -> None:
    one = pruner(database, batch=2)
    await fail(sql, database, 5)
    await settle(sql, database, 1)
    await pass_time(sql, "31 days")
    rests = [await one.tick_again() for _ in range(4)]
    assert await statuses(sql) == ["failed"] * 5
    assert rests[-1] == 60.0, "it has come to the end"
    await pass_time(sql, "60 days")
    for _ in range(4):
        await one.tick_again()
    assert await left(sql) == {}


async def test_a_transaction_that_redrives_keeps_what_it_has(sql: Sql, database: Database) -> None:
    (timer,) = await fail(sql, database)
    await pass_time(sql, "91 days")
    async with sql.transaction():
        await sql.execute(
            "update minoots.firings set status = 'dispatching', settled_at = null, open_deliveries = 1 "
            "where timer_id = $1",
            timer,
        )
        assert await prune(database) == 0
        await sql.execute(
            "update minoots.timers set status = 'fired', settled_at = null, failure_reason = null where id = $1", timer
        )
    assert await prune(database) == 0
    assert await count(sql, "status = 'fired'") == 1


async def test_what_was_pruned_by_another_is_no_error(sql: Sql, database: Database) -> None:
    await settle(sql, database, 30)
    await pass_time(sql, "31 days")
    first, second = pruner(database, batch=10), pruner(database, batch=10)
    went = [await one.run_once() for _ in range(4) for one in (first, second)]
    assert sum(went) == 30
    assert await left(sql) == {}


# ---- what it costs ----


async def test_settling_stays_heap_only(sql: Sql, database: Database) -> None:
    """An index on an instant that settling sets would make every settling write to every index of the table."""
    # So few that a page has room for all their versions.
    await insert_timers(sql, 3, actions=CALL)
    await fire(database)
    await make_deliveries_due(sql)
    leases = await Intake(database, "here", 5_000).take_due(100)
    async with database.transaction() as connection:
        before = await updates(connection)
        results = [Result(lease, Delivered(Answer(1, 200, "ok")), DELIVERED) for lease in leases]
        assert (await record_results(database, connection, results))[0] == 3
        after = await updates(connection)
    assert after - before == Counter({"timers": 3, "timers, heap only": 3, "firings": 3, "firings, heap only": 3})


async def updates(connection: Sql) -> Counter[str]:
    """Rows updated so far, and how many of them without a write to an index."""
    rows = await connection.fetch(
        "select relname, n_tup_upd, n_tup_hot_upd from pg_stat_xact_user_tables where relname in ('timers', 'firings')"
    )
    counted = Counter[str]()
    for table, updated, heap_only in rows:
        counted += Counter({table: updated, f"{table}, heap only": heap_only})
    return counted


SEED = """
insert into minoots.timers (tenant_id, name, fire_at)
select 'demo', 'waiting', minoots.now() + interval '1 day' from generate_series(1, 20000);
insert into minoots.timers (tenant_id, name, created_at, fire_at, status, fired_at, settled_at, occurrence)
select 'demo', 'settled', at - interval '1 s', at, 'settled', at, at, 1
  from generate_series(1, 20000) g,
       lateral (select minoots.now() - interval '40 days' + (g / 100) * interval '10 min' as at) x;
insert into minoots.timers (tenant_id, name, created_at, fire_at, status, cancelled_at)
select 'demo', 'cancelled', at - interval '1 s', at, 'cancelled', at
  from generate_series(1, 10000) g,
       lateral (select minoots.now() - interval '40 days' + (g / 100) * interval '10 min' as at) x;
insert into minoots.firings (tenant_id, timer_id, occurrence, status, nominal_at, due_at, fired_at, settled_at,
                             timer_version)
select tenant_id, id, 1, 'settled', fire_at, fire_at, fired_at, settled_at, 2
  from minoots.timers where status = 'settled';
insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, status, delivered_at)
select tenant_id, id, 1, 'call', 'webhook', 'http://h', 'delivered', settled_at
  from minoots.timers where status = 'settled';
insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, outcome)
select tenant_id, id, 1, 'call', 1, settled_at, 'delivered' from minoots.timers where status = 'settled'
"""


async def explain(sql: Sql, database: Database, statement: str, *values: Any) -> Plan:
    """As a pruner runs it; what it does is rolled back."""
    transaction = sql.transaction()
    await transaction.start()
    await sql.execute(retention._BY_KEY)
    told = await sql.fetchval(f"explain (analyze, buffers, format json) {database.sql(statement)}", *values)
    await transaction.rollback()
    return Plan.of(json.loads(told)[0])


@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_a_batch_reads_what_it_removes_and_little_else(statistics: str, sql: Sql, database: Database) -> None:
    for statement in SEED.split(";\n"):
        await sql.execute(statement)
    if statistics == "fresh":
        await sql.execute("vacuum (analyze)")
    keeps = [STATUSES, [30 * DAY] * 4]
    plan = await explain(sql, database, retention._PRUNE_FIRED, retention.BEGINNING.at, 500, *keeps)
    assert plan.scanned == set()
    assert plan.indexes >= {"firings_by_instant", "timers_pkey"}
    assert plan.read <= 500 * 8
    assert plan.pages <= 500 * 60
    plan = await explain(
        sql, database, retention._PRUNE_RETAINED, retention.BEGINNING.at, 500, *keeps, retention.BEGINNING.id
    )
    assert plan.scanned == set()
    assert "timers_retained" in plan.indexes
    assert plan.read <= 500 * 5
    assert plan.pages <= 500 * 40


async def test_a_look_that_finds_nothing_touches_next_to_nothing(sql: Sql, database: Database) -> None:
    for statement in SEED.split(";\n"):
        await sql.execute(statement)
    keeps = [STATUSES, [60 * DAY] * 4]
    plan = await explain(sql, database, retention._PRUNE_FIRED, retention.BEGINNING.at, 500, *keeps)
    assert (plan.read, plan.pages < 30) == (0, True)
    plan = await explain(
        sql, database, retention._PRUNE_RETAINED, retention.BEGINNING.at, 500, *keeps, retention.BEGINNING.id
    )
    assert (plan.read, plan.pages < 30) == (0, True)


@pytest.mark.parametrize("statistics", ["fresh", "none"])
async def test_deleting_timers_by_hand_finds_what_belongs_to_them_by_key(statistics: str, sql: Sql) -> None:
    """The trigger's plan is made once a session, perhaps for an empty table: it may not read whole tables then."""
    await sql.execute("delete from minoots.timers where name = 'nobody'")
    for statement in SEED.split(";\n"):
        await sql.execute(statement)
    if statistics == "fresh":
        await sql.execute("vacuum (analyze)")
    scans = "select sum(seq_scan) from pg_stat_xact_user_tables where relname in ('firings', 'deliveries', 'attempts')"
    async with sql.transaction():
        before = await sql.fetchval(scans)
        await sql.execute(
            "delete from minoots.timers where id in (select id from minoots.timers where status = 'settled' limit 300)"
        )
        assert await sql.fetchval(scans) == before
    assert await left(sql) == {"timers": 49_700, "firings": 19_700, "deliveries": 19_700, "attempts": 19_700}


# ---- how it is written ----


def test_one_time_is_for_every_status() -> None:
    assert parse_retention("10s") == dict.fromkeys(STATUSES, timedelta(seconds=10))
    assert parse_retention(" OFF ") == dict.fromkeys(STATUSES)


def test_each_status_may_have_its_own() -> None:
    assert parse_retention("settled=30d, failed = off,fired=P2D") == {
        "settled": 30 * DAY,
        "failed": None,
        "fired": 2 * DAY,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("settled=", "no time to keep"),
        ("30", "write it as 30d"),
        ("", "no time to keep"),
        ("settle=30d", "there are settled, failed"),
        ("30d,failed=90d", "one time for all"),
        ("failed=1d,failed=2d", "failed is there twice"),
        ("settled=0s", "no time to keep"),
        ("settled=10ms", "out of range"),
        ("settled=40000d", "36500d"),
        ("scheduled=1d", "no status that a timer ends with"),
    ],
)
def test_what_cannot_be_read_is_answered_with_what_to_write(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_retention(text)
