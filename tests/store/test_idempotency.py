"""One key, one timer: at once, again, and a day later."""

import asyncio
import json
from typing import Any

import pytest

from minoots.domain.json_text import read_json
from minoots.domain.timer import NewTimer, Timer, TimerRequest, admit
from minoots.errors import IdempotencyInFlight, IdempotencyMismatch, InvalidTimer, MalformedRequest
from minoots.kernel.prune import Pruner
from minoots.service.timers import Timers
from minoots.store.database import Database
from tests.support.timers import Sql, count


def ask(body: str | None = None, **fields: Any) -> NewTimer:
    asked = body or json.dumps({"requestedBy": "ann", "duration": "1h"} | fields)
    return admit(read_json(asked.encode(), TimerRequest))


async def test_a_repetition_is_answered_as_the_first_time(sql: Sql, database: Database) -> None:
    timers = Timers(database)
    first = await timers.schedule("demo", ask(name="tea"), "k")
    await timers.cancel("demo", first.id, "ann")
    assert await timers.schedule("demo", ask(name="tea"), "k") == first
    assert await count(sql, "true") == 1
    assert await count(sql, "kind = 'timer.scheduled'", "outbox") == 1


async def test_the_same_request_may_be_written_in_another_way(database: Database) -> None:
    timers = Timers(database)
    first = await timers.schedule(
        "demo", ask('{"requestedBy":"ann","duration":"90m","metadata":{"a":1,"b":2.50}}'), "k"
    )
    again = ask('{"metadata" : {"b":2.50, "a":1}, "duration":5400000, "labels":null, "requestedBy":"\\u0061nn"}')
    assert (await timers.schedule("demo", again, "k")).id == first.id


@pytest.mark.parametrize("other", [{"name": "x"}, {"duration": "61m"}, {"requestedBy": "bob"}, {"labels": {"a": "b"}}])
async def test_another_request_under_the_key_is_refused(other: dict[str, Any], sql: Sql, database: Database) -> None:
    timers = Timers(database)
    await timers.schedule("demo", ask(), "k")
    with pytest.raises(IdempotencyMismatch):
        await timers.schedule("demo", ask(**other), "k")
    assert await count(sql, "true") == 1


async def test_a_batch_under_the_key_of_a_single_timer_is_refused(database: Database) -> None:
    timers = Timers(database)
    await timers.schedule("demo", ask(), "k")
    with pytest.raises(IdempotencyMismatch):
        await timers.schedule_many("demo", [ask()], "k")


async def test_a_batch_is_answered_again_in_its_order(sql: Sql, database: Database) -> None:
    timers = Timers(database)
    batch = [ask(name=f"n{n}") for n in range(30)]
    first = await timers.schedule_many("demo", batch, "k")
    assert [timer.name for timer in first] == [f"n{n}" for n in range(30)]
    assert await timers.schedule_many("demo", batch, "k") == first
    assert await count(sql, "true") == 30
    with pytest.raises(IdempotencyMismatch):
        await timers.schedule_many("demo", batch[:-1], "k")


async def test_keys_of_two_tenants_have_nothing_to_do_with_each_other(database: Database) -> None:
    timers = Timers(database)
    made = {(await timers.schedule(tenant, ask(name=tenant), "k")).id for tenant in ("demo", "acme")}
    assert len(made) == 2


async def test_of_many_requests_at_once_one_makes_the_timer(sql: Sql, database: Database) -> None:
    """The others get its answer, or are told that it is still being worked on."""
    timers = Timers(database)
    answers = await asyncio.gather(*(timers.schedule("demo", ask(), "k") for _ in range(24)), return_exceptions=True)
    made = {answer.id for answer in answers if isinstance(answer, Timer)}
    assert len(made) == 1
    assert all(isinstance(answer, Timer | IdempotencyInFlight) for answer in answers)
    assert await count(sql, "true") == 1
    assert await count(sql, "true", "outbox") == 1


async def test_a_request_beside_one_under_way_is_told_to_come_again(sql: Sql, database: Database) -> None:
    async with sql.transaction():
        assert await sql.fetchval("select minoots.lock_idempotency_key('demo', 'k')")
        with pytest.raises(IdempotencyInFlight):
            await Timers(database).schedule("demo", ask(), "k")
        await Timers(database).schedule("demo", ask(), "other")
        await Timers(database).schedule("acme", ask(), "k")
    await Timers(database).schedule("demo", ask(), "k")
    assert await count(sql, "true") == 3


async def test_a_request_that_was_refused_does_not_use_its_key_up(sql: Sql, database: Database) -> None:
    timers = Timers(database)
    with pytest.raises(InvalidTimer):
        await timers.schedule("demo", ask(metadata={str(n): 1e300 for n in range(230)}), "k")
    with pytest.raises(InvalidTimer, match="more than a minute"):
        await timers.schedule("demo", ask(duration=None, fireAt="2020-01-01T00:00:00Z"), "k")
    assert await count(sql, "true", "idempotency_keys") == 0
    assert (await timers.schedule("demo", ask(), "k")).status == "scheduled"


async def test_a_key_is_free_again_after_a_day(sql: Sql, database: Database) -> None:
    timers = Timers(database)
    first = await timers.schedule("demo", ask(), "k")
    await sql.execute("update minoots.idempotency_keys set created_at = minoots.now() - interval '23 h 59 min'")
    assert (await timers.schedule("demo", ask(), "k")).id == first.id
    await sql.execute("update minoots.idempotency_keys set created_at = minoots.now() - interval '24 h 1 s'")
    second = await timers.schedule("demo", ask(name="another"), "k")
    assert second.id != first.id
    assert (await timers.schedule("demo", ask(name="another"), "k")).id == second.id
    assert await count(sql, "created_at > minoots.now() - interval '1 min'", "idempotency_keys") == 1


async def test_a_key_is_free_again_after_a_day_through_sql_too(sql: Sql) -> None:
    call = "select minoots.schedule_timer('demo', $1, 'ann', '1 h', idempotency_key => 'k')"
    first = await sql.fetchval(call, "a")
    await sql.execute("update minoots.idempotency_keys set created_at = minoots.now() - interval '24 h 1 s'")
    second = await sql.fetchval(call, "b")
    assert second != first
    assert await sql.fetchval(call, "b") == second


async def test_keys_past_their_day_are_pruned_and_others_are_not(sql: Sql, database: Database) -> None:
    timers = Timers(database)
    for key in ("old", "new"):
        await timers.schedule("demo", ask(), key)
    await sql.execute(
        "update minoots.idempotency_keys set created_at = minoots.now() - interval '25 h' where key = 'old'"
    )
    assert await Pruner(database).run_once() == 1
    assert await sql.fetchval("select array_agg(key) from minoots.idempotency_keys") == ["new"]


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_has_its_bounds(key: str, sql: Sql, database: Database) -> None:
    with pytest.raises(MalformedRequest, match="1 to 255"):
        await Timers(database).schedule("demo", ask(), key)
    assert await count(sql, "true") == 0
    assert (await Timers(database).schedule("demo", ask(), "k" * 255)).status == "scheduled"


@pytest.mark.parametrize("count_of_items", [0, 10_001])
async def test_a_batch_has_its_bounds(count_of_items: int, database: Database) -> None:
    with pytest.raises(InvalidTimer, match="1 to 10,000"):
        await Timers(database).schedule_many("demo", [ask()] * count_of_items)
