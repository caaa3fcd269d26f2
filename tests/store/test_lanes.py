"""Claiming by lane: room, turns, limits and breakers, by one orchestrator and by several."""

import asyncio
import random
from collections import Counter

import asyncpg
import pytest

from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.lanes import Lanes
from minoots.store.database import Database
from minoots.store.lanes import LaneKey
from tests.support.laned import hold, set_limits
from tests.support.timers import Sql, count

A, B, C = "http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"


def intake(database: Database, node: str = "here", places: int = 1_000, lane_places: int = 1_000) -> Intake:
    return Intake(database, node, 60_000, Lanes(Capacity(places, lane_places), random.Random(node)))


async def test_of_each_lane_no_more_is_leased_than_it_has_room_for(database: Database, sql: Sql) -> None:
    await hold(sql, A, 300)
    await hold(sql, B, 5)
    one = intake(database, lane_places=20)
    leases = await one.take_due(200)
    assert Counter(lease.lane for lease in leases) == {A: 20, B: 5}
    assert await count(sql, "lease_id is not null", "deliveries") == 25
    waiting = await sql.fetchrow(
        "select count(*) as many, sum(attempt_count) as tries from minoots.deliveries where lease_id is null"
    )
    assert (waiting["many"], waiting["tries"]) == (280, 0), "what waits is not charged"


async def test_tenants_and_lanes_take_turns(database: Database, sql: Sql) -> None:
    for lane in range(10):
        await hold(sql, f"http://127.0.0.1:{100 + lane}", 50, tenant="large", ago_s=60)
    await hold(sql, A, 50, tenant="small", ago_s=1)
    leases = await intake(database).take_due(60)
    assert Counter(lease.tenant_id for lease in leases) == {"large": 30, "small": 30}
    large = Counter(lease.lane for lease in leases if lease.tenant_id == "large")
    assert set(large.values()) == {3}


async def test_within_a_lane_the_longest_due_goes_first(database: Database, sql: Sql) -> None:
    late = await hold(sql, A, 3, ago_s=10)
    await hold(sql, A, 3, ago_s=1)
    assert {lease.key.timer_id for lease in await intake(database).take_due(3)} == set(late)


async def test_marks_never_pass_what_was_left_for_want_of_room(database: Database, sql: Sql) -> None:
    """Of a lane with more than it has room for, what follows is claimed from where the first claim ended."""
    timers = await hold(sql, A, 40, ago_s=100)
    one = intake(database, lane_places=15)
    first, second, third = [await one.take_due(200) for _ in range(3)]
    assert [len(first), len(second), len(third)] == [15, 15, 10]
    assert {lease.key.timer_id for lease in (*first, *second, *third)} == set(timers)


async def test_what_appears_before_the_mark_is_found_by_the_next_scan(database: Database, sql: Sql) -> None:
    await hold(sql, A, 5)
    one = intake(database)
    assert len(await one.take_due(200)) == 5
    late = await hold(sql, A, 2, ago_s=3600)
    one.lanes.scan_again()
    assert {lease.key.timer_id for lease in await one.take_due(200)} == set(late)


async def test_a_row_that_somebody_holds_is_found_when_it_is_let_go(
    database: Database, database_url: str, sql: Sql
) -> None:
    first, *_ = await hold(sql, A, 5)
    one = intake(database)
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("select from minoots.deliveries where timer_id = $1 for update", first)
            assert len(await one.take_due(200)) == 4
    finally:
        await other.close()
    assert [lease.key.timer_id for lease in await one.take_due(200)] == [first]


async def test_two_orchestrators_never_lease_the_same_and_leave_nothing(database: Database, sql: Sql) -> None:
    for lane in (A, B, C):
        await hold(sql, lane, 100)

    async def all_of(node: str) -> list[object]:
        taken: list[object] = []
        one = intake(database, node)
        empty = 0
        while empty < 5:
            one.lanes.scan_again()
            leases = await one.take_due(10)
            empty = 0 if leases else empty + 1
            taken += [lease.key for lease in leases]
        return taken

    both = await asyncio.gather(all_of("one"), all_of("two"))
    assert len(both[0]) + len(both[1]) == 300
    assert len({*both[0], *both[1]}) == 300


