"""What is asked of timers that are there, read from messages by the rules of REST."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec

from minoots.domain.json_text import read_json
from minoots.domain.limits import BODY_BYTES
from minoots.domain.moment import Moved
from minoots.domain.timer import NewTimer, TimerRequest, admit
from minoots.domain.update import TimerUpdate, UpdateRequest, admit_update
from minoots.domain.verbs import (
    PreviewRequest,
    RescheduleRequest,
    StepRequest,
    admit_preview,
    admit_reschedule,
)
from minoots.errors import BodyTooLarge, InvalidTimer
from minoots.rpc.convert import ask, plain_object
from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.requests import instant, located, read_timer_id, timer_body

T = TypeVar("T")

# The fields that can be changed, and what REST calls them.
_NAMES: Final = {
    "name": "name",
    "labels": "labels",
    "metadata": "metadata",
    "action_bundle": "actionBundle",
    "agent_binding": "agentBinding",
    "duration_ms": "duration",
    "fire_time": "fireAt",
    "schedule": "schedule",
}
# Of these a timer has one.
_WHENS: Final = ("duration_ms", "fire_time", "schedule")


def read_step(request: pb.TimerPauseRequest | pb.TimerResumeRequest | pb.TimerFireRequest) -> tuple[UUID, str | None]:
    """Which timer, and who asks."""
    return read_timer_id(request.timer_id), _read(_who(request), StepRequest).requested_by


def read_reschedule(request: pb.TimerRescheduleRequest) -> tuple[UUID, Moved, str | None]:
    """Which timer, when it is to fire, and who asks."""
    asked = _read(_fields(request, _given(request, _WHENS)) | _who(request), RescheduleRequest)
    return read_timer_id(request.timer_id), admit_reschedule(asked), asked.requested_by


def read_update(request: pb.TimerUpdateRequest) -> tuple[UUID, TimerUpdate]:
    """Which timer, and what of it is to change."""
    asked = _read(_fields(request, _masked(request)) | _who(request), UpdateRequest)
    return read_timer_id(request.timer_id), admit_update(asked)


def read_put(request: pb.TimerPutRequest, traceparent: str | None) -> NewTimer:
    """The timer that is to be there under its name."""
    new = admit(read_json(_within(timer_body(request, requested_by="")), TimerRequest), traceparent)
    if new.name is None:
        raise InvalidTimer.at("/name", "name is required: it says which timer to replace")
    return new


def read_version(request: pb.TimerUpdateRequest | pb.TimerPutRequest) -> int | None:
    """The version that the timer has to be in."""
    return request.if_version if request.HasField("if_version") else None


def read_preview(request: pb.SchedulePreviewRequest) -> tuple[Moved, datetime | None, int]:
    """The schedule, the instant after which to begin, and how many instants."""
    asked = _fields(request, _given(request, ("schedule",)))
    if request.HasField("after"):
        asked["after"] = instant("/after", request.after)
    if request.count:
        asked["count"] = request.count
    return admit_preview(_read(asked, PreviewRequest))


def _given(request: Any, fields: Iterable[str]) -> list[str]:
    """Those of the fields that have a value."""
    return [field for field in fields if (request.labels if field == "labels" else request.HasField(field))]


def _masked(request: pb.TimerUpdateRequest) -> Sequence[str]:
    """The fields that the mask selects; what is given when there is no mask (AIP-134)."""
    given = _given(request, _NAMES)
    paths = list(dict.fromkeys(request.update_mask.paths))
    if not paths:
        return given
    if paths == ["*"]:
        return [field for field in _NAMES if field not in _WHENS or field in given]
    for path in paths:
        if path not in _NAMES:
            known = ", ".join(_NAMES)
            raise InvalidTimer.at(
                "/updateMask", f"a timer has no field {path[:64]!r} to change; there are {known}, or *"
            )
    return paths


def _fields(request: Any, fields: Sequence[str]) -> dict[str, Any]:
    """The body of the REST call that says the same; a field without a value is null."""
    return {_NAMES[field]: _value(request, field) for field in fields}


def _who(request: Any) -> dict[str, Any]:
    return {"requestedBy": request.requested_by} if request.HasField("requested_by") else {}


def _value(request: Any, field: str) -> Any:
    value = getattr(request, field)
    if field == "labels":
        return dict(value) or None
    if not request.HasField(field):
        return None
    if field == "fire_time":
        return instant("/fireAt", value)
    if field in ("metadata", "schedule"):
        return located(f"/{_NAMES[field]}", lambda: plain_object(value))
    if field in ("action_bundle", "agent_binding"):
        return located(f"/{_NAMES[field]}", lambda: ask(value))
    return value


def _read(asked: dict[str, Any], kind: type[T]) -> T:
    return read_json(_within(msgspec.json.encode(asked)), kind)


def _within(body: bytes) -> bytes:
    if len(body) > BODY_BYTES:
        raise BodyTooLarge(f"the change is over its limit of {BODY_BYTES // 1024} KiB, counted as JSON")
    return body
