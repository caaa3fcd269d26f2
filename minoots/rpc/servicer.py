"""The verbs of HorologyKernel: each reads what came, asks the service, and shows what it answered."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

from minoots.broker.tail import Tail
from minoots.rpc import requests
from minoots.rpc.calls import READ, WRITE, Call, Calls, Handler, Verb
from minoots.rpc.changes import ChangeVerbs
from minoots.rpc.convert import show_struct
from minoots.rpc.events import EventVerbs
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.changes import TimerChanges
from minoots.service.plans import beside
from minoots.service.timers import Timers

SERVICE: Final = pb.DESCRIPTOR.services_by_name["HorologyKernel"].full_name
# A batch of 32 MiB of JSON, and the envelope around it.
BATCH_MESSAGE_BYTES: Final = 33 * 1024 * 1024


class Verbs(Protocol):
    """Methods that belong together."""

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        ...


class HorologyKernel:
    """The service. It has no rules of its own."""

    def __init__(self, timers: Timers, changes: TimerChanges, tail: Tail | None, further: Sequence[Verbs] = ()) -> None:
        self._timers = timers
        self._changes = ChangeVerbs(changes)
        self._events = EventVerbs(timers, tail)
        self._further = further

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
            **{name: verb for verbs in self._further for name, verb in verbs.verbs().items()},
            "ListFirings": Verb(pb.FiringListRequest, READ, self.list_firings),
            "GetFiring": Verb(pb.FiringGetRequest, READ, self.get_firing),
            **self._events.verbs(),
        }

    def handlers(self, calls: Calls) -> dict[str, Handler]:
        """gRPC's handlers, for each method of the proto that this server was given; the others are UNIMPLEMENTED."""
        verbs = self.verbs()
        names = [method.name for method in pb.DESCRIPTOR.services_by_name["HorologyKernel"].methods]
        return {name: calls.handler(name, verbs[name]) for name in names if name in verbs}

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
