"""The calls that show what became of a timer."""

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.rest.answers import Answer, HttpRequest, json_answer, page_answer
from minoots.rest.parameters import (
    PAGED,
    TENANT_ONLY,
    choose_tenant,
    identify,
    one,
    page_size,
    path_occurrence,
    path_timer,
    read_firing_cursor,
    read_query,
)
from minoots.service.timers import Timers


class FiringRoutes:
    """Handlers over the service."""

    def __init__(self, timers: Timers, keys: Keys) -> None:
        self._timers = timers
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        firings = "/timers/{timer_id:str}/firings"
        return [
            HTTPRouteHandler(firings, http_method=["GET", "HEAD"])(self.list_firings),
            HTTPRouteHandler(firings + "/{occurrence:str}", http_method=["GET", "HEAD"])(self.get),
        ]

    async def list_firings(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], PAGED)
        tenant = choose_tenant(caller, scope, query)
        before = one(query, "cursor", read_firing_cursor)
        timer_id = path_timer(scope["path_params"])
        return page_answer(await self._timers.list_firings(tenant, timer_id, before, page_size(query)))

    async def get(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        tenant = choose_tenant(caller, scope, read_query(scope["query_string"], TENANT_ONLY))
        timer_id = path_timer(scope["path_params"])
        occurrence = path_occurrence(scope["path_params"])
        return json_answer(await self._timers.get_firing(tenant, timer_id, occurrence))
