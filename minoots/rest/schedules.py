"""The call that shows what a schedule comes to."""

import msgspec
from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.domain.duration import format_instant
from minoots.domain.json_text import read_json
from minoots.domain.limits import BODY_BYTES
from minoots.domain.verbs import PreviewRequest, admit_preview
from minoots.rest.answers import Answer, HttpRequest, json_answer
from minoots.rest.body import read_body
from minoots.rest.parameters import TENANT_ONLY, identify, read_query
from minoots.service.changes import TimerChanges
from minoots.service.plans import beside


class ScheduledInstant(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One instant of a schedule: in UTC, in the zone of its rule, and what a change of the zone did to it."""

    at: str
    local: str
    note: str | None = None


class ScheduleRoutes:
    """Handlers that keep nothing: a schedule is nobody's until a timer has it."""

    def __init__(self, changes: TimerChanges, keys: Keys) -> None:
        self._changes = changes
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [HTTPRouteHandler("/schedules/preview", http_method="POST")(self.preview)]

    async def preview(self, request: HttpRequest) -> Answer:
        scope = request.scope
        identify(self._keys, scope, "timers:read")
        read_query(scope["query_string"], TENANT_ONLY)
        asked = read_json(await read_body(request, BODY_BYTES), PreviewRequest)
        found = await self._changes.preview(*await beside(True, admit_preview, asked))
        items = [ScheduledInstant(at=format_instant(i.at), local=i.local, note=i.note) for i in found]
        return json_answer({"items": items})
