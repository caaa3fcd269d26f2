"""What the hot statements touch among 50,000 rows: bounds on the plan and on pages, never on a stopwatch."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from minoots.settings import StoreSettings
from minoots.store import acks, deliveries, firings, idempotency, lanes, outbox, timers
from minoots.store.database import Database
from minoots.store.deliveries import Quota
from minoots.store.firings import START, Mark
from minoots.store.lanes import LaneKey
from minoots.store.timers import TimerFilter
from tests.support.plans import TABLES, Explaining, Plan, walks
from tests.support.timers import Sql

ROWS = 50_000
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
# Of the timers: most have fired, some wait, some of these are due.
SEED = """
insert into minoots.timers (id, tenant_id, name, created_at, fire_at, status, fired_at, occurrence)
select minoots.uuid7(), case when g % 10 = 0 then 'small' else 'large' end, 'timer ' || g,
       minoots.now() - interval '1 day', minoots.now() + (g - 46000) * interval '1 s',
       case when g <= 42000 then 'fired' else 'scheduled' end, case when g <= 42000 then minoots.now() end,
       (g <= 42000)::int
  from generate_series(1, 50000) g;
insert into minoots.firings (tenant_id, timer_id, occurrence, status, nominal_at, due_at, fired_at, open_deliveries,
                             timer_version)
select tenant_id, id, 1, 'dispatching', fire_at, fire_at - interval '1 day', fire_at - interval '1 day', 1, 2
  from minoots.timers where status = 'fired';
insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, status, next_attempt_at,
                                delivered_at)
select tenant_id, id, 1, 'call', 'webhook', 'http://h', case when nth <= 32000 then 'delivered' else 'pending' end,
       case when nth > 32000 then minoots.now() + (nth - 33000) * interval '1 s' end,
       case when nth <= 32000 then minoots.now() end
  from (select *, row_number() over (order by fire_at) as nth from minoots.timers where status = 'fired') t;
insert into minoots.outbox (tenant_id, timer_id, kind, data)
select tenant_id, id, 'timer.fired', '{}' from minoots.timers;
insert into minoots.idempotency_keys
select 'large', g::text, 'x', '{}', minoots.now() - g * interval '2 s' from generate_series(1, 50000) g;
vacuum (analyze) minoots.timers, minoots.firings, minoots.deliveries, minoots.outbox, minoots.idempotency_keys;
"""


@pytest.fixture(scope="module")
def seeded(module_database_url: str) -> str:
    async def seed() -> None:
        connection = await asyncpg.connect(module_database_url)
        for statement in SEED.split(";\n"):
            if statement.strip():
                await connection.execute(statement)
        await connection.close()

    asyncio.run(seed())
    return module_database_url


@pytest.fixture
async def plain(seeded: str) -> Any:
    """A connection whose changes are rolled back."""
    connection = await asyncpg.connect(seeded)
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
def explaining(plain: Sql) -> Any:
    return Explaining(plain)


@pytest.fixture
async def db(seeded: str) -> Any:
    """Only for the schema's name: nothing is run through it."""
    return Database(StoreSettings(seeded, "minoots", 2, True))


async def test_the_seed_is_as_large_as_it_says(plain: Sql) -> None:
    for table in TABLES - {"firings", "deliveries"}:
        assert await plain.fetchval(f"select count(*) from minoots.{table}") == ROWS
    assert await plain.fetchval("select count(*) from minoots.timers where due_at <= minoots.now()") > 3000
    assert (
        await plain.fetchval("select count(*) from minoots.deliveries where next_attempt_at <= minoots.now()") >= 1000
    )


# ---- the kernel ----


async def test_a_claim_reads_its_batch_and_nothing_else(db: Database, explaining: Explaining) -> None:
    await firings.claim_due(db, explaining, START, 500)
    walks(explaining.plan, "timers_due", read=500, pages=2500)
    assert explaining.plan.sorts == 0


async def test_a_claim_behind_a_mark_begins_there(db: Database, explaining: Explaining, plain: Sql) -> None:
    row = await plain.fetchrow(
        "select due_at, id from minoots.timers where due_at is not null order by due_at, id offset 3500 limit 1"
    )
    await firings.claim_due(db, explaining, Mark(row["due_at"], row["id"]), 500)
    walks(explaining.plan, "timers_due", read=500, pages=2500)