async def test_a_limit_holds_over_all_orchestrators(database: Database, sql: Sql) -> None:
    await hold(sql, A, 100)
    await set_limits(sql, A, concurrency=7)
    makers = [intake(database, f"node-{n}") for n in range(4)]

    async def some(one: Intake) -> int:
        return sum([len(await one.take_due(200)) for _ in range(5)])

    assert sum(await asyncio.gather(*(some(one) for one in makers))) == 7
    assert await count(sql, "holds_place and lease_id is not null", "deliveries") == 7
    await sql.execute(
        "update minoots.deliveries set lease_id = null, next_attempt_at = null, status = 'delivered', "
        "delivered_at = minoots.now() where (timer_id, occurrence, action_id) in "
        "(select timer_id, occurrence, action_id from minoots.deliveries where lease_id is not null limit 2)"
    )
    assert len(await intake(database, "late").take_due(200)) == 2, "places that became free"


async def test_a_lease_that_ended_holds_no_place(database: Database, sql: Sql) -> None:
    await hold(sql, A, 10)
    await set_limits(sql, A, concurrency=3)
    assert len(await intake(database, "lost").take_due(200)) == 3
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() where lease_id is not null")
    assert len(await intake(database).take_due(200)) == 3


async def test_a_tenants_default_holds_for_each_of_its_lanes_and_for_no_other_tenant(
    database: Database, sql: Sql
) -> None:
    for tenant in ("demo", "other"):
        await hold(sql, A, 10, tenant=tenant)
        await hold(sql, B, 10, tenant=tenant)
    await set_limits(sql, "*", concurrency=2)
    await set_limits(sql, B, concurrency=4)
    taken = Counter((lease.tenant_id, lease.lane) for lease in await intake(database).take_due(200))
    assert taken == {("demo", A): 2, ("demo", B): 4, ("other", A): 10, ("other", B): 10}


async def test_a_rate_lets_through_what_has_come_together(database: Database, sql: Sql) -> None:
    await hold(sql, A, 100)
    await set_limits(sql, A, rate=100)
    one = intake(database)
    assert len(await one.take_due(200)) == 10, "a tenth of a second's worth at once"
    assert len(await intake(database, "other").take_due(200)) <= 9, "and all orchestrators draw from the same"
    await sql.execute("update minoots.lanes set allowed_at = minoots.now() - interval '30 ms'")
    assert 3 <= len(await intake(database, "third").take_due(200)) <= 10


async def test_an_open_lane_gives_nothing_until_its_probe_and_then_one(database: Database, sql: Sql) -> None:
    await hold(sql, A, 20)
    await sql.execute(
        "insert into minoots.lanes (tenant_id, lane, state, failures, openings, opened_at, probe_at, reason) "
        "values ('demo', $1, 'open', 10, 1, minoots.now(), minoots.now() + interval '1 h', 'HTTP 500')",
        A,
    )
    assert await intake(database).take_due(200) == []
    await sql.execute("update minoots.lanes set probe_at = minoots.now()")
    takes = await asyncio.gather(*(intake(database, f"node-{n}").take_due(200) for n in range(4)))
    probes = [lease for leases in takes for lease in leases]
    assert len(probes) == 1, "one probe over all orchestrators"
    row = await sql.fetchrow("select * from minoots.lanes")
    assert (row["state"], row["probe_lease_id"]) == ("half_open", probes[0].lease_id)
    assert await intake(database).take_due(200) == []
    told = await sql.fetch("select kind, timer_id, data ->> 'lane' as lane from minoots.outbox")
    assert [(one["kind"], one["timer_id"]) for one in told] == [("lane.half_opened", probes[0].key.timer_id)]
    assert '"half_open"' in told[0]["lane"]


