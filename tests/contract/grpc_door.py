"""The gRPC door, over a channel."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from tests.contract.door import KEY, Door, Refused, Timer


class GrpcDoor(Door):
    name = "grpc"
    ninety_seconds = (90_000,)
    knows_no = frozenset({"a duration that is no number"})

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.HorologyKernelStub(channel)

    async def _call(self, verb: str, request: Message) -> Any:
        try:
            return await getattr(self._stub, verb)(request, metadata=[("x-api-key", KEY)], timeout=10)
        except grpc.aio.AioRpcError as error:
            raise _refusal(error) from None

    async def create(self, tenant: str, fields: Mapping[str, Any], key: str | None = None) -> Timer:
        request = _filled(pb.TimerScheduleRequest(tenant_id=tenant), fields)
        if key is not None:
            request.idempotency_key = key
        return _timer((await self._call("ScheduleTimer", request)).timer)

    async def get(self, tenant: str, timer_id: str) -> Timer:
        return _timer(await self._call("GetTimer", pb.TimerGetRequest(tenant_id=tenant, timer_id=timer_id)))

    async def list_page(
        self, tenant: str, wanted: Mapping[str, Any], limit: int, cursor: str | None
    ) -> tuple[list[Timer], str | None]:
        request = pb.TimerListRequest(tenant_id=tenant, page_size=limit, page_token=cursor or "")
        request.statuses.extend(f"TIMER_STATUS_{status.upper()}" for status in wanted.get("statuses", ()))
        request.labels.update(wanted.get("labels", {}))
        if "name" in wanted:
            request.name = wanted["name"]
        for name, place in (("dueBefore", request.due_before), ("dueAfter", request.due_after)):
            if name in wanted:
                place.CopyFrom(_timestamp(wanted[name]))
        page = await self._call("ListTimers", request)
        return [_timer(timer) for timer in page.timers], page.next_page_token or None

    async def cancel(self, tenant: str, timer_id: str, requested_by: str, reason: str | None = None) -> Timer:
        request = pb.TimerCancelRequest(tenant_id=tenant, timer_id=timer_id, requested_by=requested_by)
        if reason is not None:
            request.reason = reason
        return _timer(await self._call("CancelTimer", request))

    async def pause(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer:
        request = pb.TimerPauseRequest(tenant_id=tenant, timer_id=timer_id, requested_by=requested_by)
        return _timer(await self._call("PauseTimer", request))

    async def resume(
        self, tenant: str, timer_id: str, catch_up: bool | None = None, requested_by: str | None = None
    ) -> Timer:
        request = pb.TimerResumeRequest(
            tenant_id=tenant, timer_id=timer_id, catch_up=catch_up, requested_by=requested_by
        )
        return _timer(await self._call("ResumeTimer", request))

    async def reschedule(self, tenant: str, timer_id: str, fields: Mapping[str, Any]) -> Timer:
        request = _filled(pb.TimerRescheduleRequest(tenant_id=tenant, timer_id=timer_id), fields)
        return _timer(await self._call("RescheduleTimer", request))

    async def fire(self, tenant: str, timer_id: str, requested_by: str | None = None) -> Timer:
        request = pb.TimerFireRequest(tenant_id=tenant, timer_id=timer_id, requested_by=requested_by)
        return _timer(await self._call("FireTimer", request))

    async def update(
        self, tenant: str, timer_id: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> Timer:
        request = pb.TimerUpdateRequest(tenant_id=tenant, timer_id=timer_id, if_version=if_version)
        request.update_mask.paths.extend(FIELDS.get(name, "schedule") for name in fields if name != "requestedBy")
        return _timer(await self._call("UpdateTimer", _filled(request, fields)))

    async def put(
        self, tenant: str, name: str, fields: Mapping[str, Any], if_version: int | None = None
    ) -> tuple[Timer, bool]:
        request = _filled(pb.TimerPutRequest(tenant_id=tenant, name=name, if_version=if_version), fields)
        answer = await self._call("PutTimer", request)
        return _timer(answer.timer), answer.created

    async def preview(self, tenant: str, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
        request = _filled(pb.SchedulePreviewRequest(tenant_id=tenant, count=fields.get("count")), fields)
        if "after" in fields:
            request.after.CopyFrom(_timestamp(datetime.fromisoformat(fields["after"])))
        answer = await self._call("PreviewSchedule", request)
        return [_plain(item, "at local note") for item in answer.items]

    async def dead_letters(
        self, tenant: str, wanted: Mapping[str, Any], limit: int = 50, cursor: str | None = None
    ) -> tuple[list[dict[str, Any]], str | None]:
        request = pb.DeadLetterListRequest(tenant_id=tenant, page_size=limit, page_token=cursor or "")
        ParseDict(wanted, request.filter)
        page = await self._call("ListDeadLetters", request)
        letters = [
            _plain(letter, DEAD_LETTER) | {"lastAttempt": _plain(letter.last_attempt, ATTEMPT)}
            for letter in page.dead_letters
        ]
        return letters, page.next_page_token or None

    async def redrive(self, tenant: str, asked: Mapping[str, Any]) -> dict[str, int]:
        request = ParseDict(asked, pb.DeadLetterRedriveRequest(tenant_id=tenant))
        done = await self._call("RedriveDeadLetters", request)
        return {"matched": done.matched, "redriven": done.redriven}

    async def firings(self, tenant: str, timer_id: str) -> list[dict[str, Any]]:
        page = await self._call("ListFirings", pb.FiringListRequest(tenant_id=tenant, timer_id=timer_id))
        assert not any(firing.deliveries for firing in page.firings)
        return [{k: v for k, v in _firing(firing).items() if k != "deliveries"} for firing in page.firings]

    async def firing(self, tenant: str, timer_id: str, occurrence: int) -> dict[str, Any]:
        request = pb.FiringGetRequest(tenant_id=tenant, timer_id=timer_id, occurrence=occurrence)
        return _firing(await self._call("GetFiring", request))


FIELDS = {
    "name": "name",
    "duration": "duration_ms",
    "fireAt": "fire_time",
    "schedule": "schedule",
    "metadata": "metadata",
    "labels": "labels",
    "actionBundle": "action_bundle",
    "agentBinding": "agent_binding",
}


def _filled(request: Any, fields: Mapping[str, Any]) -> Any:
    """The message with what is asked in REST's words; null stays absent. A short form is a schedule in short."""
    short = {name: fields[name] for name in ("cron", "every", "timezone") if name in fields}
    asked = {**fields, **({"schedule": short} if short else {})}
    if asked.get("requestedBy") is not None:
        request.requested_by = asked["requestedBy"]
    for name in ("name", "duration"):
        if asked.get(name) is not None:
            setattr(request, FIELDS[name], asked[name])
    if asked.get("fireAt") is not None:
        request.fire_time.CopyFrom(_timestamp(datetime.fromisoformat(asked["fireAt"])))
    if asked.get("labels"):
        request.labels.update(asked["labels"])
    for name in ("schedule", "metadata", "actionBundle", "agentBinding"):
        if asked.get(name) is not None:
            place = getattr(request, FIELDS[name])
            place.SetInParent()
            ParseDict(asked[name], place)
    return request


