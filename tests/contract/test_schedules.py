"""Timers that recur: made through any door they are the same, and the same is refused."""

import json
from datetime import datetime
from typing import Any

import pytest

from minoots.store.database import Database
from tests.contract.door import Door, Refused
from tests.support.life import settle
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")

BERLIN = {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}
WHOLE: dict[str, Any] = {
    "specs": [BERLIN, {"every": "90m", "phase": "10m"}, {"at": ["2035-01-01T00:00:00Z"]},
              {"rrule": "FREQ=MONTHLY;BYDAY=-1FR", "dtstart": "2030-01-01T08:00:00", "timezone": "Asia/Kathmandu"}],
    "exclude": ["2030-12-25", {"cron": "0 9 24 12 *", "timezone": "Europe/Berlin"}],
    "gap": "skip", "overlap": "both", "startAt": "2030-01-01T00:00:00Z", "endAt": "2040-01-01T00:00:00Z",
    "maxOccurrences": 1000, "catchUp": {"policy": "all", "window": "2h", "max": 5}, "whileRunning": "queue",
    "pauseAfterFailures": 3,
}  # fmt: skip


async def test_every_door_makes_the_same_recurring_timer(doors: dict[str, Door], tenant: str, store: Database) -> None:
    shown = []
    for door in doors.values():
        made = await door.create(tenant, {"requestedBy": "ann", "schedule": WHOLE})
        assert made["schedule"] == WHOLE
        await settle(store)
        timer = await door.get(tenant, made["id"])
        assert (timer["status"], timer["occurrence"], timer["missed"], timer["durationMs"]) == ("scheduled", 0, 0, None)
        shown.append(timer["fireAt"])
        for other in doors.values():
            assert await other.get(tenant, made["id"]) == timer
    assert shown == ["2030-01-01T00:10:00.000000Z"] * 3


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ({"cron": "@daily"}, {"specs": [{"cron": "@daily"}]}),
        (BERLIN, {"specs": [BERLIN]}),
        ({"every": "15m"}, {"specs": [{"every": "15m"}]}),
        (
            {"schedule": {"every": "15m", "jitter": "1m", "whileRunning": "skip", "gap": None}},
            {"specs": [{"every": "15m"}], "jitter": "1m", "whileRunning": "skip"},
        ),
        ({"schedule": {"specs": [{"every": "1h", "phase": None}]}}, {"specs": [{"every": "1h"}]}),
    ],
)
async def test_the_short_forms_are_shown_in_full(asked: dict[str, Any], shown: Any, door: Door, tenant: str) -> None:
    assert (await door.create(tenant, {"requestedBy": "ann"} | asked))["schedule"] == shown


async def test_a_key_counts_through_every_door_for_schedules_too(doors: dict[str, Door], tenant: str) -> None:
    asked = ({"requestedBy": "ann", "schedule": WHOLE}, {"requestedBy": "ann", **BERLIN})
    for number, fields in enumerate(asked):
        made = [await door.create(tenant, fields, f"k{number}") for door in doors.values()]
        assert len({timer["id"] for timer in made}) == 1
        for door in doors.values():
            with pytest.raises(Refused) as refused:
                await door.create(tenant, {"requestedBy": "ann", "schedule": {"every": "1h"}}, f"k{number}")
            assert refused.value.kind == "idempotency-mismatch"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no rule": ({}, "/schedule"),
    "an unknown field": ({"every": "1h", "evry": 1}, "/schedule/evry"),
    "no cron": ({"cron": "61 * * * *"}, "/schedule/cron"),
    "no zone": ({"cron": "@daily", "timezone": "Mars/Olympus"}, "/schedule/timezone"),
    "a second rule": ({"specs": [{"every": "1h"}, {"every": "0s"}]}, "/schedule/specs/1/every"),
    "never": ({"cron": "0 0 30 2 *"}, "/schedule/cron"),
    "over already": ({"every": "1h", "endAt": "2001-01-01T00:00:00Z"}, "/schedule"),
    "all excluded": ({"at": ["2030-01-01T12:00:00Z"], "exclude": ["2030-01-01"]}, "/schedule"),
}


