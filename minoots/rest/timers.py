"""The calls about timers, in the order of a timer's life."""

from typing import Annotated

import msgspec
from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.json_text import read_json
from minoots.domain.limits import (
    BATCH_BODY_BYTES,
    BODY_BYTES,
    LABEL_KEY_CHARACTERS,
    LABEL_VALUE_CHARACTERS,
    LABELS,
    NAME_CHARACTERS,
    REASON_CHARACTERS,
)
from minoots.domain.moment import NOTHING
from minoots.domain.timer import Name, TimerRequest, admit
from minoots.errors import MalformedRequest
from minoots.rest.answers import Answer, HttpRequest, created_answer, json_answer, page_answer, timer_answer
from minoots.rest.batch import read_batch
from minoots.rest.body import read_body
from minoots.rest.parameters import (
    PAGED,
    TENANT_ONLY,
    Query,
    choose_tenant,
    header,
    identify,
    one,
    page_size,
    path_timer,
    read_instant,
    read_query,
    read_timer_cursor,
    traceparent,
)
from minoots.service.plans import beside
from minoots.service.timers import Timers
from minoots.store.timers import TimerFilter

STATUSES = ("scheduled", "paused", "fired", "settled", "failed", "cancelled")

_LIST = PAGED | {"status", "label", "name", "dueBefore", "dueAfter"}
_REPEATABLE = frozenset({"status", "label"})
_BODY_TENANT = "the body's tenantId"


class CancelRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Who cancels, and why."""

    tenant_id: str | None = None
    requested_by: Name
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)] | None = None


class TimerRoutes:
    """Handlers over the service. They read what came, ask, and answer; the rules are not theirs."""

    def __init__(self, timers: Timers, keys: Keys) -> None:
        self._timers = timers
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            # Litestar's own knows only the methods of the handler that was registered first.
            HTTPRouteHandler("/timers", http_method="OPTIONS")(self.options),
            HTTPRouteHandler("/timers", http_method="POST")(self.create),
            HTTPRouteHandler("/timers/batch", http_method="POST")(self.create_batch),
            HTTPRouteHandler("/timers", http_method=["GET", "HEAD"])(self.list_timers),
            HTTPRouteHandler("/timers/{timer_id:str}", http_method=["GET", "HEAD"])(self.get),
            HTTPRouteHandler("/timers/{timer_id:str}/cancel", http_method="POST")(self.cancel),
        ]

    async def options(self, request: HttpRequest) -> Answer:
        return Answer(b"", 204, ((b"allow", b"GET, HEAD, OPTIONS, POST"),))

    async def create(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        wanted = read_json(await read_body(request, BODY_BYTES), TimerRequest)
        tenant = choose_tenant(caller, scope, query, (_BODY_TENANT, wanted.tenant_id))
        new = await beside(wanted.schedule is not NOTHING, admit, wanted, traceparent(scope))
        return created_answer(await self._timers.schedule(tenant, new, header(scope, b"idempotency-key")))

    async def create_batch(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        batch = await read_batch(await read_body(request, BATCH_BODY_BYTES), traceparent(scope))
        tenant = choose_tenant(caller, scope, query, *batch.tenants)
        created = await self._timers.schedule_many(tenant, batch.new, header(scope, b"idempotency-key"))
        return json_answer({"items": created}, 201)

    async def get(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        tenant = choose_tenant(caller, scope, read_query(scope["query_string"], TENANT_ONLY))
        return timer_answer(await self._timers.get(tenant, path_timer(scope["path_params"])))

    async def list_timers(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], _LIST, _REPEATABLE)
        tenant = choose_tenant(caller, scope, query)
        return page_answer(await self._timers.list_timers(tenant, read_filter(query)))

    async def cancel(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:write")
        query = read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), CancelRequest)
        tenant = choose_tenant(caller, scope, query, (_BODY_TENANT, asked.tenant_id))
        timer_id = path_timer(scope["path_params"])
        return timer_answer(await self._timers.cancel(tenant, timer_id, asked.requested_by, asked.reason))


def read_filter(query: Query) -> TimerFilter:
    """What a list is to show; MalformedRequest for a value that is none."""
    for status in query.get("status", ()):
        if status not in STATUSES:
            raise MalformedRequest(f"there is no status {status[:64]!r}; there are {', '.join(STATUSES)}")
    return TimerFilter(
        statuses=query.get("status", ()),
        labels=read_labels(query.get("label", [])),
        name=one(query, "name", _read_name),
        due_before=one(query, "dueBefore", read_instant),
        due_after=one(query, "dueAfter", read_instant),
        after=one(query, "cursor", read_timer_cursor),
        limit=page_size(query),
    )


def read_labels(texts: list[str]) -> dict[str, str] | None:
    """`key:value` each; the key ends at the first colon. All of them must hold."""
    if len(texts) > LABELS:
        raise MalformedRequest(f"a list is filtered by at most {LABELS} labels")
    labels: dict[str, str] = {}
    for text in texts:
        key, colon, value = text.partition(":")
        if not colon or not 1 <= len(key) <= LABEL_KEY_CHARACTERS or len(value) > LABEL_VALUE_CHARACTERS:
            raise MalformedRequest(
                f"a label is written as key:value, the key with 1 to {LABEL_KEY_CHARACTERS} characters "
                f"and the value with up to {LABEL_VALUE_CHARACTERS}"
            )
        if labels.setdefault(key, value) != value:
            raise MalformedRequest(f"no timer has two values of the label {key!r}; ask for one")
    return labels or None


def _read_name(text: str) -> str:
    if not 1 <= len(text) <= NAME_CHARACTERS:
        raise ValueError(f"a name has 1 to {NAME_CHARACTERS} characters")
    return text
