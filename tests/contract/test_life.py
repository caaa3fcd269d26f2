"""Cancelling, firing and looking: the same at every door."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from minoots.domain.outcome import Answer, Retry
from minoots.store.database import Database
from tests.contract.door import Door, Refused
from tests.support.life import LATER, attempt, fire
from tests.support.rules import calling
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = {"requestedBy": "ann", "duration": 3_600_000}


def due(**fields: Any) -> Mapping[str, Any]:
    return {"requestedBy": "ann", "fireAt": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()} | fields


async def refusal(call: Any) -> str:
    with pytest.raises(Refused) as refused:
        await call
    assert refused.value.detail
    return refused.value.kind


# ---- cancelling ----


async def test_a_cancelled_timer_says_by_whom_and_why(door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    timer = await door.cancel(tenant, made["id"], "bob", "no tea")
    assert timer == made | {
        "status": "cancelled",
        "cancelledBy": "bob",
        "cancelReason": "no tea",
        "cancelledAt": timer["cancelledAt"],
        "version": 2,
    }
    assert made["createdAt"] <= timer["cancelledAt"]
    assert await door.get(tenant, made["id"]) == timer


async def test_cancelled_again_is_answered_as_it_is(doors: dict[str, Door], tenant: str, plain: Sql) -> None:
    for first in doors.values():
        made = await first.create(tenant, HOUR)
        timer = await first.cancel(tenant, made["id"], "bob")
        assert timer["cancelReason"] is None
        for door in doors.values():
            assert await door.cancel(tenant, made["id"], "carl", "too late") == timer
    assert await plain.fetchval(
        "select count(*) from minoots.outbox where tenant_id = $1 and kind = 'timer.cancelled'", tenant
    ) == len(doors)


async def test_what_has_fired_can_no_longer_be_cancelled(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, due())
    await fire(store)
    assert await refusal(door.cancel(tenant, made["id"], "bob")) == "timer-state-conflict"
    assert (await door.get(tenant, made["id"]))["status"] == "fired"


async def test_what_there_is_not_cannot_be_cancelled_or_seen(door: Door, tenant: str) -> None:
    await door.create(tenant, HOUR)
    unknown = str(uuid4())
    assert await refusal(door.cancel(tenant, unknown, "bob")) == "timer-not-found"
    assert await refusal(door.get(tenant, unknown)) == "timer-not-found"
    assert await refusal(door.firings(tenant, unknown)) == "timer-not-found"
    assert await refusal(door.firing(tenant, unknown, 1)) == "timer-not-found"


@pytest.mark.parametrize("text", ["nope", "123", "00000000-0000-0000-0000-00000000000g", "{}"])
async def test_an_id_that_is_none_is_one_that_there_is_not(text: str, door: Door, tenant: str) -> None:
    if "an id that is none" not in door.knows_no:
        assert await refusal(door.get(tenant, text)) == "timer-not-found"
        assert await refusal(door.cancel(tenant, text, "bob")) == "timer-not-found"


async def test_anothers_timer_is_one_that_there_is_not(door: Door, tenant: str, store: Database) -> None:
    other = tenant + "x"
    waiting = await door.create(tenant, HOUR)
    fired = await door.create(tenant, due())
    await fire(store)
    for timer in (waiting, fired):
        assert await refusal(door.get(other, timer["id"])) == "timer-not-found"
        assert await refusal(door.cancel(other, timer["id"], "bob")) == "timer-not-found"
        assert await refusal(door.firings(other, timer["id"])) == "timer-not-found"
        assert await refusal(door.firing(other, timer["id"], 1)) == "timer-not-found"
    assert await door.list_all(other, {}) == []
    assert (await door.get(tenant, waiting["id"])) == waiting


@pytest.mark.parametrize(
    ("requested_by", "reason"), [("", None), ("x" * 201, None), ("bob", "x" * 1001), ("bob", "a\0b")]
)
async def test_who_and_why_have_their_bounds(requested_by: str, reason: str | None, door: Door, tenant: str) -> None:
    made = await door.create(tenant, HOUR)
    assert await refusal(door.cancel(tenant, made["id"], requested_by, reason)) == "invalid-timer"
    assert await door.get(tenant, made["id"]) == made
    assert (await door.cancel(tenant, made["id"], "x" * 200, "é" * 1000))["cancelReason"] == "é" * 1000


# ---- firing ----


async def test_what_has_fired_is_shown_alike(doors: dict[str, Door], tenant: str, store: Database, plain: Sql) -> None:
    for maker in doors.values():
        made = await maker.create(tenant, due(actionBundle=calling()))
        await fire(store)
        await plain.execute(
            "update minoots.deliveries set next_attempt_at = minoots.now() where timer_id = $1", made["id"]
        )
        assert await attempt(store, Retry("HTTP 500", Answer(12, 500, "broken\n")), LATER) == 1
        timers = [await door.get(tenant, made["id"]) for door in doors.values()]
        assert timers[0] == timers[1] == timers[2]
        assert timers[0] == made | {
            "status": "fired", "firedAt": timers[0]["firedAt"], "occurrence": 1, "version": 2,
        }  # fmt: skip
        listed = [await door.firings(tenant, made["id"]) for door in doors.values()]
        assert listed[0] == listed[1] == listed[2]
        firings = [await door.firing(tenant, made["id"], 1) for door in doors.values()]
        assert firings[0] == firings[1] == firings[2]
        firing = firings[0]
        deliveries = firing.pop("deliveries")
        assert listed[0] == [firing]
        assert (firing["status"], firing["occurrence"], firing["firedAt"]) == ("dispatching", 1, timers[0]["firedAt"])
        (delivery,) = deliveries
        assert (delivery["status"], delivery["lane"], delivery["attemptCount"]) == ("pending", "https://example.com", 1)
        (tried,) = delivery["attempts"]
        assert (tried["outcome"], tried["statusCode"], tried["excerpt"]) == ("retry", 500, "broken\n")


async def test_a_timer_without_actions_ends_as_it_fires(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, due())
    assert await door.firings(tenant, made["id"]) == []
    await fire(store)
    assert (await door.get(tenant, made["id"]))["status"] == "fired"
    firing = await door.firing(tenant, made["id"], 1)
    assert (firing["status"], firing["deliveries"]) == ("settled", [])
    assert firing["settledAt"] == firing["firedAt"]
    assert await refusal(door.firing(tenant, made["id"], 2)) == "firing-not-found"


async def test_a_timer_fires_through_no_door_before_its_time(door: Door, tenant: str, store: Database) -> None:
    made = await door.create(tenant, HOUR)
    await fire(store)
    assert await door.get(tenant, made["id"]) == made


# ---- lists ----


async def test_a_list_shows_the_newest_first_page_by_page(doors: dict[str, Door], tenant: str) -> None:
    made = []
    for number in range(7):
        door = list(doors.values())[number % 3]
        made.append(await door.create(tenant, HOUR | {"name": f"n{number}"}))
    for door in doors.values():
        for limit in (2, 7, 50):
            shown = await door.list_all(tenant, {}, limit)
            assert sorted(shown, key=lambda timer: timer["id"], reverse=True) == shown
            assert {timer["name"] for timer in shown} == {f"n{n}" for n in range(7)}
            assert {timer["id"]: timer for timer in shown} == {timer["id"]: timer for timer in made}


async def test_a_list_may_be_narrowed_in_the_same_ways(doors: dict[str, Door], tenant: str) -> None:
    maker = doors["rest"]
    tea = await maker.create(tenant, HOUR | {"name": "tea", "labels": {"kind": "hot", "für": "ann"}})
    cola = await maker.create(tenant, HOUR | {"name": "cola", "labels": {"kind": "cold"}})
    late = await maker.create(tenant, {"requestedBy": "ann", "fireAt": "2033-01-01T00:00:00+00:00", "name": "tea"})
    gone = await maker.cancel(tenant, (await maker.create(tenant, HOUR))["id"], "bob")
    new_year = datetime(2033, 1, 1, tzinfo=UTC)
    for wanted, expected in (
        ({"statuses": ["scheduled"]}, [late, cola, tea]),
        ({"statuses": ["cancelled"]}, [gone]),
        ({"statuses": ["cancelled", "scheduled"], "name": "tea"}, [late, tea]),
        ({"labels": {"kind": "hot"}}, [tea]),
        ({"labels": {"kind": "cold", "für": "ann"}}, []),
        ({"name": "cola"}, [cola]),
        ({"dueBefore": new_year}, [gone, cola, tea]),
        ({"dueAfter": new_year - timedelta(seconds=1)}, [late]),
        ({"statuses": ["fired"]}, []),
    ):
        for door in doors.values():
            assert await door.list_all(tenant, wanted) == expected, (door.name, wanted)
