"""The calls about what gave up."""

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.dead_letter import RedriveRequest, Wanted, read_cursor
from minoots.domain.json_text import read_json
from minoots.domain.limits import BODY_BYTES, URL_CHARACTERS
from minoots.rest.answers import Answer, HttpRequest, json_answer, page_answer
from minoots.rest.body import read_body
from minoots.rest.parameters import (
    PAGED,
    TENANT_ONLY,
    Query,
    choose_tenant,
    identify,
    one,
    page_size,
    read_instant,
    read_query,
    read_timer_id,
)
from minoots.service.dead_letters import DeadLetters

_LIST = PAGED | {"timerId", "kind", "lane", "reason", "since", "until"}


class DeadLetterRoutes:
    """Handlers over the service."""

    def __init__(self, dead_letters: DeadLetters, keys: Keys) -> None:
        self._dead_letters = dead_letters
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            HTTPRouteHandler("/dead-letters", http_method=["GET", "HEAD"])(self.list_dead),
            HTTPRouteHandler("/dead-letters/redrive", http_method="POST")(self.redrive),
        ]

    async def list_dead(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], _LIST)
        tenant = choose_tenant(caller, scope, query)
        after = one(query, "cursor", read_cursor)
        return page_answer(await self._dead_letters.list_dead(tenant, _read_wanted(query), after, page_size(query)))

    async def redrive(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), RedriveRequest)
        tenant = choose_tenant(caller, scope, query, ("the body's tenantId", asked.tenant_id))
        return json_answer(await self._dead_letters.redrive(tenant, asked))


def _read_wanted(query: Query) -> Wanted:
    """Which dead letters; MalformedRequest for a value that is none."""
    return Wanted(
        timer_id=one(query, "timerId", read_timer_id),
        kind=one(query, "kind", _read_text),
        lane=one(query, "lane", _read_text),
        reason=one(query, "reason", _read_text),
        since=one(query, "since", read_instant),
        until=one(query, "until", read_instant),
    )


def _read_text(text: str) -> str:
    if not 1 <= len(text) <= URL_CHARACTERS:
        raise ValueError(f"it has 1 to {URL_CHARACTERS:,} characters")
    return text
