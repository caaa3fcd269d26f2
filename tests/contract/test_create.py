"""Whichever door a timer comes through, it is the same timer, and the same is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contract.door import Door, Refused
from tests.support.rules import BAD, WHOLE, acting, nested
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = {"requestedBy": "ann", "duration": 3_600_000}
# What differs from one timer to the next, however alike they are.
OWN = ("id", "createdAt", "fireAt")


def instant(after: timedelta) -> str:
    return (datetime.now(UTC) + after).isoformat()


def asked(fields: dict[str, Any]) -> dict[str, Any]:
    """A good request with these fields; an instant takes the duration's place."""
    base = {"requestedBy": "ann"} if "fireAt" in fields else HOUR
    return base | fields


async def events(plain: Sql, tenant: str) -> list[dict[str, Any]]:
    rows = await plain.fetch(
        "select kind, data, traceparent, timer_id::text from minoots.outbox where tenant_id = $1 order by id",
        tenant,
    )
    return [dict(row) | {"data": json.loads(row["data"])} for row in rows]


# ---- the same timers ----


async def test_a_timer_with_everything_is_shown_as_it_was_asked_for(door: Door, tenant: str) -> None:
    timer = await door.create(tenant, WHOLE | {"duration": 90_000})
    assert {name: timer[name] for name in WHOLE} == WHOLE
    assert (timer["tenantId"], timer["status"], timer["durationMs"]) == (tenant, "scheduled", 90_000)
    assert (timer["occurrence"], timer["version"]) == (0, 1)
    assert await door.get(tenant, timer["id"]) == timer


async def test_the_same_request_makes_the_same_timer_at_every_door(doors: dict[str, Door], tenant: str) -> None:
    made = [await door.create(tenant, WHOLE | {"duration": 90_000}) for door in doors.values()]
    alike = [{name: value for name, value in timer.items() if name not in OWN} for timer in made]
    assert alike[0] == alike[1] == alike[2]
    assert len({timer["id"] for timer in made}) == 3


async def test_every_door_shows_every_doors_timers_alike(doors: dict[str, Door], tenant: str) -> None:
    for fields in (WHOLE | {"duration": 1}, {"requestedBy": "ann", "fireAt": "2030-01-31T09:00:00.123456+01:00"}):
        for maker in doors.values():
            timer_id = (await maker.create(tenant, fields))["id"]
            shown = [await door.get(tenant, timer_id) for door in doors.values()]
            assert shown[0] == shown[1] == shown[2]


async def test_the_least_timer_has_null_in_the_place_of_what_it_was_not_given(door: Door, tenant: str) -> None:
    timer = await door.create(tenant, HOUR)
    assert {name for name, value in timer.items() if value is None} == {
        "name", "firedAt", "settledAt", "cancelledAt", "cancelReason", "cancelledBy", "failureReason", "metadata",
        "actionBundle", "agentBinding", "schedule",
    }  # fmt: skip
    assert timer["labels"] == {}


async def test_a_duration_may_be_written_in_each_of_the_doors_forms(door: Door, tenant: str) -> None:
    for written in door.ninety_seconds:
        timer = await door.create(tenant, {"requestedBy": "ann", "duration": written})
        assert timer["durationMs"] == 90_000, written
        span = datetime.fromisoformat(timer["fireAt"]) - datetime.fromisoformat(timer["createdAt"])
        assert span == timedelta(seconds=90), written


async def test_an_instant_is_kept_to_the_microsecond(door: Door, tenant: str) -> None:
    timer = await door.create(tenant, {"requestedBy": "ann", "fireAt": "2030-01-31T09:00:00.123456+01:00"})
    assert timer["fireAt"] == "2030-01-31T08:00:00.123456Z"
    assert timer["durationMs"] is None


async def test_an_instant_up_to_a_minute_past_is_taken(door: Door, tenant: str) -> None:
    at = instant(timedelta(seconds=-50))
    timer = await door.create(tenant, {"requestedBy": "ann", "fireAt": at})
    assert datetime.fromisoformat(timer["fireAt"]) == datetime.fromisoformat(at)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 200, "requestedBy": "é" * 200},
        {"labels": {f"{n:063}": "ü" * 255 for n in range(64)}},
        {"metadata": {"a": "x" * (65_536 - 9)}},
        {"metadata": {}},
        {"metadata": nested(32)},
        {
            "metadata": {
                "max": 2**53,
                "min": -(2**53),
                "small": 5e-324,
                "large": 1e22,
                "text": "\u2028 \U0001f600 \\u0000",
            }
        },
        {"actionBundle": {"actions": []}},
        {"actionBundle": {"actions": [acting(id=f"a{n}")["actions"][0] for n in range(16)], "concurrency": 16}},
        {"fireAt": "8999-12-31T23:59:59.999999+00:00"},
    ],
    ids=[
        "names",
        "labels",
        "metadata",
        "no metadata",
        "depth",
        "numbers and text",
        "no actions",
        "actions",
        "the last instant",
    ],
)
async def test_what_is_just_within_its_bound_is_taken_and_kept(fields: dict[str, Any], door: Door, tenant: str) -> None:
    timer = await door.create(tenant, asked(fields))
    shown = fields | ({"fireAt": "8999-12-31T23:59:59.999999Z"} if "fireAt" in fields else {})
    assert {name: timer[name] for name in shown} == shown


