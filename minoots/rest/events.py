"""The calls of those who have no door of their own: a tenant's events as they happen, and a timer's end."""

import re
from typing import Final

from litestar.handlers import HTTPRouteHandler

from minoots.access.keys import Keys
from minoots.broker.events import Wanted, choose_topics
from minoots.broker.follow import Follower
from minoots.domain.duration import parse_duration
from minoots.errors import EventsOff
from minoots.rest.answers import Answer, HttpRequest, timer_answer
from minoots.rest.parameters import TENANT_ONLY, choose_tenant, header, identify, one, path_timer, read_query
from minoots.rest.streams import EventStream, unless_gone
from minoots.rest.timers import read_labels
from minoots.service.following import Following
from minoots.service.waits import WAIT_DEFAULT_S, WAIT_MOST_S

_EVENTS: Final = TENANT_ONLY | {"type", "timerId", "label"}
_REPEATABLE: Final = frozenset({"type", "label"})
_WAIT: Final = TENANT_ONLY | {"timeout"}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


class EventRoutes:
    """Handlers over the stream and the service."""

    def __init__(self, following: Following, keys: Keys) -> None:
        self._following = following
        self._keys = keys

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            HTTPRouteHandler("/events", http_method=["GET", "HEAD"])(self.events),
            HTTPRouteHandler("/timers/{timer_id:str}/wait", http_method=["GET", "HEAD"])(self.wait),
        ]

    async def events(self, request: HttpRequest) -> EventStream:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], _EVENTS, _REPEATABLE)
        tenant = choose_tenant(caller, scope, query)
        wanted = Wanted(
            choose_topics(query.get("type", []), "type"),
            one(query, "timerId", _read_timer_id),
            read_labels(query.get("label", [])) or {},
        )
        # Where an EventSource goes on (HTML Standard, section 9.2.4); an empty one is none.
        resume = header(scope, b"last-event-id") or None
        if self._following.tail is None:
            raise EventsOff("this server has no NATS to read events from; its operator can set NATS_URL")
        follower = Follower(self._following.tail, tenant, wanted, resume)
        if not await self._following.are_events_on():
            raise EventsOff
        return EventStream(follower, self._following)

    async def wait(self, request: HttpRequest) -> Answer:
        scope = request.scope
        caller = identify(self._keys, scope, "timers:read")
        query = read_query(scope["query_string"], _WAIT)
        tenant = choose_tenant(caller, scope, query)
        seconds = one(query, "timeout", _read_timeout) or WAIT_DEFAULT_S
        waited = await unless_gone(
            request, self._following.waits.wait(tenant, path_timer(scope["path_params"]), seconds)
        )
        if waited is None:
            return Answer(b"", 204)
        answer = timer_answer(waited.timer)
        answer.headers.append((b"minoots-wait", waited.how.encode()))
        return answer


def _read_timer_id(text: str) -> str:
    if not _UUID.fullmatch(text):
        raise ValueError("this is no timer's id")
    return text.lower()


def _read_timeout(text: str) -> float:
    seconds = parse_duration(text) / 1000
    if seconds > WAIT_MOST_S:
        raise ValueError(f"a wait takes at most {WAIT_MOST_S / 60:.0f} minutes; call again when it is over")
    return seconds
