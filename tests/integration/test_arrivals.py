"""Creates that arrive at once share statements, and nothing else: each is made, refused or left by itself."""

import asyncio

import pytest

from minoots.domain.json_text import read_json
from minoots.domain.timer import NewTimer, TimerRequest, admit
from minoots.errors import InvalidTimer, StoreUnavailable
from minoots.service.timers import Timers
from minoots.settings import Settings
from minoots.store.database import Database
from tests.support.timers import Sql, count

# Short as it was sent and 93 KB as Postgres writes it: only the database refuses it.
LARGE_AS_STORED = b'{"requestedBy": "me", "duration": "1h", "metadata": {"a": [%s]}}' % b",".join([b"1e308"] * 300)


def new(body: bytes = b'{"requestedBy": "me", "duration": "1h"}') -> NewTimer:
    return admit(read_json(body, TimerRequest))


def named(name: str) -> NewTimer:
    return new(b'{"requestedBy": "me", "duration": "1h", "name": "%s"}' % name.encode())


async def statements(sql: Sql) -> int:
    """In how many transactions the timers were inserted."""
    many: int = await sql.fetchval("select count(distinct xmin::text) from minoots.timers")
    return many


async def test_each_gets_its_own_timer_and_most_share_a_statement(database: Database, sql: Sql) -> None:
    timers = Timers(database)
    made = await asyncio.gather(*(timers.schedule("demo", named(f"number {n}")) for n in range(150)))
    assert [timer.name for timer in made] == [f"number {n}" for n in range(150)]
    assert len({timer.id for timer in made}) == 150
    assert await count(sql, "true") == 150
    assert await count(sql, "kind = 'timer.scheduled'", "outbox") == 150
    assert await statements(sql) < 10


async def test_a_statement_has_timers_of_one_tenant_only(database: Database, sql: Sql) -> None:
    timers = Timers(database)
    tenants = [f"tenant-{n % 3}" for n in range(90)]
    made = await asyncio.gather(*(timers.schedule(tenant, new()) for tenant in tenants))
    assert [timer.tenant_id for timer in made] == tenants
    mixed = await sql.fetchval(
        "select count(*) from (select from minoots.timers group by xmin::text having count(distinct tenant_id) > 1) x"
    )
    assert not mixed


async def test_one_that_is_refused_refuses_no_other(database: Database, sql: Sql) -> None:
    timers = Timers(database)
    asked = [new(LARGE_AS_STORED) if n % 20 == 7 else named(f"number {n}") for n in range(100)]
    made = await asyncio.gather(*(timers.schedule("demo", one) for one in asked), return_exceptions=True)
    refused = [n for n, answer in enumerate(made) if isinstance(answer, InvalidTimer)]
    assert refused == [7, 27, 47, 67, 87]
    assert [f.pointer for f in made[7].findings] == ["/metadata"]  # type: ignore[union-attr]
    assert await count(sql, "true") == 95


async def test_an_instant_too_far_past_is_refused_alone(database: Database, sql: Sql) -> None:
    timers = Timers(database)
    asked = [b"2001-01-01", b"2040-01-01", b"2001-01-01", b"2040-01-02"]
    bodies = [b'{"requestedBy": "me", "fireAt": "%sT00:00:00Z"}' % day for day in asked]
    made = await asyncio.gather(*(timers.schedule("demo", new(body)) for body in bodies), return_exceptions=True)
    assert [type(answer).__name__ for answer in made] == ["InvalidTimer", "Timer", "InvalidTimer", "Timer"]
    assert [f.pointer for f in made[0].findings] == ["/fireAt"]  # type: ignore[union-attr]
    assert await count(sql, "true") == 2


async def test_a_caller_that_leaves_takes_nobody_along(database: Database, sql: Sql) -> None:
    timers = Timers(database)
    asked = [asyncio.ensure_future(timers.schedule("demo", named(f"number {n}"))) for n in range(60)]
    await asyncio.sleep(0)
    for leaving in asked[::3]:
        leaving.cancel()
    made = await asyncio.gather(*asked, return_exceptions=True)
    stayed = [n for n in range(60) if n % 3]
    assert [made[n].name for n in stayed] == [f"number {n}" for n in stayed]  # type: ignore[union-attr]
    names = {row["name"] for row in await sql.fetch("select name from minoots.timers")}
    assert names >= {f"number {n}" for n in stayed}


async def test_all_are_told_when_the_database_is_away() -> None:
    away = Settings.from_env({"MINOOTS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"})
    async with Database(away.store) as database:
        timers = Timers(database)
        answers = await asyncio.gather(*(timers.schedule("demo", new()) for _ in range(20)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert len({id(answer) for answer in answers}) == 20


async def test_a_batch_with_an_instant_too_far_past_is_refused_whole(database: Database, sql: Sql) -> None:
    past = new(b'{"requestedBy": "me", "fireAt": "2001-01-01T00:00:00Z"}')
    with pytest.raises(InvalidTimer) as refused:
        await Timers(database).schedule_many("demo", [new(), past, new()])
    assert [f.pointer for f in refused.value.findings] == ["/items/1/fireAt"]
    assert not await count(sql, "true")
