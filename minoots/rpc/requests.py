"""What is asked, read from messages by the rules of REST: the same bounds, the same findings, the same pointers."""

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from minoots.domain.json_text import check_bounds, read_json
from minoots.domain.limits import (
    BATCH_BODY_BYTES,
    BATCH_TIMERS,
    BODY_BYTES,
    LABEL_KEY_CHARACTERS,
    LABEL_VALUE_CHARACTERS,
    LABELS,
    NAME_CHARACTERS,
    PAGE_DEFAULT,
    PAGE_MOST,
)
from minoots.domain.timer import NewTimer, TimerRequest, admit
from minoots.errors import BodyTooLarge, Finding, FiringNotFound, InvalidTimer, MalformedRequest, TimerNotFound
from minoots.rpc.convert import STATUS_NUMBERS, ask, plain_object, read_instant
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.plans import beside
from minoots.store.timers import TimerFilter

T = TypeVar("T")

FINDINGS_SHOWN: Final = 20
# Other calls are let in between so many items of a batch, or so many bytes of them.
_ITEMS_AT_ONCE = 200

_STATUS_NAMES = {number: name for name, number in STATUS_NUMBERS.items()}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_OCCURRENCE_MOST = 2**31 - 1


def read_schedule(request: pb.TimerScheduleRequest, traceparent: str | None) -> NewTimer:
    """Raises BodyTooLarge and InvalidTimer."""
    body = timer_body(request, requested_by="")
    if len(body) > BODY_BYTES:
        raise BodyTooLarge(f"the timer is over its limit of {BODY_BYTES // 1024} KiB, counted as JSON")
    return admit(read_json(body, TimerRequest), traceparent)


async def read_batch(request: pb.TimersCreateRequest, traceparent: str | None) -> list[NewTimer]:
    """Raises BodyTooLarge, and InvalidTimer with the first 20 findings below /items."""
    if not 1 <= len(request.items) <= BATCH_TIMERS:
        raise InvalidTimer.at("/items", f"a batch has 1 to {BATCH_TIMERS:,} items")
    new: list[NewTimer] = []
    findings: list[Finding] = []
    total = since_pause = 0
    for index, item in enumerate(request.items):
        if index % _ITEMS_AT_ONCE == _ITEMS_AT_ONCE - 1 or since_pause > BODY_BYTES:
            since_pause = 0
            await asyncio.sleep(0)
        try:
            body = timer_body(item, request.requested_by)
            total, since_pause = total + len(body), since_pause + len(body)
            if total > BATCH_BODY_BYTES:
                raise BodyTooLarge(f"the batch is over its limit of {BATCH_BODY_BYTES >> 20} MiB, counted as JSON")
            new.append(await beside(item.HasField("schedule"), _read_item, item, body, traceparent))
        except InvalidTimer as refused:
            findings += refused.below(f"/items/{index}").findings
            if len(findings) >= FINDINGS_SHOWN:
                break
    if findings:
        raise InvalidTimer(findings[:FINDINGS_SHOWN])
    return new


def _read_item(item: pb.TimerScheduleRequest, body: bytes, traceparent: str | None) -> NewTimer:
    if item.HasField("idempotency_key"):
        raise InvalidTimer.at(
            "/idempotencyKey", "an item has no idempotency key of its own; give one for the whole batch"
        )
    if len(body) > BODY_BYTES:
        raise InvalidTimer.at("", f"one timer is at most {BODY_BYTES // 1024} KiB")
    return admit(read_json(body, TimerRequest), traceparent)


def batch_tenants(request: pb.TimersCreateRequest) -> Iterator[tuple[str, str | None]]:
    """Every tenant that a batch names, with the first place that does."""
    places = {request.tenant_id: "the message's tenant_id"}
    for index, item in enumerate(request.items):
        if item.tenant_id not in places:
            places[item.tenant_id] = f"items[{index}].tenant_id"
    return ((where, tenant) for tenant, where in places.items())


def timer_body(request: pb.TimerScheduleRequest | pb.TimerPutRequest, requested_by: str) -> bytes:
    """The body of `POST /timers` that says the same."""
    asked: dict[str, Any] = {"labels": dict(request.labels)}
    if who := request.requested_by or requested_by:
        asked["requestedBy"] = who
    if request.HasField("name"):
        asked["name"] = request.name
    if request.HasField("duration_ms"):
        asked["duration"] = request.duration_ms
    if request.HasField("fire_time"):
        asked["fireAt"] = instant("/fireAt", request.fire_time)
    if request.HasField("schedule"):
        asked["schedule"] = located("/schedule", lambda: plain_object(request.schedule))
    if request.HasField("metadata"):
        asked["metadata"] = located("/metadata", lambda: plain_object(request.metadata))
    if request.HasField("action_bundle"):
        asked["actionBundle"] = located("/actionBundle", lambda: ask(request.action_bundle))
    if request.HasField("agent_binding"):
        asked["agentBinding"] = located("/agentBinding", lambda: ask(request.agent_binding))
    return msgspec.json.encode(asked)


