"""The verb that follows a tenant's events."""

from collections.abc import Iterable
from typing import Any, Final

import structlog

from minoots.broker.events import Event, Notice, Wanted, choose_topics
from minoots.broker.follow import Follower
from minoots.broker.tail import Tail
from minoots.errors import EventsOff, MalformedRequest, Unavailable
from minoots.rpc import requests
from minoots.rpc.calls import READ, Call, Verb
from minoots.rpc.convert import show, show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.timers import Timers
from minoots.service.waits import WAIT_DEFAULT_S, WAIT_MOST_S, Waits

log = structlog.get_logger("minoots.rpc")

NOTICE_TYPE: Final = "minoots.notice"
_PATIENCE_S: Final = 60.0


class EventVerbs:
    """What is told of timers, as it happens."""

    def __init__(self, timers: Timers, tail: Tail | None) -> None:
        self._timers = timers
        self._tail = tail

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {"StreamTimerEvents": Verb(pb.TimerEventStreamRequest, READ, self.stream_events, streams=True)}

    async def stream_events(self, request: pb.TimerEventStreamRequest, call: Call) -> None:
        """The initial metadata goes out when the place in the stream is held: from then on nothing is missed."""
        if self._tail is None:
            raise EventsOff("this server has no NATS to read events from; its operator can set NATS_URL")
        wanted = Wanted(choose_topics(request.topics), *requests.read_event_filter(request))
        follower = Follower(self._tail, call.tenant_id, wanted, requests.read_resume(request))
        if not await self._timers.are_events_on():
            raise EventsOff
        async with follower:
            await call.context.send_initial_metadata(())
            while not follower.is_over:
                for found in await follower.take(_PATIENCE_S):
                    for event in _shown(found, call.tenant_id):
                        await call.context.write(event)
        if self._tail.is_closing:
            raise Unavailable("this server is going away; call again with the last resume_token")
        raise Unavailable("events came faster than they were read; call again with the last resume_token")


class WaitVerbs:
    """Waiting for a timer's end."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {"WaitTimer": Verb(pb.TimerWaitRequest, READ, self.wait)}

    async def wait(self, request: pb.TimerWaitRequest, call: Call) -> pb.TimerWaitResponse:
        seconds = request.timeout_ms / 1000 if request.HasField("timeout_ms") else WAIT_DEFAULT_S
        if not 0 < seconds <= WAIT_MOST_S:
            raise MalformedRequest(f"timeout_ms is from 1 to {WAIT_MOST_S * 1000:.0f}; call again when it is over")
        waited = await self._waits.wait(call.tenant_id, requests.read_timer_id(request.timer_id), seconds)
        return pb.TimerWaitResponse(timer=show_struct(pb.Timer, waited.timer), has_ended=waited.how == "ended")


def _shown(found: Event | Notice, tenant_id: str) -> Iterable[pb.TimerEvent]:
    """Nothing for an event that is not of our making and does not fit: it must not end the stream for the others."""
    if isinstance(found, Notice):
        yield pb.TimerEvent(
            type=NOTICE_TYPE,
            source=f"/minoots/tenants/{tenant_id}",
            tenant_id=tenant_id,
            reason=found.reason,
            resume_token=found.resume_token,
        )
        return
    try:
        envelope = found.envelope
        shown = envelope.data | {
            "id": envelope.id,
            "type": envelope.type,
            "source": envelope.source,
            "subject": envelope.subject,
            "time": envelope.time,
            "tenantId": tenant_id,
            "traceparent": envelope.traceparent,
            "resumeToken": found.resume_token,
        }
        yield show(pb.TimerEvent, shown)
    except (ValueError, TypeError, AttributeError, RecursionError):
        log.exception("rpc.event_unreadable", kind=found.kind, resume_token=found.resume_token)