async def test_a_probe_that_was_lost_is_followed_by_another(database: Database, sql: Sql) -> None:
    await hold(sql, A, 20)
    await sql.execute(
        "insert into minoots.lanes (tenant_id, lane, state, failures, opened_at, probe_at, probe_lease_id) "
        "values ('demo', $1, 'half_open', 10, minoots.now(), minoots.now(), minoots.uuid7())",
        A,
    )
    assert len(await intake(database).take_due(200)) == 1


async def test_what_a_message_tells_of_obeys_the_same_room_and_the_rest_is_due(database: Database, sql: Sql) -> None:
    timers = await hold(sql, A, 30, ago_s=-60)
    others = await hold(sql, B, 5, ago_s=-60)
    closed = await hold(sql, C, 5, ago_s=-60)
    await set_limits(sql, A, concurrency=12)
    await sql.execute(
        "insert into minoots.lanes (tenant_id, lane, state, failures, opened_at, probe_at) "
        "values ('demo', $1, 'open', 10, minoots.now(), minoots.now() + interval '1 h')",
        C,
    )
    leases = await intake(database).take_fired([(timer, 1) for timer in (*timers, *others, *closed)], 200)
    assert Counter(lease.lane for lease in leases) == {A: 12, B: 5}
    assert (
        await count(sql, f"lane = '{A}' and lease_id is null and next_attempt_at <= minoots.now()", "deliveries") == 18
    )
    assert await count(sql, f"lane = '{C}' and next_attempt_at > minoots.now()", "deliveries") == 5, (
        "nobody may have it"
    )


async def test_hundreds_of_lanes_are_all_served(database: Database, sql: Sql) -> None:
    for nth in range(500):
        await hold(sql, f"http://127.0.0.1:{1000 + nth}", 1, tenant=f"t{nth % 50}")
    one = intake(database)
    taken: list[LaneKey] = []
    while leases := await one.take_due(200):
        taken += [LaneKey(lease.tenant_id, lease.lane) for lease in leases]
    assert len(taken) == len(set(taken)) == 500


async def test_lanes_that_have_worked_for_a_day_are_forgotten_and_limits_are_kept(database: Database, sql: Sql) -> None:
    await set_limits(sql, A, concurrency=2)
    await sql.execute(
        "insert into minoots.lanes (tenant_id, lane, failures) values ('demo', $1, 3), ('demo', $2, 0)", B, C
    )
    await intake(database).prune()
    assert await count(sql, "true", "lanes") == 3
    await sql.execute("update minoots.lanes set updated_at = minoots.now() - interval '2 days'")
    await intake(database).prune()
    assert [row["lane"] for row in await sql.fetch("select lane from minoots.lanes")] == [A]


async def test_an_open_lane_is_forgotten_after_a_week_in_which_nothing_was_due_there(
    database: Database, sql: Sql
) -> None:
    await hold(sql, f"{B}/hook", 1)
    for lane in (B, C):
        await sql.execute(
            "insert into minoots.lanes (tenant_id, lane, state, failures, opened_at, probe_at, updated_at) "
            "values ('demo', $1, 'open', 10, minoots.now(), minoots.now(), minoots.now() - interval '6 days')",
            lane,
        )
    await intake(database).prune()
    assert await count(sql, "true", "lanes") == 2
    await sql.execute("update minoots.lanes set updated_at = minoots.now() - interval '8 days'")
    await intake(database).prune()
    assert [row["lane"] for row in await sql.fetch("select lane from minoots.lanes")] == [B]


async def test_a_row_that_is_no_lane_is_refused(sql: Sql) -> None:
    for columns, values in (
        ("state", "'open'"),
        ("concurrency", "0"),
        ("rate_per_s", "0"),
        ("failures", "-1"),
        ("state, opened_at", "'half_open', minoots.now()"),
        ("probe_lease_id", "minoots.uuid7()"),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await sql.execute(f"insert into minoots.lanes (tenant_id, lane, {columns}) values ('demo', 'x', {values})")
