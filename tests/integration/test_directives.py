"""An answer steers its timer, where the timer let it: snooze it, or cancel its schedule."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from minoots.store.database import Database
from tests.integration.test_orchestrator import attempts_of, ended, timer_of
from tests.support import life
from tests.support.orchestrating import orchestrating
from tests.support.scripted_receiver import ScriptedReceiver
from tests.support.timers import Sql, bundle, count, switch_events_off, webhook
from tests.support.waiting import eventually

LONG = 30
SNOOZE_2H = {"minoots": {"snooze": "2h"}}
CANCEL = {"minoots": {"cancelSchedule": True}}


@pytest.fixture
async def receiver() -> AsyncIterator[ScriptedReceiver]:
    async with ScriptedReceiver() as playing:
        yield playing


def answering(receiver: ScriptedReceiver, said: Any, action_id: str = "call", **parameters: Any) -> dict[str, Any]:
    """A webhook whose answer is this JSON, and which may steer its timer."""
    url = receiver.url("/directive/" + quote(json.dumps(said)))
    return webhook(url, action_id, **({"acceptDirectives": True} | parameters))


async def schedule(sql: Sql, actions: dict[str, Any], recurring: dict[str, Any] | None = None) -> UUID:
    """Due at once; a recurring one as its schedule says."""
    return await sql.fetchval(
        "insert into minoots.timers (tenant_id, name, fire_at, schedule, action_bundle)"
        " values ('demo', 'steered', case when $1::jsonb is null then minoots.now() end, $1::jsonb, $2::jsonb)"
        " returning id",
        None if recurring is None else json.dumps(recurring),
        json.dumps(actions),
    )


async def play(database: Database, sql: Sql, deliveries: int = 1) -> None:
    """Kernel and orchestrator, until so many deliveries have ended in all."""
    async with orchestrating(database):
        await life.settle(database)
        await life.make_deliveries_due(sql)
        await eventually(lambda: _has_ended(sql, deliveries), seconds=LONG)


async def _has_ended(sql: Sql, many: int) -> bool:
    return await count(sql, "status in ('delivered', 'dead')", "deliveries") == many


async def now(sql: Sql) -> Any:
    return await sql.fetchval("select minoots.now()")


async def test_a_timer_that_fires_once_is_snoozed_and_fires_again(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    timer = await schedule(sql, bundle(answering(receiver, {"minoots": {"snooze": 1_500}})))
    began = await now(sql)
    await play(database, sql)
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["occurrence"], kept["settled_at"]) == ("scheduled", 1, None)
    assert timedelta(seconds=1.5) <= kept["fire_at"] - began < timedelta(seconds=1.5 + LONG)
    assert await sql.fetchval("select status from minoots.firings where timer_id = $1", timer) == "settled"
    told = await sql.fetchrow(
        "select data, count(*) over () as many from minoots.outbox where kind = 'timer.rescheduled'"
    )
    assert told["many"] == 1
    assert json.loads(told["data"])["timer"]["status"] == "scheduled"
    assert "answer to action call" in json.loads(told["data"])["reason"]
    assert not await count(sql, "kind = 'timer.settled'", "outbox")

    # From here on its answer steers nothing: it fires a second time, and that is its end.
    await sql.execute(
        "update minoots.timers set action_bundle ="
        " jsonb_set(action_bundle::jsonb, '{actions,0,parameters,acceptDirectives}', 'false')"
    )
    await eventually(lambda: _is_due(sql, timer), seconds=LONG)
    await play(database, sql, 2)
    await eventually(ended(sql), seconds=LONG)
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["occurrence"]) == ("settled", 2)
    assert await sql.fetchval("select bool_and(fired_at >= due_at) from minoots.firings")
    ids = {one["webhook_id"] for one in (await receiver.log())["heard"]}
    assert ids == {f"{timer}_1_call", f"{timer}_2_call"}, "a further firing is no repetition"


async def _is_due(sql: Sql, timer: UUID) -> bool:
    return await count(sql, "due_at <= minoots.now()") == 1


async def test_what_a_snoozed_timer_has_still_to_send_stays_as_it_fired(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    """Its other action is tried again after the snooze, with the same body."""
    failing = webhook(receiver.url("/status/503,200"), "other")
    actions = bundle(answering(receiver, SNOOZE_2H), failing, concurrency=2, backoffInitialMs=600, backoffMultiplier=1)
    timer = await schedule(sql, actions)
    await play(database, sql, 2)
    heard = await receiver.heard("/status/503,200")
    assert len(heard) == 2
    assert len({one["body"] for one in heard}) == 1
    assert (await timer_of(sql, timer))["status"] == "scheduled"
    assert await sql.fetchval("select status from minoots.firings where timer_id = $1", timer) == "settled"


@pytest.mark.parametrize(
    "said",
    [{"minoots": {"snooze": "soon"}}, {"snooze": "2h"}, "minoots", CANCEL],
    ids=["nonsense", "elsewhere", "text", "nothing to cancel"],
)
async def test_an_answer_that_asks_for_nothing_that_can_be_done_is_just_an_answer(
    said: Any, receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    timer = await schedule(sql, bundle(answering(receiver, said)))
    await play(database, sql)
    assert (await timer_of(sql, timer))["status"] == "settled"
    assert [attempt["outcome"] for attempt in await attempts_of(sql, timer)] == ["delivered"]


async def test_without_leave_no_answer_steers(receiver: ScriptedReceiver, database: Database, sql: Sql) -> None:
    timers = [
        await schedule(sql, bundle(answering(receiver, SNOOZE_2H, acceptDirectives=leave))) for leave in (None, False)
    ]
    await play(database, sql, 2)
    assert [(await timer_of(sql, timer))["status"] for timer in timers] == ["settled", "settled"]


async def recurring(database: Database, sql: Sql, actions: dict[str, Any], **spec: Any) -> UUID:
    """A recurring timer that has just fired beside its schedule."""
    await switch_events_off(sql)
    timer = await schedule(sql, actions, spec)
    await life.settle(database)
    await sql.execute("update minoots.timers set extra_firings = 1 where id = $1", timer)
    await life.settle(database)
    return timer


async def plan_of(sql: Sql, timer: UUID) -> list[Any]:
    kept = await timer_of(sql, timer)
    return [kept["fire_at"], *kept["planned"]]


async def test_a_recurring_timer_fires_next_when_it_is_snoozed_to_and_then_goes_on(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    timer = await recurring(database, sql, bundle(answering(receiver, SNOOZE_2H)), every="30m")
    before = await plan_of(sql, timer)
    began = await now(sql)
    await play(database, sql)
    after = await plan_of(sql, timer)
    assert timedelta(hours=2) <= after[0] - began < timedelta(hours=2, seconds=LONG)
    assert after[1:] == [instant for instant in before if instant > after[0]]
    assert 3 <= len(before) - len(after[1:]) <= 5, "what would have come before is left out"
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["missed"], kept["due_at"]) == ("scheduled", 0, after[0])


async def test_a_snooze_that_ends_before_the_next_occurrence_adds_one(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    timer = await recurring(database, sql, bundle(answering(receiver, SNOOZE_2H)), every="1d", maxOccurrences=3)
    before = await plan_of(sql, timer)
    assert len(before) == 3
    await play(database, sql)
    after = await plan_of(sql, timer)
    if after[0] < before[0]:  # but for two hours of the day it ends before
        assert after[1:] == before[:2], "of three occurrences it is one"
    else:
        assert after[1:] == before[1:]


async def test_a_schedule_is_cancelled_by_an_answer(receiver: ScriptedReceiver, database: Database, sql: Sql) -> None:
    timer = await recurring(database, sql, bundle(answering(receiver, CANCEL)), every="1h")
    await sql.execute("update minoots.installation set events = true")
    await play(database, sql)
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["cancelled_by"]) == ("cancelled", "receiver")
    assert kept["cancel_reason"] == "asked for by the answer to action call"
    assert await count(sql, "kind = 'timer.cancelled'", "outbox") == 1
    assert await sql.fetchval("select status from minoots.firings where timer_id = $1", timer) == "settled"


async def test_of_two_answers_at_once_to_cancel_goes_first_and_then_the_longer_snooze(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    def both(*said: Any) -> dict[str, Any]:
        actions = [answering(receiver, one, f"a{nth}") for nth, one in enumerate(said)]
        return bundle(*actions, concurrency=len(actions))

    one = await recurring(database, sql, both(SNOOZE_2H, CANCEL), every="1h")
    other = await recurring(database, sql, both({"minoots": {"snooze": "5h"}}, SNOOZE_2H), every="1h")
    began = await now(sql)
    await play(database, sql, 4)
    assert (await timer_of(sql, one))["status"] == "cancelled"
    # Recorded one after the other, each counts; recorded together, the longer does.
    assert (await timer_of(sql, other))["fire_at"] - began > timedelta(hours=1, minutes=59)


async def test_an_answer_that_comes_too_late_steers_nothing(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    """The timer was cancelled while its answer was on the way."""
    timer = await recurring(database, sql, bundle(answering(receiver, SNOOZE_2H)), every="1h")
    await sql.fetchval("select minoots.cancel_timer('demo', $1, 'me', 'enough')", timer)
    await play(database, sql)
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["cancelled_by"]) == ("cancelled", "me")


async def test_a_snoozed_name_that_somebody_else_has_taken_stays_theirs(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    timer = await schedule(sql, bundle(answering(receiver, SNOOZE_2H)))
    await sql.execute("update minoots.timers set is_named = true where id = $1", timer)
    await life.fire(database)
    await sql.execute(
        "insert into minoots.timers (tenant_id, name, fire_at, is_named)"
        " values ('demo', 'steered', minoots.now() + interval '1 h', true)"
    )
    await play(database, sql)
    kept = await timer_of(sql, timer)
    assert (kept["status"], kept["is_named"]) == ("scheduled", False)


async def test_two_timers_of_one_name_that_are_snoozed_at_once_keep_one_name_between_them(
    receiver: ScriptedReceiver, database: Database, sql: Sql
) -> None:
    """Each had it while it waited; the writer of both results must not be stopped by the second."""
    actions = bundle(answering(receiver, SNOOZE_2H))
    for _ in range(2):
        timer = await schedule(sql, actions)
        await sql.execute("update minoots.timers set is_named = true where id = $1", timer)
        await life.settle(database)
    await play(database, sql, 2)
    shown = await sql.fetch("select status, is_named from minoots.timers")
    assert sorted((row["status"], row["is_named"]) for row in shown) == [("scheduled", False), ("scheduled", True)]
