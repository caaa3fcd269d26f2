"""What lists and redrives of dead letters touch among 20,000: their tenant's, and a page of them."""

import asyncio
from typing import Any

import asyncpg
import pytest

from minoots.domain.dead_letter import Place, Wanted
from minoots.settings import StoreSettings
from minoots.store import dead_letters
from minoots.store.database import Database
from tests.support.plans import Explaining
from tests.support.timers import Sql

SEED = """
insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, status, dead_at, dead_reason)
select case when g % 100 = 0 then 'small' else 'large' end, minoots.uuid7(), 1, 'call', 'webhook', 'http://h', 'dead',
       minoots.now() - (g / 20) * interval '1 s', 'gave up after 8 attempts: HTTP 503'
  from generate_series(1, 20000) g;
insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, status, delivered_at)
select 'large', minoots.uuid7(), 1, 'call', 'webhook', 'http://h', 'delivered', minoots.now()
  from generate_series(1, 20000) g;
vacuum (analyze) minoots.deliveries
"""


@pytest.fixture(scope="module")
def seeded(module_database_url: str) -> str:
    async def seed() -> None:
        connection = await asyncpg.connect(module_database_url)
        for statement in SEED.split(";\n"):
            await connection.execute(statement)
        await connection.close()

    asyncio.run(seed())
    return module_database_url


@pytest.fixture
async def plain(seeded: str) -> Any:
    connection = await asyncpg.connect(seeded)
    yield connection
    await connection.close()


@pytest.fixture
async def db(seeded: str) -> Any:
    """Only for the schema's name: nothing is run through it."""
    return Database(StoreSettings(seeded, "minoots", 2, True))


async def far(plain: Sql, offset: int) -> Place:
    row = await plain.fetchrow(
        "select dead_at, timer_id, occurrence, action_id from minoots.deliveries where tenant_id = 'large' "
        "and dead_at is not null order by dead_at desc, timer_id desc offset $1 limit 1",
        offset,
    )
    return Place(*row)


async def test_a_page_reads_a_page(db: Database, plain: Sql) -> None:
    explaining = Explaining(plain)
    await dead_letters.list_dead(db, explaining, "large", Wanted(), None, 51)
    assert explaining.plan.scanned == set()
    assert "deliveries_dead" in explaining.plan.indexes
    assert explaining.plan.read <= 51 + 40, "and the rest of those that died at its last instant"


@pytest.mark.parametrize("statement", ["list", "find"])
async def test_a_page_far_behind_costs_no_more_than_the_first(statement: str, db: Database, plain: Sql) -> None:
    after = await far(plain, 10_000)
    explaining = Explaining(plain)
    ask = dead_letters.list_dead if statement == "list" else dead_letters.find_dead
    await ask(db, explaining, "large", Wanted(), after, 51)
    assert explaining.plan.scanned == set()
    assert explaining.plan.read <= 51 + 60


async def test_another_tenants_are_not_read(db: Database, plain: Sql) -> None:
    explaining = Explaining(plain)
    await dead_letters.list_dead(db, explaining, "small", Wanted(reason="no such thing"), None, 51)
    await dead_letters.count_dead(db, explaining, "none", Wanted(lane="http://h"))
    own, nobodys = explaining.plans
    assert own.scanned == nobodys.scanned == set()
    assert own.read <= 200
    assert nobodys.read == 0


async def test_a_span_of_time_is_read_alone(db: Database, plain: Sql) -> None:
    since, until = (await far(plain, 12_000)).dead_at, (await far(plain, 11_900)).dead_at
    explaining = Explaining(plain)
    await dead_letters.count_dead(db, explaining, "large", Wanted(since=since, until=until))
    assert explaining.plan.scanned == set()
    assert explaining.plan.read <= 160