@pytest.mark.parametrize("bad", BAD)
async def test_what_can_never_fire_is_refused(bad: str, door: Door, tenant: str, store: Database, plain: Sql) -> None:
    schedule, pointer = BAD[bad]
    if "a plan" in door.knows_no:
        made = await door.create(tenant, {"requestedBy": "ann", "schedule": schedule})
        await settle(store)
        timer = await door.get(tenant, made["id"])
        assert timer["status"] == "failed", "SQL cannot read it; the kernel does"
        assert timer["failureReason"]
        return
    made = await door.create(tenant, {"requestedBy": "ann", "duration": 3_600_000})
    for asking in (
        door.create(tenant, {"requestedBy": "ann", "schedule": schedule}),
        door.reschedule(tenant, made["id"], {"schedule": schedule}),
        door.update(tenant, made["id"], {"schedule": schedule}),
        door.put(tenant, "bad", {"requestedBy": "ann", "schedule": schedule}),
        door.preview(tenant, {"schedule": schedule}),
    ):
        with pytest.raises(Refused) as refused:
            await asking
        assert (refused.value.kind, refused.value.pointers) == ("invalid-timer", (pointer,)), refused.value
    assert await door.list_all(tenant, {}) == [made]


async def test_a_schedule_and_an_instant_are_too_much(door: Door, tenant: str) -> None:
    for extra in ({"duration": 1000}, {"fireAt": "2035-01-01T00:00:00Z"}):
        with pytest.raises(Refused) as refused:
            await door.create(tenant, {"requestedBy": "ann", "schedule": BERLIN} | extra)
        assert refused.value.kind == "invalid-timer"


async def test_a_preview_shows_what_the_timer_will_do(doors: dict[str, Door], tenant: str, store: Database) -> None:
    night = {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    shown = []
    for door in doors.values():
        if "a preview" in door.knows_no:
            continue
        asked = {"schedule": night, "after": "2030-03-30T00:00:00+00:00", "count": 3}
        shown.append(await door.preview(tenant, asked))
    assert shown[0] == shown[1]
    assert [item["local"] for item in shown[0]] == [
        "2030-03-30T02:30:00+01:00", "2030-03-31T03:00:00+02:00", "2030-04-01T02:30:00+02:00",
    ]  # fmt: skip
    assert [item["note"] is None for item in shown[0]] == [True, False, True]
    now = await doors["rest"].preview(tenant, {"schedule": WHOLE})
    assert len(now) == 10
    made = await doors["rest"].create(tenant, {"requestedBy": "ann", "schedule": WHOLE})
    async with store.connection() as connection:
        planned = await connection.fetchval("select planned from minoots.timers where id = $1", made["id"])
    assert [datetime.fromisoformat(item["at"]) for item in now][1:] == planned[:9]
    assert now[0]["at"] == made["fireAt"]


async def test_schedules_come_in_batches_too(doors: dict[str, Door], tenant: str, plain: Sql) -> None:
    rest: Any = doors["rest"]
    items = [
        {"schedule": WHOLE},
        {"duration": 1000},
        {"every": "1h"},
        {"schedule": {"every": "1h", "jitter": "1h"}},
    ] * 50
    made = (await rest._call("POST", "/timers/batch", tenant, json={"requestedBy": "ann", "items": items}))["items"]
    assert [timer["schedule"] is None for timer in made[:4]] == [False, True, False, False]
    jitters = await plain.fetch(
        "select jitter_ms from minoots.timers where tenant_id = $1 and schedule ? 'jitter'", tenant
    )
    assert len({row["jitter_ms"] for row in jitters}) > 40, "each timer has its own"
    with pytest.raises(Refused) as refused:
        await rest._call(
            "POST", "/timers/batch", tenant, json={"requestedBy": "ann", "items": [*items, {"cron": "0 0 30 2 *"}]}
        )
    assert refused.value.pointers == ("/items/200/cron",)
    assert json.dumps(made[0]["schedule"], sort_keys=True) == json.dumps(WHOLE, sort_keys=True)
