"""A served gRPC door and a channel to it, as a client has them; and what its answers and refusals say."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status

from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from minoots.settings import Address

KEYS = """[
    {"key": "mnt_all_of_them", "userId": "ann"},
    {"key": "mnt_one_tenant", "userId": "bob", "tenants": ["acme"]},
    {"key": "mnt_two_tenants", "userId": "cy", "tenants": ["acme", "beta"]},
    {"key": "mnt_only_reads", "userId": "dee", "scopes": ["timers:read"]},
    {"key": "mnt_only_writes", "userId": "eve", "scopes": ["timers:write"]}
]"""
KEY = ("x-api-key", "mnt_all_of_them")


@dataclass
class GrpcClient:
    """A served door and a channel to it; `tenant` is this test's own."""

    address: Address
    channel: grpc.aio.Channel
    tenant: str

    def __getattr__(self, name: str) -> Any:
        return getattr(pb_grpc.HorologyKernelStub(self.channel), name)

    async def schedule(self, **fields: Any) -> Any:
        asked = {"tenant_id": self.tenant, "requested_by": "ann", "duration_ms": 60_000} | fields
        asked = {name: value for name, value in asked.items() if value is not None}
        answer = await self.ScheduleTimer(pb.TimerScheduleRequest(**asked), metadata=[KEY], timeout=10)
        return answer.timer

    async def get(self, timer_id: str) -> Any:
        return await self.GetTimer(pb.TimerGetRequest(tenant_id=self.tenant, timer_id=timer_id), metadata=[KEY])


def at(instant: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(instant)
    return made


def structured(fields: dict[str, Any]) -> Any:
    value = Value()
    value.struct_value.update(fields)
    return value.struct_value


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def details(error: grpc.aio.AioRpcError) -> Any:
    """ErrorInfo and the findings of BadRequest as (pointer, sentence)."""
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    status = rpc_status.from_call(error)
    assert status is not None
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)
    return info, [(v.field, v.description) for v in bad.field_violations], retry
