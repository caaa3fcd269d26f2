"""Recurring timers and changes in place through gRPC: what is on the wire, presence and masks above all."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
import pytest

from minoots.access.keys import load_keys
from minoots.embedded.ports import free_port
from minoots.rpc.convert import show
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.server import grpc_server
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers
from minoots.settings import Address
from minoots.store.database import Database
from tests.support.grpc_client import KEY, KEYS, GrpcClient, at, details, refused, structured

WEEKDAYS = {"specs": [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}], "maxOccurrences": 400}


@pytest.fixture
async def door(database: Database) -> AsyncIterator[GrpcClient]:
    address = Address("127.0.0.1", free_port())
    keys = load_keys("development", None, KEYS)
    async with (
        grpc_server(Timers(database), TimerChanges(database), keys, None, address),
        grpc.aio.insecure_channel(str(address)) as channel,
    ):
        yield GrpcClient(address, channel, f"t-{uuid4().hex[:8]}")


async def ask(door: GrpcClient, verb: str, kind: Any, **fields: Any) -> Any:
    return await getattr(door, verb)(kind(tenant_id=door.tenant, **fields), metadata=[KEY], timeout=10)


async def update(door: GrpcClient, timer_id: str, *paths: str, **fields: Any) -> Any:
    request = pb.TimerUpdateRequest(tenant_id=door.tenant, timer_id=timer_id, **fields)
    request.update_mask.paths.extend(paths)
    return await door.UpdateTimer(request, metadata=[KEY], timeout=10)


async def put(door: GrpcClient, name: str | None, **fields: Any) -> Any:
    asked = {"requested_by": "ann", "name": name} | fields
    return await ask(door, "PutTimer", pb.TimerPutRequest, **asked)


def findings(error: grpc.aio.AioRpcError) -> list[str]:
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error
    return [pointer for pointer, _ in details(error)[1]]


# ---- recurring timers ----


async def test_a_schedule_comes_back_as_it_was_asked_and_its_numbers_are_whole(
    door: GrpcClient, sql: asyncpg.Connection
) -> None:
    made = await door.schedule(duration_ms=None, schedule=structured(WEEKDAYS))
    assert made.schedule == structured(WEEKDAYS)
    assert (made.missed, made.occurrence) == (0, 0)
    assert made.fire_at.ToDatetime(UTC) > datetime.now(UTC)
    assert made.fire_at.ToDatetime(UTC).minute == 0
    kept = await sql.fetchval("select schedule::text from minoots.timers where id = $1", made.id)
    assert '"maxOccurrences": 400' in kept
    short = await door.schedule(duration_ms=None, schedule=structured({"every": "15m"}))
    assert short.schedule == structured({"specs": [{"every": "15m"}]})
    once = await door.schedule()
    assert not once.HasField("schedule")


@pytest.mark.parametrize(
    ("schedule", "pointer"),
    [
        ({"cron": "61 * * * *"}, "/schedule/cron"),
        ({"specs": [{"every": "15m"}, {"cron": "x"}]}, "/schedule/specs/1/cron"),
        ({"cron": "0 0 30 2 *"}, "/schedule"),
        ({"cron": "@daily", "timezone": "Mars/Base"}, "/schedule/timezone"),
        ({"every": "15m", "maxOccurrences": 0.5}, "/schedule/maxOccurrences"),
        ({"every": "15m", "moon": "full"}, "/schedule/moon"),
        ({"every": float("inf")}, "/schedule/every"),
        ({}, "/schedule"),
    ],
)
async def test_a_schedule_that_breaks_a_rule_has_its_pointer(
    schedule: dict[str, Any], pointer: str, door: GrpcClient
) -> None:
    created = findings(await refused(door.schedule(duration_ms=None, schedule=structured(schedule))))
    assert all(found.startswith(pointer) for found in created), created
    assert created
    previewed = await refused(ask(door, "PreviewSchedule", pb.SchedulePreviewRequest, schedule=structured(schedule)))
    assert findings(previewed) == created


async def test_one_way_to_say_when_and_no_more(door: GrpcClient) -> None:
    both = await refused(door.schedule(schedule=structured({"every": "15m"})))
    assert findings(both) == ["/duration"]
    made = await door.schedule()
    for fields in ({}, {"duration_ms": 5_000, "schedule": structured({"every": "15m"})}):
        error = await refused(ask(door, "RescheduleTimer", pb.TimerRescheduleRequest, timer_id=made.id, **fields))
        assert findings(error) == ["/duration"]


async def test_a_preview_shows_the_zones_changes_and_needs_no_tenant(door: GrpcClient) -> None:
    request = pb.SchedulePreviewRequest(
        schedule=structured({"cron": "30 2 * * *", "timezone": "Europe/Berlin"}),
        after=at(datetime(2026, 3, 27, 12, tzinfo=UTC)),
        count=3,
    )
    items = (await door.PreviewSchedule(request, metadata=[KEY])).items
    assert [item.at.ToJsonString() for item in items] == [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-30T00:30:00Z",
    ]
    assert [item.local for item in items][1:] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert "02:30" in items[1].note
    assert not items[0].HasField("note")
    request.count = 0
    assert len((await door.PreviewSchedule(request, metadata=[KEY])).items) == 10
    for wrong in (-1, 101):
        request.count = wrong
        assert findings(await refused(door.PreviewSchedule(request, metadata=[KEY]))) == ["/count"]
    writer = await refused(door.PreviewSchedule(request, metadata=[("x-api-key", "mnt_only_writes")]))
    assert writer.code() is grpc.StatusCode.PERMISSION_DENIED


def test_an_event_shows_what_was_missed() -> None:
    shown = {
        "timer": {"id": "1", "missed": 9},
        "missed": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00.5Z", "count": 9, "reason": "late"},
    }
    event = show(pb.TimerEvent, shown)
    assert event.timer.missed == 9
    assert (event.missed.count, event.missed.reason) == (9, "late")
    assert event.missed.to_time.ToDatetime(UTC) - event.missed.from_time.ToDatetime(UTC) == timedelta(
        days=1, seconds=0.5
    )


# ---- pause, resume, reschedule, fire ----


async def test_pause_and_resume_answer_the_same_twice(door: GrpcClient) -> None:
    made = await door.schedule()
    paused = await ask(door, "PauseTimer", pb.TimerPauseRequest, timer_id=made.id, requested_by="bob")
    assert (paused.status, paused.version, paused.fire_at) == (pb.TIMER_STATUS_PAUSED, made.version + 1, made.fire_at)
    assert await ask(door, "PauseTimer", pb.TimerPauseRequest, timer_id=made.id) == paused
    gone_on = await ask(door, "ResumeTimer", pb.TimerResumeRequest, timer_id=made.id, catch_up=True)
    assert (gone_on.status, gone_on.version) == (pb.TIMER_STATUS_SCHEDULED, made.version + 2)
    assert await ask(door, "ResumeTimer", pb.TimerResumeRequest, timer_id=made.id) == gone_on


async def test_a_timer_is_moved_and_becomes_a_recurring_one(door: GrpcClient) -> None:
    made = await door.schedule()
    soon = datetime.now(UTC) + timedelta(hours=2)
    moved = await ask(door, "RescheduleTimer", pb.TimerRescheduleRequest, timer_id=made.id, fire_time=at(soon))
    assert moved.fire_at == at(soon)
    assert not moved.HasField("duration_ms")
    recurring = await ask(
        door, "RescheduleTimer", pb.TimerRescheduleRequest, timer_id=made.id, schedule=structured(WEEKDAYS)
    )
    assert recurring.schedule == structured(WEEKDAYS)
    next_only = await ask(door, "RescheduleTimer", pb.TimerRescheduleRequest, timer_id=made.id, duration_ms=60_000)
    assert next_only.schedule == recurring.schedule
    assert next_only.fire_at.ToDatetime(UTC) < datetime.now(UTC) + timedelta(minutes=2)


async def test_fire_is_the_firing_of_one_and_an_extra_one_of_a_recurring_one(door: GrpcClient) -> None:
    once = await door.schedule()
    fired = await ask(door, "FireTimer", pb.TimerFireRequest, timer_id=once.id, requested_by="bob")
    assert (fired.status, fired.occurrence) == (pb.TIMER_STATUS_FIRED, 1)
    assert fired.HasField("fired_at")
    again = await refused(ask(door, "FireTimer", pb.TimerFireRequest, timer_id=once.id))
    assert again.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(again)[0].metadata["status"] == "fired"

    daily = await door.schedule(duration_ms=None, schedule=structured({"cron": "@daily"}))
    extra = await ask(door, "FireTimer", pb.TimerFireRequest, timer_id=daily.id)
    assert (extra.status, extra.occurrence, extra.fire_at) == (pb.TIMER_STATUS_SCHEDULED, 1, daily.fire_at)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        ("PauseTimer", pb.TimerPauseRequest),
        ("ResumeTimer", pb.TimerResumeRequest),
        ("FireTimer", pb.TimerFireRequest),
        ("RescheduleTimer", pb.TimerRescheduleRequest),
        ("UpdateTimer", pb.TimerUpdateRequest),
    ],
)
async def test_a_change_is_refused_as_cancelling_is(verb: str, kind: Any, door: GrpcClient) -> None:
    made = await door.schedule()
    fields = {"duration_ms": 5_000} if "duration_ms" in kind.DESCRIPTOR.fields_by_name else {}
    for timer_id in (str(uuid4()), "none", ""):
        error = await refused(ask(door, verb, kind, timer_id=timer_id, **fields))
        assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.NOT_FOUND, "TIMER_NOT_FOUND")
    for wrong in ("", "x" * 201, "a\0b"):
        error = await refused(ask(door, verb, kind, timer_id=made.id, requested_by=wrong, **fields))
        assert findings(error) == ["/requestedBy"]
    asked = kind(tenant_id="beta", timer_id=made.id, **fields)
    for key, code in (
        ("mnt_two_tenants", grpc.StatusCode.NOT_FOUND),
        ("mnt_one_tenant", grpc.StatusCode.PERMISSION_DENIED),
        ("mnt_only_reads", grpc.StatusCode.PERMISSION_DENIED),
    ):
        error = await refused(getattr(door, verb)(asked, metadata=[("x-api-key", key)]))
        assert error.code() is code
    cancel = pb.TimerCancelRequest(tenant_id=door.tenant, timer_id=made.id, requested_by="ann")
    await door.CancelTimer(cancel, metadata=[KEY])
    error = await refused(ask(door, verb, kind, timer_id=made.id, **fields))
    assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TIMER_STATE_CONFLICT")


# ---- change in place ----


async def test_the_mask_says_what_changes_and_what_is_absent_is_cleared(door: GrpcClient) -> None:
    made = await door.schedule(name="tea", labels={"a": "1", "b": "2"}, metadata=structured({"n": 1}))
    changed = await update(door, made.id, "labels", "metadata", name="passed by", labels={"c": "3"})
    assert (changed.name, dict(changed.labels), changed.version) == ("tea", {"c": "3"}, made.version + 1)
    assert not changed.HasField("metadata")
    assert changed.fire_at == made.fire_at
    cleared = await update(door, made.id, "labels", "name")
    assert not cleared.HasField("name")
    assert not cleared.labels


async def test_without_a_mask_what_is_given_changes(door: GrpcClient) -> None:
    made = await door.schedule(name="tea", labels={"a": "1"}, metadata=structured({"n": 1}))
    changed = await update(door, made.id, name="coffee", duration_ms=3_600_000)
    assert (changed.name, changed.duration_ms, dict(changed.labels)) == ("coffee", 3_600_000, {"a": "1"})
    assert changed.metadata == made.metadata
    assert changed.fire_at.ToMicroseconds() > made.fire_at.ToMicroseconds()


async def test_a_star_replaces_all_but_the_instant_that_is_not_given(door: GrpcClient) -> None:
    made = await door.schedule(name="tea", labels={"a": "1"}, metadata=structured({"n": 1}))
    bundle = pb.ActionBundle(actions=[pb.Action(id="a", kind="command", parameters=structured({"x": 1}))])
    changed = await update(door, made.id, "*", action_bundle=bundle)
    assert changed.action_bundle == bundle
    assert not changed.labels
    assert not changed.HasField("name")
    assert not changed.HasField("metadata")
    assert (changed.fire_at, changed.duration_ms) == (made.fire_at, made.duration_ms)


async def test_a_mask_that_names_no_field_of_ours_or_would_leave_no_instant_is_refused(door: GrpcClient) -> None:
    made = await door.schedule(name="tea")
    for path in ("status", "metadata.note", "actionBundle", "*"):
        paths = (path, "name") if path == "*" else (path,)
        error = await refused(update(door, made.id, *paths, name="x"))
        assert findings(error) == ["/updateMask"]
        assert "action_bundle" in error.details()
    for path, pointer in (("duration_ms", "/duration"), ("fire_time", "/fireAt")):
        assert findings(await refused(update(door, made.id, path))) == [pointer]
    assert findings(await refused(update(door, made.id, metadata=structured({"x": "y" * 65_536})))) == ["/metadata"]
    assert (await door.get(made.id)).version == made.version
    daily = await door.schedule(duration_ms=None, schedule=structured({"cron": "@daily"}))
    assert findings(await refused(update(door, daily.id, "schedule"))) == ["/schedule"]


async def test_a_schedule_is_cleared_by_giving_an_instant_in_its_place(door: GrpcClient) -> None:
    made = await door.schedule(duration_ms=None, schedule=structured({"cron": "@daily"}))
    once = await update(door, made.id, "schedule", "duration_ms", duration_ms=60_000)
    assert not once.HasField("schedule")
    assert once.duration_ms == 60_000


async def test_a_stale_version_changes_nothing(door: GrpcClient) -> None:
    made = await door.schedule(name="tea")
    changed = await update(door, made.id, name="coffee", if_version=made.version)
    for wrong in (made.version, 99, -1):
        error = await refused(update(door, made.id, name="milk", if_version=wrong))
        assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.ABORTED, "STALE_VERSION")
    assert await door.get(made.id) == changed
    assert (await update(door, made.id, name="milk", if_version=0)).name == "milk", "0 is any"


# ---- put by name ----


async def test_a_put_creates_once_and_replaces_then(door: GrpcClient) -> None:
    asked = {"schedule": structured(WEEKDAYS), "labels": {"a": "1"}}
    first = await put(door, "nightly", **asked)
    assert first.created
    assert first.timer.name == "nightly"
    same = await put(door, "nightly", **asked)
    assert not same.created
    assert (same.timer.id, same.timer.fire_at) == (first.timer.id, first.timer.fire_at)
    other = await put(door, "nightly", duration_ms=60_000, requested_by="bob")
    assert (other.timer.id, other.timer.requested_by, other.created) == (first.timer.id, "bob", False)
    assert not other.timer.labels
    assert not other.timer.HasField("schedule")
    assert other.timer.version > first.timer.version


async def test_a_put_wants_a_name_and_minds_the_version(door: GrpcClient) -> None:
    for name in (None, ""):
        assert findings(await refused(put(door, name, duration_ms=60_000))) == ["/name"]
    assert findings(await refused(put(door, "tea"))) == ["/duration"]
    assert findings(await refused(put(door, "tea", duration_ms=1, requested_by=""))) == ["/requestedBy"]
    for version in (0, 1):
        error = await refused(put(door, "tea", duration_ms=60_000, if_version=version))
        assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.ABORTED, "STALE_VERSION")
    made = (await put(door, "tea", duration_ms=60_000)).timer
    assert (await put(door, "tea", duration_ms=60_000, if_version=made.version)).timer.version > made.version
    assert (await put(door, "tea", duration_ms=60_000, if_version=0)).timer.id == made.id


async def test_a_name_that_a_put_timer_has_cannot_be_taken_by_a_change(door: GrpcClient) -> None:
    await put(door, "tea", duration_ms=60_000)
    other = (await put(door, "coffee", duration_ms=60_000)).timer
    error = await refused(update(door, other.id, name="tea"))
    assert (error.code(), details(error)[0].reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