async def test_a_claim_when_nothing_is_due_touches_next_to_nothing(db: Database, explaining: Explaining) -> None:
    await firings.claim_due(db, explaining, Mark(datetime.now(UTC) + timedelta(minutes=1), UUID(int=0)), 500)
    walks(explaining.plan, "timers_due", read=0, pages=10)


async def test_a_claim_again_reads_what_it_was_told(db: Database, explaining: Explaining, plain: Sql) -> None:
    rows = await plain.fetch("select id from minoots.timers where due_at is not null limit 100")
    await firings.claim_again(db, explaining, [row["id"] for row in rows])
    assert explaining.plan.scanned == set()
    assert explaining.plan.read <= 100
    assert explaining.plan.pages <= 800


async def test_the_next_instant_is_one_row(db: Database, explaining: Explaining) -> None:
    await firings.seconds_to_next(db, explaining, START)
    for plan in explaining.plans:
        walks(plan, "timers_due", read=1, pages=10)


async def test_firing_finds_its_timers_by_key(db: Database, explaining: Explaining, plain: Sql) -> None:
    rows = await plain.fetch("select due_at, id from minoots.timers where due_at is not null order by due_at limit 50")
    await firings.fire_timers(db, explaining, [Mark(row["due_at"], row["id"]) for row in rows])
    assert explaining.plan.scanned == set()
    assert "timers_pkey" in explaining.plan.indexes
    # Each row once for what is shown of it, and once to change it.
    assert explaining.plan.read <= 100
    assert await plain.fetchval("select count(*) from minoots.firings") == 42_050


async def test_claiming_and_firing_in_one_reads_its_batch_and_the_next_instant(
    db: Database, explaining: Explaining, plain: Sql
) -> None:
    await explaining.fetch(db.sql(firings.fire_due_statement(50)), START.due_at, START.id)
    assert explaining.plan.scanned == set()
    assert explaining.plan.indexes == {"timers_due", "timers_pkey", "installation_pkey"}
    # Each row once to claim it and once to change it.
    assert explaining.plan.read <= 101
    assert await plain.fetchval("select count(*) from minoots.firings") == 42_050


async def test_firing_when_nothing_is_due_touches_next_to_nothing(db: Database, explaining: Explaining) -> None:
    later = datetime.now(UTC) + timedelta(minutes=1)
    await explaining.fetch(db.sql(firings.fire_due_statement(500)), later, UUID(int=0))
    assert explaining.plan.scanned == set()
    assert explaining.plan.read <= 1
    assert explaining.plan.pages <= 20


async def test_the_statements_of_steady_firing_are_planned_once(db: Database, plain: Sql) -> None:
    """Postgres tries five plans for the values given, and goes on to make them while they look cheaper."""
    for round_ in range(12):
        mark = Mark(BEGINNING + timedelta(days=round_ * 2000), UUID(int=0))
        await firings.fire_due(db, plain, mark, 2)
        await firings.seconds_to_next(db, plain, mark)
    planned = await plain.fetch(
        "select custom_plans, generic_plans from pg_prepared_statements where custom_plans + generic_plans = 12"
    )
    assert [(row["custom_plans"], row["generic_plans"]) for row in planned] == [(5, 7), (5, 7)]


async def test_what_was_planned_while_the_table_was_empty_does_not_read_all_of_it_later(
    database: Database, sql: Sql
) -> None:
    for _ in range(8):
        assert (await firings.fire_due(database, sql, START, 50)).claimed == 0
        await firings.seconds_to_next(database, sql, START)
    await sql.execute(
        """insert into minoots.timers (tenant_id, name, fire_at)
           select 'demo', 'x', minoots.now() + g * interval '1 minute' from generate_series(0, 20000) g"""
    )
    size = await firings.size_of_timers(database, sql)
    async with sql.transaction():
        await firings.seconds_to_next(database, sql, START, size)
        assert (await firings.fire_due(database, sql, START, 50, size)).fired == 1
        read = await sql.fetchval(
            """select seq_tup_read from pg_stat_xact_user_tables
                where schemaname = 'minoots' and relname = 'timers'"""
        )
    assert read == 0


