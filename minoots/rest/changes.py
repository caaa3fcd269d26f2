"""The calls that change a timer which waits, in place or by name."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.json_text import read_json
from minoots.domain.limits import BODY_BYTES
from minoots.domain.moment import NOTHING
from minoots.domain.timer import TimerRequest, admit
from minoots.domain.update import UpdateRequest, admit_update
from minoots.domain.verbs import RescheduleRequest, ResumeRequest, StepRequest, admit_reschedule
from minoots.errors import MalformedRequest
from minoots.rest.answers import Answer, HttpRequest, created_answer, timer_answer
from minoots.rest.body import read_body, read_optional_body
from minoots.rest.parameters import (
    BY_NAME,
    TENANT_ONLY,
    choose_tenant,
    identify,
    if_match,
    is_only_new,
    path_name,
    path_timer,
    read_query,
    traceparent,
)
from minoots.service.changes import TimerChanges
from minoots.service.plans import beside

_BODY_TENANT = "the body's tenantId"

Asked = TypeVar("Asked", UpdateRequest, StepRequest, ResumeRequest, RescheduleRequest, TimerRequest)
BodyReader = Callable[[HttpRequest, int], Awaitable[bytes]]


class ChangeRoutes:
    """Handlers over the service."""

    def __init__(self, changes: TimerChanges, keys: Keys) -> None:
        self._changes = changes
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        timer = "/timers/{timer_id:str}"
        return [
            # Litestar's own knows only the methods of one handler.
            HTTPRouteHandler(timer, http_method="OPTIONS")(self.options),
            HTTPRouteHandler(timer, http_method="PATCH")(self.update),
            HTTPRouteHandler(timer + "/pause", http_method="POST")(self.pause),
            HTTPRouteHandler(timer + "/resume", http_method="POST")(self.resume),
            HTTPRouteHandler(timer + "/reschedule", http_method="POST")(self.reschedule),
            HTTPRouteHandler(timer + "/fire", http_method="POST")(self.fire),
            # A name may hold a slash.
            HTTPRouteHandler(BY_NAME + "{name:path}", http_method="PUT")(self.put),
        ]

    async def options(self, request: HttpRequest) -> Answer:
        return Answer(b"", 204, ((b"allow", b"GET, HEAD, OPTIONS, PATCH"),))

    async def update(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, asked = await self._read(request, UpdateRequest)
        timer_id = path_timer(scope["path_params"])
        changes = await beside(True, admit_update, asked)
        return timer_answer(await self._changes.update(tenant, timer_id, changes, if_match(scope)))

    async def pause(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, asked = await self._read(request, StepRequest, read_optional_body)
        return timer_answer(
            await self._changes.pause(tenant, path_timer(scope["path_params"]), asked.requested_by, if_match(scope))
        )

    async def resume(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, asked = await self._read(request, ResumeRequest, read_optional_body)
        timer_id = path_timer(scope["path_params"])
        return timer_answer(
            await self._changes.resume(tenant, timer_id, asked.catch_up is True, asked.requested_by, if_match(scope))
        )

    async def reschedule(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, asked = await self._read(request, RescheduleRequest)
        timer_id = path_timer(scope["path_params"])
        moved = await beside(asked.schedule is not NOTHING, admit_reschedule, asked)
        return timer_answer(
            await self._changes.reschedule(tenant, timer_id, moved, asked.requested_by, if_match(scope))
        )

    async def fire(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, asked = await self._read(request, StepRequest, read_optional_body)
        return timer_answer(
            await self._changes.fire(tenant, path_timer(scope["path_params"]), asked.requested_by, if_match(scope))
        )

    async def put(self, request: HttpRequest) -> Answer:
        scope = request.scope
        tenant, wanted = await self._read(request, TimerRequest)
        name = path_name(scope)
        if wanted.name is not None and wanted.name != name:
            raise MalformedRequest("the body's name is not the one in the path; leave it out", "/name")
        wanted.name = name
        new = await beside(wanted.schedule is not NOTHING, admit, wanted, traceparent(scope))
        timer, is_new = await self._changes.put(tenant, new, if_match(scope), only_new=is_only_new(scope))
        return created_answer(timer) if is_new else timer_answer(timer)

    async def _read(self, request: HttpRequest, kind: type[Asked], read: BodyReader = read_body) -> tuple[str, Asked]:
        """Who may change timers, and what is asked: the tenant, and the body as this kind."""
        caller = identify(self._keys, request.scope, "timers:write")
        query = read_query(request.scope["query_string"], TENANT_ONLY)
        asked = read_json(await read(request, BODY_BYTES), kind)
        return choose_tenant(caller, request.scope, query, (_BODY_TENANT, asked.tenant_id)), asked
