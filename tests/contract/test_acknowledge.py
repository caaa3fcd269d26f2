"""Acknowledging a delivery is the same at REST and gRPC: answers, rules, refusals, and who may."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Value
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status

from minoots.rpc.pb import timer_pb2 as pb
from minoots.rpc.pb import timer_pb2_grpc as pb_grpc
from minoots.store.database import Database
from tests.support.acknowledging import Doors, serving
from tests.support.life import fire_timers
from tests.support.orchestrating import orchestrating
from tests.support.receiver import Received, Receiver
from tests.support.timers import Sql, bundle, webhook
from tests.support.waiting import eventually

KEY = {"x-api-key": "mnt_example"}


@dataclass
class Said:
    """What a door answered: the delivery, or the kind of its no with the pointers of bad fields."""

    delivery: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    pointers: tuple[str, ...] = ()


@dataclass
class AckDoor:
    """One of the two doors, and a delivery that waits for acknowledgement."""

    name: str
    doors: Doors
    got: Received

    async def ack(
        self, body: Mapping[str, Any], action_id: str = "call", tenant: str | None = None, **headers: str
    ) -> Said:
        """With the token that came along unless other headers are given."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        if not named:
            named = {"x-minoots-ack-token": self.got.headers["x-minoots-ack-token"]}
        return await getattr(self, f"_by_{self.name}")(body, action_id, tenant, named)

    async def _by_rest(self, body: Any, action_id: str, tenant: str | None, headers: dict[str, str]) -> Said:
        url = self.got.headers["x-minoots-ack-url"].replace("/call/ack", f"/{action_id}/ack")
        headers = headers | ({"x-tenant-id": tenant} if tenant else {})
        async with self.doors.http.post(url, json=dict(body), headers=headers) as answer:
            shown = await answer.json(content_type=None)
            if answer.status == 200:
                return Said(shown)
        pointers = tuple(error["pointer"] for error in shown.get("errors") or ())
        return Said(refused=shown["type"].removeprefix("urn:minoots:problem:"), pointers=pointers)

    async def _by_grpc(self, body: Any, action_id: str, tenant: str | None, headers: dict[str, str]) -> Said:
        _, _, _, _, timer_id, _, occurrence, *_ = self.got.headers["x-minoots-ack-url"].split("/")
        request = pb.DeliveryAcknowledgeRequest(
            tenant_id=tenant or "",
            timer_id=timer_id,
            occurrence=int(occurrence),
            action_id=action_id,
            outcome=body.get("outcome", ""),
            note=body.get("note"),
            extend_ms=body.get("extendMs"),
        )
        if "result" in body:
            request.result.CopyFrom(ParseDict(body["result"], Value()))
        try:
            call = pb_grpc.HorologyKernelStub(self.doors.channel).AcknowledgeDelivery
            made = await call(request, metadata=list(headers.items()), timeout=20)
        except grpc.aio.AioRpcError as error:
            return _no(error)
        return Said(MessageToDict(made))


def _no(error: grpc.aio.AioRpcError) -> Said:
    info, bad = ErrorInfo(), BadRequest()
    status = rpc_status.from_call(error)
    assert status is not None, error
    for detail in status.details:
        for kind in (info, bad):
            detail.Unpack(kind)
    pointers = tuple(violation.field for violation in bad.field_violations)
    return Said(refused=info.reason.lower().replace("_", "-"), pointers=pointers)


@pytest.fixture(params=["rest", "grpc"])
async def door(request: pytest.FixtureRequest, database: Database, sql: Sql) -> AsyncIterator[AckDoor]:
    async with (
        serving(database) as doors,
        Receiver() as receiver,
        orchestrating(database, public_url=doors.url),
    ):
        actions = bundle(webhook(receiver.url(), acknowledgementTimeoutMs=600_000), maxAttempts=1)
        await fire_timers(database, sql, actions)

        async def is_awaited() -> bool:
            return await sql.fetchval("select status from minoots.deliveries") == "awaiting"

        await eventually(is_awaited, seconds=30)
        yield AckDoor(request.param, doors, receiver.requests[0])


async def test_working_then_done(door: AckDoor) -> None:
    working = await door.ack({"outcome": "working", "note": "half", "extendMs": 900_000})
    assert working.delivery["status"] == "awaiting"
    done = (await door.ack({"outcome": "done", "note": "all", "result": {"a": [1.5, None, "x"]}})).delivery
    assert (done["actionId"], done["status"]) == ("call", "confirmed")
    assert done["attempts"][0]["outcome"] == "delivered"
    assert (done["ack"]["outcome"], done["ack"]["note"]) == ("done", "all")
    assert done["ack"]["result"] == {"a": [1.5, None, "x"]}
    shown = (await door.doors.firing(door.got.headers["x-minoots-timer-id"]))["deliveries"][0]
    assert shown["ack"]["result"] == {"a": [1.5, None, "x"]}
    assert (await door.ack({"outcome": "done"})).delivery["ack"] == done["ack"]
    assert (await door.ack({"outcome": "failed"})).refused == "acknowledgement-conflict"


async def test_failed(door: AckDoor, sql: Sql) -> None:
    assert (await door.ack({"outcome": "failed", "note": "no"})).delivery["status"] == "overdue"

    async def is_dead() -> Any:
        return await sql.fetchval("select dead_reason from minoots.deliveries where status = 'dead'")

    assert await eventually(is_dead, seconds=30) == "gave up after 1 attempt: acknowledged as failed: no"
    assert (await door.ack({"outcome": "failed"})).delivery["status"] == "dead"
    assert (await door.ack({"outcome": "working"})).refused == "acknowledgement-conflict"


async def test_who_may(door: AckDoor) -> None:
    token = door.got.headers["x-minoots-ack-token"]
    done = {"outcome": "done"}
    assert (await door.ack(done, x_minoots_ack_token="x" * 43)).refused == "unauthenticated"
    assert (await door.ack(done, x_minoots_ack_token=token, action_id="other")).refused == "unauthenticated"
    assert (await door.ack(done, authorization="Bearer nonsense")).refused == "unauthenticated"
    assert (await door.ack(done, x_api_key="mnt_nobody")).refused == "unauthenticated"
    key = {"x_api_key": "mnt_example"}
    assert (await door.ack(done, tenant="other", **key)).refused == "delivery-not-found"
    assert (await door.ack(done, tenant="demo", action_id="other", **key)).refused == "delivery-not-found"
    assert (await door.ack(done, **key)).refused == "malformed-request", "no tenant"
    assert (await door.ack({"outcome": "working"}, tenant="demo", **key)).delivery["status"] == "awaiting"
    assert (await door.ack({"outcome": "working"}, tenant="demo", authorization="Bearer mnt_example")).delivery
    assert (await door.ack(done, authorization=f"Bearer {token}")).delivery["status"] == "confirmed"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"outcome": "perhaps"}, "/outcome"),
        ({"outcome": "done", "extendMs": 5}, "/extendMs"),
        ({"outcome": "working", "extendMs": -1}, "/extendMs"),
        ({"outcome": "done", "note": "x" * 1001}, "/note"),
        ({"outcome": "done", "result": "x" * 16_384}, "/result"),
        ({"outcome": "done", "result": json.loads("[" * 33 + "]" * 33)}, "/result"),
    ],
    ids=["outcome", "extendMs", "extendMs below 1", "note", "result", "result too deep"],
)
async def test_what_cannot_be_said(body: dict[str, Any], pointer: str, door: AckDoor) -> None:
    said = await door.ack(body)
    assert (said.refused, said.pointers) == ("invalid-timer", (pointer,))