def _timestamp(instant: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(instant)
    return made


def _refusal(error: grpc.aio.AioRpcError) -> Refused:
    info, bad = ErrorInfo(), BadRequest()
    status = rpc_status.from_call(error)
    assert status is not None, error
    for detail in status.details:
        for kind in (info, bad):
            detail.Unpack(kind)
    assert info.domain == "minoots"
    pointers = tuple(violation.field for violation in bad.field_violations)
    return Refused(info.reason.lower().replace("_", "-"), error.details() or "", pointers)


def _plain(message: Message, fields: str) -> dict[str, Any]:
    """The message as REST's JSON: every field there, 64-bit numbers as numbers, instants with microseconds."""
    shown = MessageToDict(message)
    made = {}
    for name in fields.split():
        field = message.DESCRIPTOR.fields_by_camelcase_name.get(name)
        if name in shown:
            made[name] = _number_or_instant(name, shown[name])
        else:
            made[name] = None if field is None or field.has_presence else getattr(message, field.name)
    return made


_INTEGERS = {
    "durationMs",
    "version",
    "missed",
    "maxAgeMs",
    "backoffInitialMs",
    "backoffMaxMs",
    "acknowledgementTimeoutMs",
}


def _number_or_instant(name: str, value: Any) -> Any:
    if name in _INTEGERS:
        return int(value)
    if (name == "at" or name.endswith("At")) and isinstance(value, str):
        return (
            datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        )
    return value


TIMER = (
    "id tenantId name requestedBy status durationMs createdAt fireAt firedAt settledAt cancelledAt cancelReason "
    "cancelledBy failureReason metadata labels actionBundle agentBinding schedule occurrence missed version"
)
FIRING = "tenantId timerId occurrence status nominalAt dueAt firedAt latenessMs settledAt"
DELIVERY = (
    "actionId kind status lane attemptCount nextAttemptAt deliveredAt deadAt deadReason redrives escalatedFrom ack"
)
DEAD_LETTER = "tenantId timerId occurrence actionId kind lane deadReason deadAt attemptCount"
ATTEMPT = "attempt startedAt durationMs outcome statusCode error excerpt node"


def _timer(message: pb.Timer) -> Timer:
    made = _plain(message, TIMER)
    made["status"] = pb.TimerStatus.Name(message.status).removeprefix("TIMER_STATUS_").lower()
    made["labels"] = dict(message.labels)
    for name in ("actionBundle", "agentBinding"):
        if made[name] is not None:
            made[name] = _integers(made[name])
    if made["actionBundle"] is not None:
        made["actionBundle"].setdefault("actions", [])
    return made


def _integers(value: Any) -> Any:
    """proto3's JSON writes 64-bit numbers as text."""
    if isinstance(value, dict):
        return {name: _number_or_instant(name, _integers(inner)) for name, inner in value.items()}
    return [_integers(inner) for inner in value] if isinstance(value, list) else value


def _firing(message: pb.Firing) -> dict[str, Any]:
    made = _plain(message, FIRING)
    made["deliveries"] = [
        _plain(delivery, DELIVERY) | {"attempts": [_plain(attempt, ATTEMPT) for attempt in delivery.attempts]}
        for delivery in message.deliveries
    ]
    return made