def instant(pointer: str, value: Timestamp) -> str:
    """As REST takes it; InvalidTimer for one that cannot be."""
    try:
        return read_instant(value).isoformat(timespec="microseconds")
    except ValueError as wrong:
        raise InvalidTimer.at(pointer, str(wrong)) from None


def read_idempotency_key(request: pb.TimerScheduleRequest | pb.TimersCreateRequest) -> str | None:
    """None when there is none; how long it may be is the service's to say."""
    if "\0" in request.idempotency_key:
        raise MalformedRequest("an idempotency key may not hold the character NUL")
    return request.idempotency_key if request.HasField("idempotency_key") else None


def read_cancel(request: pb.TimerCancelRequest) -> tuple[str, str | None]:
    """Who cancels, and why; how long they may be is the service's to say."""
    reason = request.reason if request.HasField("reason") else None
    check_bounds(msgspec.json.encode({"requestedBy": request.requested_by, "reason": reason}))
    return request.requested_by, reason


def read_filter(request: pb.TimerListRequest) -> TimerFilter:
    """What a list is to show; MalformedRequest for a value that is none."""
    unknown = [number for number in request.statuses if number not in _STATUS_NAMES]
    if unknown:
        raise MalformedRequest(f"there is no status {unknown[0]}; there are {', '.join(_STATUS_NAMES.values())}")
    if request.HasField("name") and (not 1 <= len(request.name) <= NAME_CHARACTERS or "\0" in request.name):
        raise MalformedRequest(f"a name has 1 to {NAME_CHARACTERS} characters, and no NUL")
    return TimerFilter(
        statuses=[_STATUS_NAMES[number] for number in request.statuses],
        labels=_read_labels(dict(request.labels)),
        name=request.name if request.HasField("name") else None,
        due_before=_read_bound("due_before", request),
        due_after=_read_bound("due_after", request),
        after=read_timer_token(request.page_token),
        limit=read_page_size(request.page_size),
    )


def _read_labels(labels: dict[str, str]) -> dict[str, str] | None:
    for key, value in labels.items():
        if not 1 <= len(key) <= LABEL_KEY_CHARACTERS or len(value) > LABEL_VALUE_CHARACTERS or "\0" in key + value:
            raise MalformedRequest(
                f"a label has a key of 1 to {LABEL_KEY_CHARACTERS} characters, "
                f"a value of up to {LABEL_VALUE_CHARACTERS}, and no NUL"
            )
    if len(labels) > LABELS:
        raise MalformedRequest(f"a list is filtered by at most {LABELS} labels")
    return labels or None


def _read_bound(name: str, request: pb.TimerListRequest) -> datetime | None:
    if name == "due_before":
        value = request.due_before if request.HasField("due_before") else None
    else:
        value = request.due_after if request.HasField("due_after") else None
    try:
        return None if value is None else read_instant(value)
    except ValueError as wrong:
        raise MalformedRequest(f"{name} cannot be read: {wrong}") from None


def read_page_size(size: int) -> int:
    """1 to 500; 0 is 50."""
    if not 0 <= size <= PAGE_MOST:
        raise MalformedRequest(f"page_size is a whole number from 1 to {PAGE_MOST}, or 0 for {PAGE_DEFAULT}")
    return size or PAGE_DEFAULT


def read_timer_token(text: str) -> UUID | None:
    """Where a list that is ordered by id goes on."""
    if text and not _UUID.fullmatch(text):
        raise MalformedRequest("this is no page token; take next_page_token of the page before")
    return UUID(text) if text else None


def read_firing_token(text: str) -> int | None:
    """Where a list of firings goes on."""
    if text and not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise MalformedRequest("this is no page token; take next_page_token of the page before")
    return min(int(text), _OCCURRENCE_MOST) if text else None


def read_timer_id(text: str) -> UUID:
    """TimerNotFound when it is none at all."""
    if not _UUID.fullmatch(text):
        raise TimerNotFound
    return UUID(text)


def read_occurrence(number: int) -> int:
    """FiringNotFound when there cannot be one."""
    if number < 1:
        raise FiringNotFound
    return number


def read_resume(request: pb.TimerEventStreamRequest) -> str | datetime | None:
    """A token, an instant, or None: from now on."""
    kind = request.WhichOneof("resume")
    if kind != "from_time":
        return request.resume_token if kind else None
    try:
        return read_instant(request.from_time)
    except ValueError as wrong:
        raise MalformedRequest(f"from_time cannot be read: {wrong}") from None


def read_event_filter(request: pb.TimerEventStreamRequest) -> tuple[str | None, dict[str, str]]:
    """The timer and the labels whose events are wanted."""
    timer_id = request.timer_id.lower()
    if timer_id and not _UUID.fullmatch(timer_id):
        raise MalformedRequest("timer_id is no timer's id")
    return timer_id or None, dict(request.labels)


def located(pointer: str, read: Callable[[], T]) -> T:
    """What `read` gives; its findings are below `pointer`."""
    try:
        return read()
    except InvalidTimer as refused:
        raise refused.below(pointer) from None
