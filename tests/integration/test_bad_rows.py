"""What plain SQL can leave in the tables holds up nobody else."""

from datetime import timedelta

import asyncpg
import pytest

from minoots.clock import SystemClock
from minoots.domain.event import bare, cut
from minoots.kernel.firing import Kernel
from minoots.orchestrator.intake import Intake
from minoots.store import deliveries, firings
from minoots.store.database import Database
from tests.support.laned import hold
from tests.support.orchestrating import orchestrating
from tests.support.timers import open_transaction

Sql = asyncpg.Connection  # what a person with psql has; tests are not type-checked

INSERT = """
insert into minoots.timers (tenant_id, fire_at, action_bundle) values ('demo', now(),
    '{"actions": [{"id": "call", "kind": "webhook", "parameters": {"url": "http://127.0.0.1:9/"}}]}') returning id
"""


async def fire(sql: Sql, database: Database, many: int) -> list[object]:
    ids = [await sql.fetchval(INSERT) for _ in range(many)]
    while (await Kernel(database, SystemClock(), 500).run_once()).claimed:
        pass
    await sql.execute("update minoots.deliveries set next_attempt_at = now()")
    return ids


async def test_deliveries_whose_timer_was_removed_end_and_the_others_are_taken(sql: Sql, database: Database) -> None:
    gone = await fire(sql, database, 8)
    await sql.execute("alter table minoots.timers disable trigger user")
    await sql.execute("delete from minoots.timers where id = any($1::uuid[])", gone)
    (alive,) = await fire(sql, database, 1)
    intake = Intake(database, "node", 500)
    taken = [*await intake.take_due(5), *await intake.take_due(5)]
    assert [lease.key.timer_id for lease in taken] == [alive]
    dead = await sql.fetch("select dead_reason from minoots.deliveries where status = 'dead'")
    assert [row[0] for row in dead] == ["its timer is gone"] * 8


async def test_a_truncated_table_of_timers_takes_what_belongs_to_them(sql: Sql, database: Database) -> None:
    await fire(sql, database, 3)
    await sql.execute("truncate minoots.timers")
    for table in ("firings", "deliveries", "attempts"):
        assert await sql.fetchval(f"select count(*) from minoots.{table}") == 0


async def test_a_delivery_opened_again_by_hand_is_taken_and_recorded(sql: Sql, database: Database) -> None:
    (timer,) = await fire(sql, database, 1)
    intake = Intake(database, "node", 500)
    assert len(await intake.take_due(5)) == 1
    # Its lease ends without a record; somebody counts its attempts from the start again.
    await sql.execute("update minoots.deliveries set next_attempt_at = now(), attempt_count = 0, unknown_count = 0")
    assert len(await intake.take_due(5)) == 1
    await sql.execute("update minoots.deliveries set next_attempt_at = now(), attempt_count = 0, unknown_count = 0")
    taken = await intake.take_due(5)
    assert [lease.key.timer_id for lease in taken] == [timer]


async def test_a_delivery_that_cannot_be_leased_is_put_off_and_holds_up_no_other(sql: Sql, database: Database) -> None:
    ids = await fire(sql, database, 6)
    await sql.execute(
        "update minoots.deliveries set attempt_count = 2147483647, lease_id = gen_random_uuid(), leased_at = now(), "
        "next_attempt_at = now() - interval '1 s' where timer_id = $1",
        ids[0],
    )
    intake = Intake(database, "node", 500)
    taken: list[object] = []
    for _ in range(6):
        taken += [lease.key.timer_id for lease in await intake.take_due(10)]
    assert sorted(map(str, taken)) == sorted(map(str, ids[1:]))
    put_off = "select next_attempt_at > now() + interval '30 s' from minoots.deliveries where timer_id = $1"
    assert await sql.fetchval(put_off, ids[0])


async def test_a_claim_that_is_halved_takes_no_more_than_there_are_places(sql: Sql, database: Database) -> None:
    for port in range(1, 9):
        timers = await hold(sql, f"http://127.0.0.1:{port}", 10)
    await sql.execute(
        "update minoots.deliveries set attempt_count = 2147483647, lease_id = gen_random_uuid(), leased_at = now(), "
        "next_attempt_at = now() - interval '1 h' where timer_id = $1",
        timers[0],
    )
    async with orchestrating(database, capacity=16, looping=False) as orchestrator:
        assert 0 < await orchestrator.take_due() <= 32


async def test_a_lease_is_renewed_beside_one_that_somebody_has_locked(
    sql: Sql, database: Database, database_url: str
) -> None:
    ids = await fire(sql, database, 2)
    leases = await Intake(database, "node", 500).take_due(5)
    async with open_transaction(database_url) as somebody:
        await somebody.execute("select from minoots.deliveries where timer_id = $1 for update", ids[0])
        async with database.guarded(is_keyed=True) as connection:
            await deliveries.renew(database, connection, [(lease, timedelta(hours=1)) for lease in leases])
    renewed = await sql.fetch(
        "select timer_id from minoots.deliveries where next_attempt_at > now() + interval '50 min'"
    )
    assert [row["timer_id"] for row in renewed] == ids[1:]


async def test_a_timer_moved_while_its_batch_is_taken_apart_does_not_fail(
    sql: Sql, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await sql.fetchval(INSERT)
    await sql.execute("update minoots.timers set occurrence = 2147483647 where id = $1", bad)
    moved = await sql.fetchval(INSERT)
    real = firings.claim_again

    async def move_then_claim(db: Database, connection: object, marks: object) -> object:
        await sql.execute("update minoots.timers set fire_at = now() + interval '1 hour' where id = $1", moved)
        return await real(db, connection, marks)  # type: ignore[arg-type]

    monkeypatch.setattr(firings, "claim_again", move_then_claim)
    done = await Kernel(database, SystemClock(), 500).run_once()
    assert (done.claimed, done.fired, done.failed) == (2, 0, 1)
    status = dict(await sql.fetch("select id, status from minoots.timers"))
    assert status == {bad: "failed", moved: "scheduled"}


def test_an_event_is_cut_whatever_numbers_are_in_it() -> None:
    digits = "9" * 5000
    timer = f'{{"id": "x", "tenantId": "t", "metadata": {{"n": {digits}}}, "version": 1}}'
    data = f'{{"timer": {timer}, "firing": {{"m": {digits}}}}}'
    assert '"metadata":null' in cut(data)
    assert '"truncated":true' in cut(data)
    assert digits in cut(data)
    assert bare(data) == '{"timer":{"id":"x","tenantId":"t","version":1},"truncated":true}'