# ---- the same refusals ----


@pytest.mark.parametrize("bad", BAD)
async def test_a_timer_that_breaks_a_rule_is_refused(bad: str, door: Door, tenant: str, plain: Sql) -> None:
    fields, pointer = BAD[bad]
    with pytest.raises(Refused) as refused:
        await door.create(tenant, HOUR | fields)
    assert refused.value.kind == "invalid-timer", refused.value
    assert refused.value.pointers in (None, (pointer,))
    assert refused.value.detail
    assert await plain.fetchval("select count(*) from minoots.timers where tenant_id = $1", tenant) == 0


INSTANTS: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({}, "/duration"),
    "both": ({"duration": 1000, "fireAt": instant(timedelta(hours=1))}, "/duration"),
    "a duration of 0": ({"duration": 0}, "/duration"),
    "a duration below 0": ({"duration": -1}, "/duration"),
    "a duration past the year 9000": ({"duration": 6_974 * 366 * 86_400_000}, "/duration"),
    "a duration past all time": ({"duration": 2**63 - 1}, "/duration"),
    "an instant long past": ({"fireAt": instant(timedelta(seconds=-61))}, "/fireAt"),
    "an instant before the epoch": ({"fireAt": "1969-12-31T23:59:59+00:00"}, "/fireAt"),
    "an instant in the year 9000": ({"fireAt": "9000-01-01T00:00:00+00:00"}, "/fireAt"),
    "a duration that is no number": ({"duration": "soon"}, "/duration"),
}


@pytest.mark.parametrize("bad", INSTANTS)
async def test_an_instant_that_cannot_be_is_refused(bad: str, door: Door, tenant: str) -> None:
    if bad in door.knows_no:
        return
    fields, pointer = INSTANTS[bad]
    with pytest.raises(Refused) as refused:
        await door.create(tenant, {"requestedBy": "ann"} | fields)
    assert refused.value.kind == "invalid-timer", refused.value
    assert refused.value.pointers in (None, (pointer,))


@pytest.mark.parametrize("bad", ["-a", "a b", "a/b", "a.b", "é", "a" * 129])
async def test_a_tenant_that_is_none_is_refused(bad: str, door: Door) -> None:
    with pytest.raises(Refused) as refused:
        await door.create(bad, HOUR)
    assert refused.value.kind == "invalid-timer", refused.value
    assert refused.value.pointers in (None, ("/tenantId",))


# ---- idempotency ----


async def test_a_repetition_is_answered_as_the_first_time(door: Door, tenant: str, plain: Sql) -> None:
    first = await door.create(tenant, WHOLE | {"duration": 90_000}, "k")
    assert await door.create(tenant, WHOLE | {"duration": 90_000}, "k") == first
    assert await plain.fetchval("select count(*) from minoots.timers where tenant_id = $1", tenant) == 1
    assert len(await events(plain, tenant)) == 1


async def test_a_key_with_another_request_is_refused(door: Door, tenant: str) -> None:
    await door.create(tenant, HOUR, "k")
    with pytest.raises(Refused) as refused:
        await door.create(tenant, HOUR | {"name": "another"}, "k")
    assert refused.value.kind == "idempotency-mismatch"


async def test_a_key_whose_request_is_under_way_is_refused(door: Door, tenant: str, store: Any) -> None:
    async with store.transaction() as connection:
        assert await connection.fetchval("select minoots.lock_idempotency_key($1, 'k')", tenant)
        with pytest.raises(Refused) as refused:
            await door.create(tenant, HOUR, "k")
    assert refused.value.kind == "idempotency-in-flight"
    assert (await door.create(tenant, HOUR, "k"))["status"] == "scheduled"


@pytest.mark.parametrize("first", ["rest", "grpc", "sql"])
async def test_a_key_counts_through_every_door(first: str, doors: dict[str, Door], tenant: str) -> None:
    at_an_instant = {"requestedBy": "ann", "fireAt": "2031-01-01T00:00:00.5+00:00"}
    for number, fields in enumerate((WHOLE | {"duration": 90_000}, HOUR, at_an_instant)):
        made = await doors[first].create(tenant, fields, f"k{number}")
        for door in doors.values():
            assert (await door.create(tenant, fields, f"k{number}"))["id"] == made["id"], door.name


async def test_a_key_is_its_tenants_own(door: Door, tenant: str) -> None:
    made = [(await door.create(whose, HOUR, "k"))["id"] for whose in (tenant, tenant + "x")]
    assert len(set(made)) == 2


# ---- events ----


async def test_every_door_writes_the_same_events(doors: dict[str, Door], tenant: str, plain: Sql) -> None:
    told = []
    for name, door in doors.items():
        whose = f"{tenant}-{name}"
        timer = await door.create(whose, WHOLE | {"duration": 90_000})
        cancelled = await door.cancel(whose, timer["id"], "bob", "no tea")
        scheduled, gone = await events(plain, whose)
        assert (scheduled["kind"], scheduled["data"]) == ("timer.scheduled", {"timer": timer})
        assert (gone["kind"], gone["data"]) == ("timer.cancelled", {"timer": cancelled, "reason": "no tea"})
        assert {event["timer_id"] for event in (scheduled, gone)} == {timer["id"]}
        told.append([(event["kind"], sorted(event["data"]), event["traceparent"]) for event in (scheduled, gone)])
    assert told[0] == told[1] == told[2]