async def test_a_long_transaction_elsewhere_costs_a_claim_behind_its_mark_nothing(
    database_url: str, sql: Sql, database: Database
) -> None:
    """Nobody can vacuum what it may still see: without the mark each claim walks all that was fired since.

    All are due at the same instant, so that a mark which is no key but an instant does not help.
    """
    await sql.execute(
        "insert into minoots.timers (tenant_id, fire_at) "
        "select 'demo', minoots.now() - interval '1 h' from generate_series(1, 6000)"
    )
    await sql.execute("update minoots.timers set created_at = fire_at")
    await sql.execute("vacuum (analyze) minoots.timers")
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction(isolation="repeatable_read", readonly=True):
            await other.fetchval("select count(*) from minoots.timers")
            mark = START
            for _ in range(5):
                async with database.transaction() as connection:
                    claimed = await firings.claim_due(database, connection, mark, 1000)
                    assert await firings.fire_timers(database, connection, claimed) == 1000
                    mark = claimed[-1]
            await sql.execute("vacuum minoots.timers")
            explaining = Explaining(sql)
            async with sql.transaction():
                await firings.claim_due(database, explaining, START, 10)
                await firings.claim_due(database, explaining, mark, 10)
                await firings.seconds_to_next(database, explaining, mark)
    finally:
        await other.close()
    without, behind, next_instant = explaining.plans
    assert behind.pages < 60
    assert next_instant.pages < 20
    assert without.pages > 5 * behind.pages


# ---- the relay ----


async def test_the_relay_reads_a_shard_in_order_and_no_more_than_its_batch(
    db: Database, explaining: Explaining
) -> None:
    await outbox.read_events(db, explaining, {3: 0}, 256)
    walks(explaining.plan, "outbox_pkey", read=256, pages=600)
    assert explaining.plan.sorts == 1, "of what was read, to bring the shards together"


async def test_looking_for_work_asks_each_shard_for_one_row(db: Database, explaining: Explaining) -> None:
    await explaining.fetch(db.sql(outbox._LOOK), list(outbox.SHARDS), [0] * 8)
    walks(explaining.plan, "outbox_pkey", read=8, pages=60)


async def test_looking_behind_the_marks_when_all_is_sent_touches_next_to_nothing(
    db: Database, explaining: Explaining
) -> None:
    await explaining.fetch(db.sql(outbox._LOOK), list(outbox.SHARDS), [10**9] * 8)
    walks(explaining.plan, "outbox_pkey", read=0, pages=60)


async def test_removing_events_finds_them_by_key(db: Database, explaining: Explaining, plain: Sql) -> None:
    ids = await plain.fetchval("select array_agg(id) from (select id from minoots.outbox where shard = 3 limit 200) x")
    await outbox.remove_events(db, explaining, [3], ids)
    walks(explaining.plan, "outbox_pkey", read=200, pages=1500)


# ---- the orchestrator ----


async def test_due_deliveries_are_read_by_lane_and_no_more_than_it_has_room_for(
    db: Database, explaining: Explaining
) -> None:
    quotas = [Quota(LaneKey(tenant, "http://h"), BEGINNING, 100) for tenant in ("large", "small", "none")]
    await deliveries.find_due(db, explaining, quotas)
    walks(explaining.plan, "deliveries_lane", read=200, pages=1200)


async def test_a_claim_behind_its_mark_begins_there(db: Database, explaining: Explaining, plain: Sql) -> None:
    mark = await plain.fetchval("select minoots.now() - interval '20 s'")
    await deliveries.find_due(db, explaining, [Quota(LaneKey("large", "http://h"), mark, 500)])
    walks(explaining.plan, "deliveries_lane", read=25, pages=150)


async def test_looking_for_lanes_costs_what_there_are_lanes(db: Database, explaining: Explaining, plain: Sql) -> None:
    await lanes.scan(db, explaining)
    assert explaining.plan.indexes >= {"deliveries_lane"}
    assert explaining.plan.scanned == set()
    assert explaining.plan.read <= 4
    assert explaining.plan.pages <= 60


async def test_counting_the_places_of_a_lane_reads_what_holds_one(
    db: Database, explaining: Explaining, plain: Sql
) -> None:
    await plain.execute(
        "update minoots.deliveries set lease_id = minoots.uuid7(), leased_at = minoots.now(), holds_place = true "
        "where (timer_id, occurrence, action_id) in (select timer_id, occurrence, action_id from minoots.deliveries "
        "where next_attempt_at > minoots.now() and tenant_id = 'large' limit 10)"
    )
    await explaining.fetch(db.sql(lanes._COUNT_PLACES), ["large"], ["http://h"])
    walks(explaining.plan, "deliveries_places", read=10, pages=60)


