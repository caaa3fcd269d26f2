"""What gave up, and opening it again: the same over REST and gRPC; SQL has the view."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from minoots.domain.outcome import Answer, Retry
from minoots.store.database import Database
from tests.contract.door import Door, Refused
from tests.support.life import DEAD, attempt, fire
from tests.support.rules import calling
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def wires(doors: dict[str, Door]) -> list[Door]:
    """The two that open again."""
    return [doors["rest"], doors["grpc"]]


@pytest.fixture(params=["rest", "grpc"])
def wire(request: pytest.FixtureRequest, doors: dict[str, Door]) -> Door:
    return doors[request.param]


async def die(door: Door, tenant: str, store: Database, plain: Sql) -> dict[str, Any]:
    """A timer whose action gave up."""
    due_at = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    made = await door.create(tenant, {"requestedBy": "ann", "fireAt": due_at, "actionBundle": calling()})
    await fire(store)
    await plain.execute(
        "update minoots.deliveries set next_attempt_at = minoots.now() "
        "+ case when timer_id = $1 then interval '0' else interval '1 h' end where next_attempt_at is not null",
        made["id"],
    )
    assert await attempt(store, Retry("HTTP 500", Answer(12, 500, "broken\n")), DEAD) == 1
    return await door.get(tenant, made["id"])


def key(timer: Mapping[str, Any], action_id: str = "call", occurrence: int = 1) -> dict[str, Any]:
    return {"timerId": timer["id"], "occurrence": occurrence, "actionId": action_id}


async def refusal(call: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        await call
    assert refused.value.detail
    return refused.value


async def test_a_dead_letter_is_shown_alike(wires: list[Door], tenant: str, store: Database, plain: Sql) -> None:
    timer = await die(wires[0], tenant, store, plain)
    shown = [await door.dead_letters(tenant, {}) for door in wires]
    assert shown[0] == shown[1]
    (letter,), cursor = shown[0]
    assert cursor is None
    assert letter | {"deadAt": "", "lastAttempt": ""} == key(timer) | {
        "tenantId": tenant, "kind": "webhook", "lane": "https://example.com", "deadReason": DEAD.reason, "deadAt": "",
        "attemptCount": 1, "lastAttempt": "",
    }  # fmt: skip
    assert (letter["lastAttempt"]["statusCode"], letter["lastAttempt"]["excerpt"]) == (500, "broken\n")
    row = await plain.fetchrow("select * from minoots.dead_letters where tenant_id = $1", tenant)
    assert (str(row["timer_id"]), row["dead_reason"], row["last_status_code"]) == (timer["id"], DEAD.reason, 500)


async def test_one_is_opened_again(wire: Door, tenant: str, store: Database, plain: Sql) -> None:
    timer = await die(wire, tenant, store, plain)
    assert timer["status"] == "failed"
    assert await wire.redrive(tenant, {"deliveries": [key(timer)], "dryRun": True}) == {"matched": 1, "redriven": 0}
    assert await wire.redrive(tenant, {"deliveries": [key(timer)]}) == {"matched": 1, "redriven": 1}
    after = await wire.get(tenant, timer["id"])
    assert after == timer | {"status": "fired", "settledAt": None, "failureReason": None, "version": 4}
    firing = await wire.firing(tenant, timer["id"], 1)
    assert (firing["status"], firing["settledAt"]) == ("dispatching", None)
    (delivery,) = firing["deliveries"]
    assert (delivery["status"], delivery["redrives"], delivery["attemptCount"]) == ("pending", 1, 1)
    assert delivery["deadAt"] is delivery["deadReason"] is None
    assert (await wire.dead_letters(tenant, {}))[0] == []
    assert (await refusal(wire.redrive(tenant, {"deliveries": [key(timer)]}))).kind == "delivery-state-conflict"


async def test_what_is_not_there_is_not_found(wire: Door, tenant: str, store: Database, plain: Sql) -> None:
    timer = await die(wire, tenant, store, plain)
    for asked, kind in (
        (key(timer, "other"), "delivery-not-found"),
        (key(timer, occurrence=2), "firing-not-found"),
        (key({"id": str(uuid4())}), "timer-not-found"),
    ):
        assert (await refusal(wire.redrive(tenant, {"deliveries": [asked]}))).kind == kind
    assert (await refusal(wire.redrive(f"{tenant}-x", {"deliveries": [key(timer)]}))).kind == "timer-not-found"
    assert await wire.redrive(f"{tenant}-x", {"filter": {}}) == {"matched": 0, "redriven": 0}
    assert (await wire.dead_letters(f"{tenant}-x", {}))[0] == []


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({}, ""),
        ({"deliveries": [], "dryRun": True}, ("", "/deliveries")),
        ({"filter": {}, "deliveries": [key({"id": str(uuid4())})]}, ""),
        ({"filter": {}, "perSecond": 0}, "/perSecond"),
        ({"filter": {}, "perSecond": -1.5}, "/perSecond"),
        ({"filter": {"kind": ""}}, "/filter/kind"),
        ({"filter": {"timerId": "x"}}, "/filter/timerId"),
        ({"deliveries": [key({"id": str(uuid4())}, occurrence=0)]}, "/deliveries/0/occurrence"),
    ],
)
async def test_what_cannot_be_meant_is_refused(wire: Door, tenant: str, asked: Any, pointer: Any) -> None:
    refused = await refusal(wire.redrive(tenant, asked))
    assert refused.kind == "invalid-timer"
    assert refused.pointers is not None
    assert refused.pointers[0] in ((pointer,) if isinstance(pointer, str) else pointer)


async def test_many_are_opened_by_filter_at_a_pace(wire: Door, tenant: str, store: Database, plain: Sql) -> None:
    timers = [await die(wire, tenant, store, plain) for _ in range(3)]
    elsewhere = {"filter": {"lane": "https://example.org"}}
    assert await wire.redrive(tenant, elsewhere) == {"matched": 0, "redriven": 0}
    asked = {"filter": {"lane": "https://example.com", "kind": "webhook", "since": timers[1]["settledAt"]}}
    assert await wire.redrive(tenant, asked | {"dryRun": True}) == {"matched": 2, "redriven": 0}
    assert await wire.redrive(tenant, asked | {"perSecond": 0.5}) == {"matched": 2, "redriven": 2}
    due = await plain.fetch(
        "select extract(epoch from next_attempt_at - minoots.now())::float8 as s from minoots.deliveries "
        "where tenant_id = $1 and status = 'pending' order by 1",
        tenant,
    )
    assert len(due) == 2
    assert due[1]["s"] - due[0]["s"] == pytest.approx(2, abs=0.9)
    assert [letter["timerId"] for letter in (await wire.dead_letters(tenant, {}))[0]] == [timers[0]["id"]]


async def test_a_list_is_paged_and_narrowed_alike(wires: list[Door], tenant: str, store: Database, plain: Sql) -> None:
    timers = [await die(wires[0], tenant, store, plain) for _ in range(5)]
    newest_first = [timer["id"] for timer in reversed(timers)]
    for door in wires:
        found: list[str] = []
        cursor = None
        while True:
            page, cursor = await door.dead_letters(tenant, {}, 2, cursor)
            assert len(page) <= 2
            found += [letter["timerId"] for letter in page]
            if cursor is None:
                break
        assert found == newest_first
        for wanted, expected in (
            ({"timerId": timers[2]["id"]}, [timers[2]["id"]]),
            ({"kind": "command"}, []),
            ({"lane": "https://example.com", "reason": "HTTP 500"}, newest_first),
            ({"reason": "HTTP 404"}, []),
            ({"since": timers[3]["settledAt"]}, newest_first[:2]),
            ({"until": timers[3]["settledAt"]}, newest_first[2:]),
        ):
            assert [letter["timerId"] for letter in (await door.dead_letters(tenant, wanted))[0]] == expected, wanted


async def test_a_cursor_that_is_none_is_malformed(wire: Door, tenant: str) -> None:
    for cursor in ("x", "1.2.3.4", "9" * 18 + f".{uuid4()}.1.call", f"1.{uuid4()}.0.call"):
        assert (await refusal(wire.dead_letters(tenant, {}, 2, cursor))).kind == "malformed-request"
