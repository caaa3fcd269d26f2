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
        request = pb.TimerScheduleRequest(tenant_id=tenant, requested_by=fields.get("requestedBy", ""))
        if "name" in fields:
            request.name = fields["name"]
        if "duration" in fields:
            request.duration_ms = fields["duration"]
        if "fireAt" in fields:
            request.fire_time.CopyFrom(_timestamp(datetime.fromisoformat(fields["fireAt"])))
        request.labels.update(fields.get("labels", {}))
        if "metadata" in fields:
            ParseDict(fields["metadata"], request.metadata)
        if "actionBundle" in fields:
            ParseDict(fields["actionBundle"], request.action_bundle)
        if "agentBinding" in fields:
            ParseDict(fields["agentBinding"], request.agent_binding)
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

    async def firings(self, tenant: str, timer_id: str) -> list[dict[str, Any]]:
        page = await self._call("ListFirings", pb.FiringListRequest(tenant_id=tenant, timer_id=timer_id))
        assert not any(firing.deliveries for firing in page.firings)
        return [{k: v for k, v in _firing(firing).items() if k != "deliveries"} for firing in page.firings]

    async def firing(self, tenant: str, timer_id: str, occurrence: int) -> dict[str, Any]:
        request = pb.FiringGetRequest(tenant_id=tenant, timer_id=timer_id, occurrence=occurrence)
        return _firing(await self._call("GetFiring", request))


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


_INTEGERS = {"durationMs", "version", "maxAgeMs", "backoffInitialMs", "backoffMaxMs", "acknowledgementTimeoutMs"}


def _number_or_instant(name: str, value: Any) -> Any:
    if name in _INTEGERS:
        return int(value)
    if name.endswith("At") and isinstance(value, str):
        return (
            datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
        )
    return value


TIMER = (
    "id tenantId name requestedBy status durationMs createdAt fireAt firedAt settledAt cancelledAt cancelReason "
    "cancelledBy failureReason metadata labels actionBundle agentBinding schedule occurrence version"
)
FIRING = "tenantId timerId occurrence status nominalAt dueAt firedAt latenessMs settledAt"
DELIVERY = (
    "actionId kind status lane attemptCount nextAttemptAt deliveredAt deadAt deadReason redrives escalatedFrom ack"
)
ATTEMPT = "attempt startedAt durationMs outcome statusCode error excerpt node"


def _timer(message: pb.Timer) -> Timer:
    made = _plain(message, TIMER)
    made["status"] = pb.TimerStatus.Name(message.status).removeprefix("TIMER_STATUS_").lower()
    made["labels"] = dict(message.labels)
    made["schedule"] = None
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
