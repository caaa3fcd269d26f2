"""Lanes at REST and gRPC: what waits where, and limits that are set, seen, refused and taken away."""

from typing import Any, cast

import pytest
from google.protobuf.json_format import MessageToDict

from minoots.rpc.pb import timer_pb2 as pb
from tests.contract.door import Door, Refused
from tests.contract.grpc_door import GrpcDoor
from tests.contract.rest_door import RestDoor
from tests.support.laned import hold
from tests.support.timers import Sql

pytestmark = pytest.mark.asyncio(loop_scope="module")

LANE = "https://a.example"


async def listed(doors: dict[str, Door], tenant: str, **query: Any) -> dict[str, Any]:
    """What REST answers; gRPC has to show the same lanes."""
    rest, grpc = cast(RestDoor, doors["rest"]), cast(GrpcDoor, doors["grpc"])
    page = await rest._call("GET", "/lanes", tenant, params={name: str(value) for name, value in query.items()})
    request = pb.LaneListRequest(
        tenant_id=tenant, page_size=query.get("limit", 0), page_token=str(query.get("cursor", ""))
    )
    told = await grpc._call("ListLanes", request)
    assert [(lane.lane, lane.state, lane.waiting, lane.under_way) for lane in told.lanes] == [
        (item["lane"], item["state"], item["waiting"], item["underWay"]) for item in page["items"]
    ]
    assert told.next_page_token == (page["nextCursor"] or "")
    return cast(dict[str, Any], page)


async def put(doors: dict[str, Door], tenant: str, **asked: Any) -> dict[str, Any]:
    body = {"tenantId": tenant, "requestedBy": "ann", **asked}
    return cast(dict[str, Any], await cast(RestDoor, doors["rest"])._call("PUT", "/lanes", tenant, json=body))


async def test_a_tenant_sees_what_waits_where_and_nothing_of_another(
    doors: dict[str, Door], tenant: str, plain: Sql
) -> None:
    await hold(plain, f"{LANE}/hook", 3, tenant=tenant)
    await hold(plain, f"{LANE}/hook", 2, tenant=tenant, ago_s=-3600)
    await hold(plain, "https://b.example/hook", 1, tenant=tenant)
    await hold(plain, "https://c.example/hook", 1, tenant=f"{tenant}-x")
    page = await listed(doors, tenant)
    assert [(item["lane"], item["waiting"]) for item in page["items"]] == [(LANE, 3), ("https://b.example", 1)]
    assert page["items"][0] == {
        "tenantId": tenant,
        "lane": LANE,
        "state": "closed",
        "concurrency": None,
        "ratePerS": None,
        "waiting": 3,
        "underWay": 0,
        "failures": 0,
        "openedAt": None,
        "nextProbeAt": None,
        "reason": None,
    }
    first = await listed(doors, tenant, limit=1)
    assert first["nextCursor"] == LANE
    second = await listed(doors, tenant, limit=1, cursor=LANE)
    assert ([item["lane"] for item in second["items"]], second["nextCursor"]) == (["https://b.example"], None)


async def test_limits_are_set_shown_and_taken_away(doors: dict[str, Door], tenant: str) -> None:
    made = await put(doors, tenant, lane=LANE, concurrency=3, ratePerS=0.5)
    assert (made["lane"], made["concurrency"], made["ratePerS"], made["state"]) == (LANE, 3, 0.5, "closed")
    default = await put(doors, tenant, concurrency=8)
    assert (default["lane"], default["concurrency"]) == ("*", 8)
    page = await listed(doors, tenant)
    assert {item["lane"]: item["concurrency"] for item in page["items"]} == {"*": 8, LANE: 3}
    cleared = await put(doors, tenant, lane=LANE)
    assert (cleared["concurrency"], cleared["ratePerS"]) == (None, None)


async def test_grpc_sets_the_same(doors: dict[str, Door], tenant: str) -> None:
    request = pb.LaneLimitsRequest(tenant_id=tenant, lane=LANE, concurrency=2, rate_per_s=5, requested_by="ann")
    made = await cast(GrpcDoor, doors["grpc"])._call("SetLaneLimits", request)
    told = MessageToDict(made)
    assert (told["lane"], told["concurrency"], told["ratePerS"]) == (LANE, 2, 5.0)
    assert [item["concurrency"] for item in (await listed(doors, tenant))["items"]] == [2]


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"concurrency": 0}, "/concurrency"),
        ({"concurrency": 10_001}, "/concurrency"),
        ({"ratePerS": 0}, "/ratePerS"),
        ({"ratePerS": -1}, "/ratePerS"),
        ({"ratePerS": 1e9}, "/ratePerS"),
        ({"lane": ""}, "/lane"),
        ({"rate": 3}, "/rate"),
    ],
)
async def test_what_is_no_limit_is_refused(
    doors: dict[str, Door], tenant: str, asked: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(Refused) as refused:
        await put(doors, tenant, **asked)
    assert pointer in str(vars(refused.value))
    assert (await listed(doors, tenant))["items"] == []
