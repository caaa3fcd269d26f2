"""The verbs of HorologyKernel: each reads what came, asks the service, and shows what it answered."""

from collections.abc import Iterable
from typing import Any, Final

import structlog

from minoots.broker.events import Event, EventReader, Notice
from minoots.broker.jetstream import Broker
from minoots.errors import ConfigError
from minoots.rpc import requests
from minoots.rpc.calls import READ, WRITE, Call, Calls, Handler, Verb
from minoots.rpc.changes import ChangeVerbs
from minoots.rpc.convert import show, show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.changes import TimerChanges
from minoots.service.plans import beside
from minoots.service.timers import Timers

log = structlog.get_logger("minoots.rpc")

SERVICE: Final = pb.DESCRIPTOR.services_by_name["HorologyKernel"].full_name
# A batch of 32 MiB of JSON, and the envelope around it.
BATCH_MESSAGE_BYTES: Final = 33 * 1024 * 1024
NOTICE_TYPE: Final = "minoots.notice"


class HorologyKernel:
    """The service. It has no rules of its own."""

    def __init__(self, timers: Timers, changes: TimerChanges, broker: Broker | None) -> None:
        self._timers = timers
        self._changes = ChangeVerbs(changes)
        self._broker = broker

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {
            "ScheduleTimer": Verb(pb.TimerScheduleRequest, WRITE, self.schedule),
            "CreateTimers": Verb(
                pb.TimersCreateRequest, WRITE, self.create, requests.batch_tenants, BATCH_MESSAGE_BYTES
            ),
            "GetTimer": Verb(pb.TimerGetRequest, READ, self.get),
            "ListTimers": Verb(pb.TimerListRequest, READ, self.list_timers),
            "CancelTimer": Verb(pb.TimerCancelRequest, WRITE, self.cancel),
            **self._changes.verbs(),
            "ListFirings": Verb(pb.FiringListRequest, READ, self.list_firings),
            "GetFiring": Verb(pb.FiringGetRequest, READ, self.get_firing),
            "StreamTimerEvents": Verb(pb.TimerEventStreamRequest, READ, self.stream_events, streams=True),
        }

    def handlers(self, calls: Calls) -> dict[str, Handler]:
        """gRPC's handlers, one for each method that the proto has."""
        verbs = self.verbs()
        names = [method.name for method in pb.DESCRIPTOR.services_by_name["HorologyKernel"].methods]
        return {name: calls.handler(name, verbs[name]) for name in names}

    async def schedule(self, request: pb.TimerScheduleRequest, call: Call) -> pb.TimerScheduleResponse:
        new = await beside(request.HasField("schedule"), requests.read_schedule, request, call.traceparent)
        timer = await self._timers.schedule(call.tenant_id, new, requests.read_idempotency_key(request))
        return pb.TimerScheduleResponse(timer=show_struct(pb.Timer, timer))

    async def create(self, request: pb.TimersCreateRequest, call: Call) -> pb.TimersCreateResponse:
        new = await requests.read_batch(request, call.traceparent)
        made = await self._timers.schedule_many(call.tenant_id, new, requests.read_idempotency_key(request))
        return pb.TimersCreateResponse(timers=[show_struct(pb.Timer, timer) for timer in made])

    async def get(self, request: pb.TimerGetRequest, call: Call) -> pb.Timer:
        timer = await self._timers.get(call.tenant_id, requests.read_timer_id(request.timer_id))
        return show_struct(pb.Timer, timer)

    async def list_timers(self, request: pb.TimerListRequest, call: Call) -> pb.TimerListResponse:
        page = await self._timers.list_timers(call.tenant_id, requests.read_filter(request))
        timers = [show_struct(pb.Timer, timer) for timer in page.items]
        return pb.TimerListResponse(timers=timers, next_page_token=page.next_cursor or "")

    async def cancel(self, request: pb.TimerCancelRequest, call: Call) -> pb.Timer:
        requested_by, reason = requests.read_cancel(request)
        timer_id = requests.read_timer_id(request.timer_id)
        return show_struct(pb.Timer, await self._timers.cancel(call.tenant_id, timer_id, requested_by, reason))

    async def list_firings(self, request: pb.FiringListRequest, call: Call) -> pb.FiringListResponse:
        before = requests.read_firing_token(request.page_token)
        timer_id = requests.read_timer_id(request.timer_id)
        size = requests.read_page_size(request.page_size)
        page = await self._timers.list_firings(call.tenant_id, timer_id, before, size)
        firings = [show_struct(pb.Firing, firing) for firing in page.items]
        return pb.FiringListResponse(firings=firings, next_page_token=page.next_cursor or "")

    async def get_firing(self, request: pb.FiringGetRequest, call: Call) -> pb.Firing:
        timer_id = requests.read_timer_id(request.timer_id)
        occurrence = requests.read_occurrence(request.occurrence)
        return show_struct(pb.Firing, await self._timers.get_firing(call.tenant_id, timer_id, occurrence))

    async def stream_events(self, request: pb.TimerEventStreamRequest, call: Call) -> None:
        """The initial metadata goes out when the place in the stream is held: from then on nothing is missed."""
        if self._broker is None:
            raise ConfigError("this server has no NATS to read events from; its operator can set NATS_URL")
        reader = EventReader(self._broker, call.tenant_id, request.topics, requests.read_resume(request))
        if not await self._timers.are_events_on():
            raise ConfigError("events are off in this installation; its operator can say: minoots events on")
        async with reader:
            await call.context.send_initial_metadata(())
            async for found in reader:
                for event in _shown(found, call.tenant_id):
                    await call.context.write(event)


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
    try:
        yield show(pb.TimerEvent, shown)
    except (ValueError, TypeError, AttributeError):
        log.exception("rpc.event_unreadable", kind=found.kind, resume_token=found.resume_token)
