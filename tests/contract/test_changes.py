"""Pausing, resuming, moving, firing, changing and putting by name: the same at every door."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from minoots.store.database import Database
from tests.contract.door import Door, Refused, Timer
from tests.support.life import settle
from tests.support.rules import WHOLE, calling
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = {"requestedBy": "ann", "duration": 3_600_000}
PAST = "2001-01-01T00:00:00+00:00"
HOURLY = {"requestedBy": "ann", "schedule": {"every": "1h"}}
STEPS = ("pause", "resume", "fire")


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def at(timer: Timer) -> datetime:
    return datetime.fromisoformat(timer["fireAt"])


async def refusal(call: Any) -> str:
    with pytest.raises(Refused) as refused:
        await call
    assert refused.value.detail
    return refused.value.kind


async def events(plain: Sql, tenant: str, timer_id: str) -> list[tuple[str, Any]]:
    rows = await plain.fetch(
        "select kind, data from minoots.outbox where tenant_id = $1 and timer_id = $2 order by id", tenant, timer_id
    )
    return [(row["kind"], json.loads(row["data"])) for row in rows]


async def rewind(plain: Sql, timer_id: str, seconds: int) -> None:
    """As if so much time had passed since: a paused timer is as it would be then."""
    await plain.execute(
        """update minoots.timers set created_at = created_at - $2::interval, fire_at = fire_at - $2::interval,
                  planned = array(select p - $2::interval from unnest(planned) p),
                  planned_to = planned_to - $2::interval where id = $1""",
        timer_id,
        timedelta(seconds=seconds),
    )


# ---- pausing and resuming ----


async def test_a_paused_timer_waits_and_fires_when_it_is_resumed(
    door: Door, tenant: str, store: Database, plain: Sql
) -> None:
    made = await door.create(tenant, HOUR)
    paused = await door.pause(tenant, made["id"], "bob")
    assert paused == made | {"status": "paused", "version": 2}
    await rewind(plain, made["id"], 7_200)
    await settle(store)
    assert (await door.get(tenant, made["id"]))["status"] == "paused"
    resumed = await door.resume(tenant, made["id"], requested_by="carl")
    assert (resumed["status"], resumed["version"]) == ("scheduled", 3)
    await settle(store)
    fired = await door.get(tenant, made["id"])
    assert (fired["status"], fired["occurrence"]) == ("fired", 1)
    firing = await door.firing(tenant, made["id"], 1)
    assert firing["dueAt"] > firing["nominalAt"], "it was due when it was resumed"
    told = await events(plain, tenant, made["id"])
    assert [(kind, data.get("reason")) for kind, data in told[1:3]] == [
        ("timer.paused", "requested by bob"),
        ("timer.resumed", "requested by carl"),
    ]
    assert [data["timer"] for _, data in told[1:3]] == [paused, resumed]


async def test_a_step_that_was_made_already_is_answered_as_it_is(doors: dict[str, Door], tenant: str) -> None:
    for first in doors.values():
        made = await first.create(tenant, HOUR)
        paused = await first.pause(tenant, made["id"])
        for door in doors.values():
            assert await door.pause(tenant, made["id"]) == paused
        resumed = await first.resume(tenant, made["id"])
        for door in doors.values():
            assert await door.resume(tenant, made["id"]) == resumed


@pytest.mark.parametrize("step", STEPS)
async def test_what_has_ended_has_no_further_step(step: str, door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    gone = await door.cancel(tenant, made["id"], "bob")
    assert await refusal(getattr(door, step)(tenant, made["id"])) == "timer-state-conflict"
    assert await refusal(door.reschedule(tenant, made["id"], {"duration": 1_000})) == "timer-state-conflict"
    assert await refusal(door.update(tenant, made["id"], {"name": "x"})) == "timer-state-conflict"
    assert await door.get(tenant, made["id"]) == gone


@pytest.mark.parametrize("step", STEPS)
async def test_there_is_no_step_for_what_is_not_ones_own(step: str, door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    for whose, timer_id in ((tenant, str(uuid4())), (tenant + "x", made["id"])):
        assert await refusal(getattr(door, step)(whose, timer_id)) == "timer-not-found"
        assert await refusal(door.reschedule(whose, timer_id, {"duration": 1_000})) == "timer-not-found"
        assert await refusal(door.update(whose, timer_id, {"name": "x"})) == "timer-not-found"
    assert await door.get(tenant, made["id"]) == made


@pytest.mark.parametrize("who", ["", "x" * 201])
async def test_who_asks_has_its_bounds(who: str, door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    assert await refusal(door.pause(tenant, made["id"], who)) == "invalid-timer"
    assert await refusal(door.fire(tenant, made["id"], who)) == "invalid-timer"
    assert await door.get(tenant, made["id"]) == made


async def test_what_came_due_in_a_pause_is_missed_and_told(
    door: Door, tenant: str, store: Database, plain: Sql
) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    planned = await door.get(tenant, made["id"])
    await door.pause(tenant, made["id"])
    await rewind(plain, made["id"], 5 * 3_600)
    resumed = await door.resume(tenant, made["id"])
    await settle(store)
    assert (await door.get(tenant, made["id"])) == resumed
    assert (resumed["status"], resumed["missed"], resumed["occurrence"]) == ("scheduled", 5, 0)
    assert at(resumed) == at(planned)
    missed = [data for kind, data in await events(plain, tenant, made["id"]) if kind == "timer.missed"]
    assert [data["missed"] for data in missed] == [
        {
            "from": (at(planned) - timedelta(hours=5)).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "to": (at(planned) - timedelta(hours=1)).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "count": 5,
            "reason": "paused",
        }
    ]
    assert missed[0]["timer"] == resumed


async def test_with_catching_up_the_schedule_decides(door: Door, tenant: str, store: Database) -> None:
    policy = {"policy": "all", "window": "1d", "max": 3}
    made = await door.create(tenant, {"requestedBy": "ann", "schedule": {"every": "1h", "catchUp": policy}})
    await settle(store)
    await door.pause(tenant, made["id"])
    async with store.connection() as connection:
        await rewind(connection, made["id"], 5 * 3_600)
    await door.resume(tenant, made["id"], catch_up=True)
    await settle(store)
    timer = await door.get(tenant, made["id"])
    assert (timer["status"], timer["occurrence"], timer["missed"]) == ("scheduled", 3, 2)
    assert at(timer) > datetime.now(UTC)


async def test_a_pause_in_which_nothing_came_due_misses_nothing(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    before = await door.get(tenant, made["id"])
    await door.pause(tenant, made["id"])
    after = await door.resume(tenant, made["id"])
    assert after == before | {"version": before["version"] + 2}


THREE_TIMES = {"requestedBy": "ann", "schedule": {"every": "1h", "maxOccurrences": 3}}


async def live_on(door: Door, tenant: str, timer_id: str, store: Database, plain: Sql) -> Timer:
    """Every instant that is still to come, each in its turn: the timer as it is then."""
    for _ in range(10):
        await settle(store)
        timer = await door.get(tenant, timer_id)
        if timer["fireAt"] is None or timer["status"] != "scheduled":
            break
        await rewind(plain, timer_id, int((at(timer) - datetime.now(UTC)).total_seconds()) + 1)
        await plain.execute("update minoots.timers set not_before = fire_at where id = $1", timer_id)
    return timer


@pytest.mark.parametrize(("hours", "missed"), [(1, 1), (2, 2), (3, 3), (5, 5)])
async def test_what_was_missed_in_a_pause_uses_up_no_occurrence(
    hours: int, missed: int, door: Door, tenant: str, store: Database, plain: Sql
) -> None:
    made = await door.create(tenant, THREE_TIMES)
    await settle(store)
    await door.pause(tenant, made["id"])
    await rewind(plain, made["id"], hours * 3_600)
    await door.resume(tenant, made["id"])
    await settle(store)
    resumed = await door.get(tenant, made["id"])
    assert (resumed["status"], resumed["occurrence"], resumed["missed"]) == ("scheduled", 0, missed)
    assert timedelta() < at(resumed) - datetime.now(UTC) <= timedelta(hours=1)
    ended = await live_on(door, tenant, made["id"], store, plain)
    assert (ended["status"], ended["occurrence"], ended["missed"]) == ("settled", 3, missed)


async def test_what_a_move_passes_by_uses_up_no_occurrence(
    door: Door, tenant: str, store: Database, plain: Sql
) -> None:
    made = await door.create(tenant, THREE_TIMES)
    await settle(store)
    await door.reschedule(tenant, made["id"], {"duration": 5 * 3_600_000})
    ended = await live_on(door, tenant, made["id"], store, plain)
    assert (ended["status"], ended["occurrence"], ended["missed"]) == ("settled", 3, 0)


async def test_what_came_due_without_a_plan_is_missed_and_told(
    door: Door, tenant: str, store: Database, plain: Sql
) -> None:
    """It was paused after its last planned occurrence, before the planner had come to it."""
    made = await door.create(tenant, HOURLY)
    await settle(store)
    planned = await door.get(tenant, made["id"])
    await door.pause(tenant, made["id"])
    await plain.execute(
        """update minoots.timers set planned_to = fire_at - interval '1 hour', fire_at = null, planned = '{}'
            where id = $1""",
        made["id"],
    )
    await rewind(plain, made["id"], 5 * 3_600)
    await door.resume(tenant, made["id"])
    await settle(store)
    resumed = await door.get(tenant, made["id"])
    assert (resumed["status"], resumed["missed"], resumed["occurrence"]) == ("scheduled", 5, 0)
    assert timedelta() < at(resumed) - datetime.now(UTC) <= timedelta(hours=1)
    [missed] = [data["missed"] for kind, data in await events(plain, tenant, made["id"]) if kind == "timer.missed"]
    assert (missed["count"], missed["reason"]) == (5, "paused")
    assert datetime.fromisoformat(missed["from"]) == at(planned) - timedelta(hours=5)
    assert datetime.fromisoformat(missed["to"]) == at(planned) - timedelta(hours=1)


# ---- another instant ----


async def test_a_timer_is_moved_to_another_instant(door: Door, tenant: str, plain: Sql) -> None:
    made = await door.create(tenant, HOUR)
    moved = await door.reschedule(tenant, made["id"], {"duration": 7_200_000, "requestedBy": "bob"})
    assert (moved["durationMs"], moved["version"]) == (7_200_000, 2)
    assert timedelta(minutes=119) < at(moved) - at(made) + timedelta(hours=1) < timedelta(minutes=121)
    instant = await door.reschedule(tenant, made["id"], {"fireAt": "2031-01-01T00:00:00+00:00"})
    assert (instant["durationMs"], instant["fireAt"]) == (None, "2031-01-01T00:00:00.000000Z")
    told = await events(plain, tenant, made["id"])
    assert [kind for kind, _ in told] == ["timer.scheduled", "timer.rescheduled", "timer.rescheduled"]
    assert told[1][1] == {"timer": moved, "reason": "requested by bob"}
    assert told[2][1]["timer"] == instant


async def test_an_instant_just_past_fires_at_once_and_an_older_one_is_refused(
    door: Door, tenant: str, store: Database
) -> None:
    made = await door.create(tenant, HOUR)
    assert await refusal(door.reschedule(tenant, made["id"], {"fireAt": soon(-61)})) == "invalid-timer"
    assert await refusal(door.reschedule(tenant, made["id"], {"fireAt": PAST})) == "invalid-timer"
    assert await refusal(door.reschedule(tenant, made["id"], {"duration": 0})) == "invalid-timer"
    assert await refusal(door.reschedule(tenant, made["id"], {})) == "invalid-timer"
    assert await door.get(tenant, made["id"]) == made
    await door.reschedule(tenant, made["id"], {"fireAt": soon(-30)})
    await settle(store)
    firing = await door.firing(tenant, made["id"], 1)
    assert firing["latenessMs"] < 10_000, "it was due when it was moved"


async def test_a_moved_timer_that_is_paused_stays_so(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOUR)
    await door.pause(tenant, made["id"])
    moved = await door.reschedule(tenant, made["id"], {"fireAt": soon(-30)})
    assert moved["status"] == "paused"
    await settle(store)
    assert (await door.get(tenant, made["id"]))["status"] == "paused"


async def test_an_instant_moves_only_the_next_occurrence(door: Door, tenant: str, store: Database, plain: Sql) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    before = await door.get(tenant, made["id"])
    there = at(before) + timedelta(hours=2, minutes=10)
    moved = await door.reschedule(tenant, made["id"], {"fireAt": there.isoformat()})
    assert at(moved) == there
    assert moved["schedule"] == {"specs": [{"every": "1h"}]}
    await rewind(plain, made["id"], int((there - datetime.now(UTC)).total_seconds()) + 1)
    await settle(store)
    after = await door.get(tenant, made["id"])
    assert (after["occurrence"], after["missed"]) == (1, 0)
    shift = int((there - datetime.now(UTC)).total_seconds()) + 1
    assert abs(at(after) - (at(before) + timedelta(hours=3) - timedelta(seconds=shift))) < timedelta(seconds=5)


async def test_another_schedule_goes_on_from_now(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    await door.fire(tenant, made["id"])
    await settle(store)
    await door.reschedule(tenant, made["id"], {"cron": "0 0 1 1 *", "timezone": "Europe/Berlin"})
    await settle(store)
    moved = await door.get(tenant, made["id"])
    assert moved["schedule"] == {"specs": [{"cron": "0 0 1 1 *", "timezone": "Europe/Berlin"}]}
    assert moved["fireAt"].endswith("-12-31T23:00:00.000000Z")
    assert (moved["occurrence"], moved["status"]) == (1, "scheduled")


async def test_a_timer_that_fires_once_may_become_a_recurring_one(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOUR)
    await door.reschedule(tenant, made["id"], {"schedule": {"every": "1h", "jitter": "10m"}})
    await settle(store)
    moved = await door.get(tenant, made["id"])
    assert (moved["durationMs"], moved["schedule"]) == (None, {"specs": [{"every": "1h"}], "jitter": "10m"})
    assert moved["fireAt"].endswith(":00:00.000000Z")
    assert at(moved) > datetime.now(UTC)
    async with store.connection() as connection:
        jitter_ms = await connection.fetchval("select jitter_ms from minoots.timers where id = $1", moved["id"])
    assert 0 < jitter_ms <= 600_000


# ---- firing now ----


async def test_fired_now_is_fired_for_good(door: Door, tenant: str, store: Database, plain: Sql) -> None:
    made = await door.create(tenant, HOUR | {"actionBundle": calling()})
    await door.fire(tenant, made["id"])
    await settle(store)
    fired = await door.get(tenant, made["id"])
    assert (fired["status"], fired["occurrence"]) == ("fired", 1)
    firing = await door.firing(tenant, made["id"], 1)
    assert firing["nominalAt"] <= firing["dueAt"] <= firing["firedAt"]
    assert [delivery["actionId"] for delivery in firing["deliveries"]] == ["call"]
    assert await refusal(door.fire(tenant, made["id"])) == "timer-state-conflict"
    assert [kind for kind, _ in await events(plain, tenant, made["id"])] == ["timer.scheduled", "timer.fired"]


async def test_a_paused_timer_can_be_fired(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOUR)
    await door.pause(tenant, made["id"])
    await door.fire(tenant, made["id"])
    await settle(store)
    assert (await door.get(tenant, made["id"]))["status"] == "fired"


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_recurring_timer_fires_beside_its_schedule(
    is_paused: bool, door: Door, tenant: str, store: Database
) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    if is_paused:
        await door.pause(tenant, made["id"])
    before = await door.get(tenant, made["id"])
    for _ in range(2):
        await door.fire(tenant, made["id"])
    await settle(store)
    after = await door.get(tenant, made["id"])
    assert after["occurrence"] == 2
    assert [after[name] for name in ("status", "fireAt", "missed")] == [
        before[n] for n in ("status", "fireAt", "missed")
    ]
    firings = await door.firings(tenant, made["id"])
    assert [firing["occurrence"] for firing in firings] == [2, 1]


# ---- changing in place ----


async def test_what_is_given_replaces_and_the_rest_stays(door: Door, tenant: str, plain: Sql) -> None:
    made = await door.create(tenant, WHOLE | {"duration": 3_600_000})
    changed = await door.update(tenant, made["id"], {"labels": {"a": "b"}, "metadata": {"x": [1]}})
    assert changed == made | {"labels": {"a": "b"}, "metadata": {"x": [1]}, "version": 2}
    assert await door.get(tenant, made["id"]) == changed
    acting = await door.update(tenant, made["id"], {"actionBundle": calling(), "name": "other"})
    assert acting == changed | {"actionBundle": calling(), "name": "other", "version": 3}
    (kind, data) = (await events(plain, tenant, made["id"]))[-1]
    assert (kind, data["timer"]) == ("timer.rescheduled", acting)


async def test_null_clears(door: Door, tenant: str) -> None:
    made = await door.create(tenant, WHOLE | {"duration": 3_600_000})
    cleared = {"name": None, "metadata": None, "actionBundle": None, "agentBinding": None}
    changed = await door.update(tenant, made["id"], cleared | {"labels": None})
    assert changed == made | cleared | {"labels": {}, "version": 2}


async def test_a_change_of_nothing_changes_nothing(door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    assert await door.update(tenant, made["id"], {}) == made


async def test_a_change_may_move_it_too(door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    changed = await door.update(tenant, made["id"], {"name": "tea", "fireAt": "2031-01-01T00:00:00+00:00"})
    assert changed == made | {
        "name": "tea", "fireAt": "2031-01-01T00:00:00.000000Z", "durationMs": None, "version": 2,
    }  # fmt: skip


async def test_a_recurring_timer_may_become_one_that_fires_once(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOURLY)
    await settle(store)
    assert await refusal(door.update(tenant, made["id"], {"schedule": None})) == "invalid-timer"
    changed = await door.update(tenant, made["id"], {"schedule": None, "duration": 60_000})
    assert (changed["schedule"], changed["durationMs"]) == (None, 60_000)
    await door.fire(tenant, made["id"])
    await settle(store)
    assert (await door.get(tenant, made["id"]))["status"] == "fired"


async def test_an_instant_cannot_be_taken_away(door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    if "an instant that is cleared" not in door.knows_no:
        assert await refusal(door.update(tenant, made["id"], {"fireAt": None})) == "invalid-timer"
        assert await refusal(door.update(tenant, made["id"], {"duration": None})) == "invalid-timer"
    assert await refusal(door.update(tenant, made["id"], {"name": ""})) == "invalid-timer"
    assert await refusal(door.update(tenant, made["id"], {"labels": {"": "x"}})) == "invalid-timer"
    assert await refusal(door.update(tenant, made["id"], {"name": "x", "fireAt": PAST})) == "invalid-timer"
    assert await door.get(tenant, made["id"]) == made


async def test_a_change_may_ask_for_the_version_it_was_decided_on(door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    assert (await door.update(tenant, made["id"], {"name": "a"}, if_version=1))["version"] == 2
    assert await refusal(door.update(tenant, made["id"], {"name": "b"}, if_version=1)) == "stale-version"
    assert (await door.update(tenant, made["id"], {"name": "c"}, if_version=0))["version"] == 3


async def test_of_many_changes_at_once_each_is_made(door: Door, tenant: str) -> None:
    if door.name == "sql":
        return  # one connection does one after the other
    made = await door.create(tenant, HOUR | {"labels": {"n": "0"}})
    fields = [{"name": "n"}, {"metadata": {"a": 1}}, {"labels": {"n": "1"}}, {"actionBundle": calling()}]
    await asyncio.gather(*(door.update(tenant, made["id"], field) for field in fields))
    changed = await door.get(tenant, made["id"])
    assert changed["version"] == 5
    assert {name: changed[name] for field in fields for name in field} == {
        name: value for field in fields for name, value in field.items()
    }


# ---- by name ----


async def test_a_timer_is_put_by_its_name_and_replaced(door: Door, tenant: str, plain: Sql) -> None:
    made, is_new = await door.put(tenant, "daily/für ann?", WHOLE_UNNAMED | {"duration": 60_000})
    assert (is_new, made["name"], made["version"]) == (True, "daily/für ann?", 1)
    assert {name: made[name] for name in WHOLE_UNNAMED} == WHOLE_UNNAMED
    other, is_new = await door.put(tenant, "daily/für ann?", {"requestedBy": "carl", "duration": 90_000})
    assert not is_new
    assert other == made | {
        "requestedBy": "carl", "durationMs": 90_000, "metadata": None, "labels": {}, "actionBundle": None,
        "agentBinding": None, "fireAt": other["fireAt"], "version": 2,
    }  # fmt: skip
    assert at(other) > at(made)
    told = await events(plain, tenant, made["id"])
    assert [kind for kind, _ in told] == ["timer.scheduled", "timer.rescheduled"]
    assert [data["timer"] for _, data in told] == [made, other]


WHOLE_UNNAMED = {name: value for name, value in WHOLE.items() if name != "name"}


async def test_every_door_puts_the_same_timer(doors: dict[str, Door], tenant: str) -> None:
    ids = {(await door.put(tenant, "one", HOURLY))[0]["id"] for door in doors.values()}
    assert len(ids) == 1
    assert len(await doors["rest"].list_all(tenant, {})) == 1


async def test_the_same_schedule_put_again_moves_nothing(
    doors: dict[str, Door], tenant: str, store: Database, plain: Sql
) -> None:
    schedule = {"every": "1h", "jitter": "30m", "catchUp": None}
    made, _ = await doors["rest"].put(tenant, "s", {"requestedBy": "ann", "schedule": schedule})
    row = "select fire_at, planned, planned_to, jitter_ms, due_at, schedule from minoots.timers where id = $1"
    before = await plain.fetchrow(row, made["id"])
    full = {"specs": [{"every": "1h"}], "jitter": "30m"}
    for door in doors.values():
        for asked in (schedule, full):
            again, _ = await door.put(tenant, "s", {"requestedBy": "ann", "schedule": asked})
            assert again == made
    assert await plain.fetchrow(row, made["id"]) == before
    changed, _ = await doors["rest"].put(tenant, "s", {"requestedBy": "ann", "schedule": full, "labels": {"a": "b"}})
    assert (changed["version"], changed["fireAt"]) == (made["version"] + 1, made["fireAt"])


async def test_a_paused_timer_that_is_put_again_stays_paused(door: Door, tenant: str) -> None:
    made, _ = await door.put(tenant, "p", HOURLY)
    await door.pause(tenant, made["id"])
    again, is_new = await door.put(tenant, "p", HOURLY)
    assert (again["id"], again["status"], is_new) == (made["id"], "paused", False)


async def test_a_name_is_free_when_its_timer_has_ended(door: Door, tenant: str) -> None:
    made, _ = await door.put(tenant, "free", HOUR)
    await door.cancel(tenant, made["id"], "bob")
    other, is_new = await door.put(tenant, "free", HOUR)
    assert is_new
    assert other["id"] != made["id"]


async def test_names_of_timers_that_were_not_put_are_their_own(door: Door, tenant: str) -> None:
    plain_one = await door.create(tenant, HOUR | {"name": "shared"})
    made, is_new = await door.put(tenant, "shared", HOUR)
    elsewhere, is_new_there = await door.put(tenant + "x", "shared", HOUR)
    assert is_new
    assert is_new_there
    assert len({plain_one["id"], made["id"], elsewhere["id"]}) == 3
    other, _ = await door.put(tenant, "another", HOUR)
    assert await refusal(door.update(tenant, other["id"], {"name": "shared"})) == "name-taken"
    assert (await door.update(tenant, plain_one["id"], {"name": "another"}))["name"] == "another"


async def test_a_put_may_ask_for_the_version_it_was_decided_on(door: Door, tenant: str) -> None:
    assert await refusal(door.put(tenant, "v", HOUR, if_version=0)) == "stale-version"
    assert await refusal(door.put(tenant, "v", HOUR, if_version=1)) == "stale-version"
    await door.put(tenant, "v", HOUR)
    assert (await door.put(tenant, "v", HOUR, if_version=1))[0]["version"] == 2
    assert await refusal(door.put(tenant, "v", HOUR, if_version=1)) == "stale-version"
    assert (await door.put(tenant, "v", HOUR, if_version=0))[0]["version"] == 3


async def test_two_puts_at_once_end_in_one_timer(doors: dict[str, Door], tenant: str, plain: Sql) -> None:
    for number in range(10):
        puts = [door.put(tenant, f"race{number}", HOURLY) for door in doors.values() for _ in range(3)
                if door.name != "sql"]  # fmt: skip
        puts.append(doors["sql"].put(tenant, f"race{number}", HOURLY))
        answers = await asyncio.gather(*puts)
        assert len({timer["id"] for timer, _ in answers}) == 1
        # SQL does not say whether it is new: its door here goes by the version, which an unchanged one has as well.
        assert sum(is_new for _, is_new in answers[:-1]) <= 1
    assert await plain.fetchval("select count(*) from minoots.timers where tenant_id = $1", tenant) == 10


@pytest.mark.parametrize("name", ["", "x" * 201])
async def test_a_name_has_its_bounds(name: str, door: Door, tenant: str) -> None:
    with pytest.raises(Refused) as refused:
        await door.put(tenant, name, HOUR)
    assert refused.value.kind in ("invalid-timer", "method-not-allowed", "route-not-found")