async def await_some(plain: Sql, many: int, late: int) -> None:
    """So many wait for acknowledgement, of these so many for too long."""
    await plain.execute(
        "update minoots.deliveries d set status = 'awaiting', ack_timeout_ms = 1000, leased_at = minoots.now(), "
        "next_attempt_at = minoots.now() + (s.nth - $2 - 0.5) * interval '1 s' from (select timer_id, row_number() "
        "over () as nth from minoots.deliveries where status = 'pending' limit $1) s where d.timer_id = s.timer_id",
        many,
        late,
    )


async def test_looking_for_what_is_overdue_is_one_row(db: Database, explaining: Explaining, plain: Sql) -> None:
    await await_some(plain, many=5000, late=0)
    await acks.seconds_to_next(db, explaining)
    walks(explaining.plan, "deliveries_awaited", read=1, pages=10)


async def test_the_overdue_sweep_reads_what_is_overdue_and_its_firings(
    db: Database, explaining: Explaining, plain: Sql
) -> None:
    await await_some(plain, many=5000, late=300)
    await acks.find_due(db, explaining, 100)
    walks(explaining.plan, "deliveries_awaited", "firings_pkey", read=200, pages=1200)


async def test_the_deliveries_of_a_message_are_found_by_key(db: Database, explaining: Explaining, plain: Sql) -> None:
    rows = await plain.fetch("select timer_id, occurrence from minoots.firings limit 50")
    await deliveries.find_fired(db, explaining, [(row[0], row[1]) for row in rows])
    assert explaining.plan.indexes == {"deliveries_pkey"}
    assert explaining.plan.read <= 50
    assert explaining.plan.pages <= 400


# ---- the doors ----


async def test_one_timer_is_one_row(db: Database, explaining: Explaining, plain: Sql) -> None:
    timer_id = await plain.fetchval("select id from minoots.timers limit 1")
    await timers.get_timer(db, explaining, "large", timer_id)
    await timers.cancel_timer(db, explaining, "large", timer_id, "ann", None)
    got, cancelled = explaining.plans
    walks(got, "timers_pkey", read=1, pages=10)
    assert cancelled.indexes == {"timers_pkey"}
    assert cancelled.scanned == set()


@pytest.mark.parametrize("tenant", ["large", "small", "none"])
async def test_a_page_of_a_list_reads_a_page(tenant: str, db: Database, explaining: Explaining) -> None:
    await timers.list_timers(db, explaining, tenant, TimerFilter(limit=51))
    walks(explaining.plan, "timers_by_tenant", read=51, pages=300)
    assert explaining.plan.sorts == 0


async def test_a_page_far_behind_costs_no_more_than_the_first(db: Database, explaining: Explaining, plain: Sql) -> None:
    after = await plain.fetchval(
        "select id from minoots.timers where tenant_id = 'large' order by id offset 100 limit 1"
    )
    await timers.list_timers(db, explaining, "large", TimerFilter(limit=51, after=after))
    walks(explaining.plan, "timers_by_tenant", read=51, pages=300)


async def test_firings_of_a_timer_are_found_by_key(db: Database, explaining: Explaining, plain: Sql) -> None:
    timer_id = await plain.fetchval("select timer_id from minoots.firings limit 1")
    await firings.list_firings(db, explaining, "large", timer_id, None, 51)
    await firings.get_firing(db, explaining, "large", timer_id, 1)
    listed, got = explaining.plans
    walks(listed, "firings_pkey", read=1, pages=10)
    assert got.indexes >= {"firings_pkey"}
    assert got.scanned == set()
    assert got.read <= 2


async def test_a_key_is_one_row(db: Database, explaining: Explaining) -> None:
    await idempotency.find_answer(db, explaining, "large", "77", "{}")
    walks(explaining.plan, "idempotency_keys_pkey", read=1, pages=10)


# ---- what is done beside ----


async def test_pruning_keys_reads_the_oldest_alone(db: Database, explaining: Explaining, plain: Sql) -> None:
    await idempotency.prune_keys(db, explaining, 1000)
    assert explaining.plan.scanned == set()
    assert explaining.plan.indexes == {"idempotency_keys_by_age"}
    assert explaining.plan.read <= 2000
    assert explaining.plan.pages <= 6000
    assert await plain.fetchval("select count(*) from minoots.idempotency_keys") == ROWS - 1000


async def test_the_lateness_of_the_last_hour_does_not_read_every_firing(plain: Sql) -> None:
    told = await plain.fetchval("explain (analyze, buffers, format json) select * from minoots.lateness")
    plan = Plan.of(json.loads(told)[0])
    assert plan.indexes == {"firings_by_instant"}
    assert plan.pages < 200
