"""The verbs of HorologyKernel for lanes."""

import math
from typing import Any

import msgspec

from minoots.domain.json_text import read_json
from minoots.domain.lane import LANE_CHARACTERS, LimitsRequest
from minoots.errors import InvalidTimer, MalformedRequest
from minoots.rpc import requests
from minoots.rpc.calls import READ, WRITE, Call, Verb
from minoots.rpc.convert import show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.lanes import LaneLimits


class LaneVerbs:
    """The part of the service about lanes. It has no rules of its own."""

    def __init__(self, lanes: LaneLimits) -> None:
        self._lanes = lanes

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {
            "ListLanes": Verb(pb.LaneListRequest, READ, self.list_lanes),
            "SetLaneLimits": Verb(pb.LaneLimitsRequest, WRITE, self.set_limits),
        }

    async def list_lanes(self, request: pb.LaneListRequest, call: Call) -> pb.LaneListResponse:
        after = request.page_token
        if len(after) > LANE_CHARACTERS or "\0" in after:
            raise MalformedRequest("this is no page token; take next_page_token of the page before")
        page = await self._lanes.list_lanes(call.tenant_id, after, requests.read_page_size(request.page_size))
        lanes = [show_struct(pb.Lane, lane) for lane in page.items]
        return pb.LaneListResponse(lanes=lanes, next_page_token=page.next_cursor or "")

    async def set_limits(self, request: pb.LaneLimitsRequest, call: Call) -> pb.Lane:
        asked = read_json(_body(request), LimitsRequest)
        return show_struct(pb.Lane, await self._lanes.set_limits(call.tenant_id, asked))


def _body(request: pb.LaneLimitsRequest) -> bytes:
    """The body of the REST call that says the same."""
    asked: dict[str, Any] = {"requestedBy": request.requested_by} if request.requested_by else {}
    if request.HasField("lane"):
        asked["lane"] = request.lane
    if request.HasField("concurrency"):
        asked["concurrency"] = request.concurrency
    if request.HasField("rate_per_s"):
        if not math.isfinite(request.rate_per_s):
            raise InvalidTimer.at("/ratePerS", "ratePerS is a number above 0")
        asked["ratePerS"] = request.rate_per_s
    return msgspec.json.encode(asked)
