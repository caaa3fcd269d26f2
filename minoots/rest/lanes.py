"""The calls about lanes: how destinations stand, and the limits that a tenant sets for them."""

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.json_text import read_json
from minoots.domain.lane import LANE_CHARACTERS, LimitsRequest
from minoots.domain.limits import BODY_BYTES
from minoots.rest.answers import Answer, HttpRequest, json_answer, page_answer
from minoots.rest.body import read_body
from minoots.rest.parameters import PAGED, TENANT_ONLY, choose_tenant, identify, one, page_size, read_query
from minoots.service.lanes import LaneLimits


class LaneRoutes:
    """Handlers over the service."""

    def __init__(self, lanes: LaneLimits, keys: Keys) -> None:
        self._lanes = lanes
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            # Litestar's own knows only the methods of the handler that was registered first.
            HTTPRouteHandler("/lanes", http_method="OPTIONS")(self.options),
            HTTPRouteHandler("/lanes", http_method=["GET", "HEAD"])(self.list_lanes),
            HTTPRouteHandler("/lanes", http_method="PUT")(self.set_limits),
        ]

    async def options(self, request: HttpRequest) -> Answer:
        return Answer(b"", 204, ((b"allow", b"GET, HEAD, OPTIONS, PUT"),))

    async def list_lanes(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], PAGED)
        tenant = choose_tenant(caller, scope, query)
        return page_answer(await self._lanes.list_lanes(tenant, one(query, "cursor", read_lane), page_size(query)))

    async def set_limits(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), LimitsRequest)
        tenant = choose_tenant(caller, scope, query, ("the body's tenantId", asked.tenant_id))
        return json_answer(await self._lanes.set_limits(tenant, asked))


def read_lane(text: str) -> str:
    """Where a list of lanes goes on: behind the last one's name."""
    if not 1 <= len(text) <= LANE_CHARACTERS:
        raise ValueError("this is no cursor; take nextCursor of the page before")
    return text
