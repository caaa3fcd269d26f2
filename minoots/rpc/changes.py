"""The verbs of HorologyKernel for timers that are there, from pause to put; and the preview of a schedule."""

from typing import Any

from minoots.rpc import change_requests as requests
from minoots.rpc.calls import READ, WRITE, Call, Verb
from minoots.rpc.convert import show_struct
from minoots.rpc.pb import timer_pb2 as pb
from minoots.service.changes import TimerChanges
from minoots.service.plans import beside


class ChangeVerbs:
    """The part of the service that changes timers. It has no rules of its own."""

    def __init__(self, changes: TimerChanges) -> None:
        self._changes = changes

    def verbs(self) -> dict[str, Verb[Any]]:
        """Each method under its name."""
        return {
            "PauseTimer": Verb(pb.TimerPauseRequest, WRITE, self.pause),
            "ResumeTimer": Verb(pb.TimerResumeRequest, WRITE, self.resume),
            "RescheduleTimer": Verb(pb.TimerRescheduleRequest, WRITE, self.reschedule),
            "FireTimer": Verb(pb.TimerFireRequest, WRITE, self.fire),
            "UpdateTimer": Verb(pb.TimerUpdateRequest, WRITE, self.update),
            "PutTimer": Verb(pb.TimerPutRequest, WRITE, self.put),
            "PreviewSchedule": Verb(pb.SchedulePreviewRequest, READ, self.preview, is_of_tenant=False),
        }

    async def pause(self, request: pb.TimerPauseRequest, call: Call) -> pb.Timer:
        timer_id, requested_by = requests.read_step(request)
        return show_struct(pb.Timer, await self._changes.pause(call.tenant_id, timer_id, requested_by))

    async def resume(self, request: pb.TimerResumeRequest, call: Call) -> pb.Timer:
        timer_id, requested_by = requests.read_step(request)
        timer = await self._changes.resume(call.tenant_id, timer_id, request.catch_up, requested_by)
        return show_struct(pb.Timer, timer)

    async def reschedule(self, request: pb.TimerRescheduleRequest, call: Call) -> pb.Timer:
        timer_id, moved, requested_by = await beside(request.HasField("schedule"), requests.read_reschedule, request)
        return show_struct(pb.Timer, await self._changes.reschedule(call.tenant_id, timer_id, moved, requested_by))

    async def fire(self, request: pb.TimerFireRequest, call: Call) -> pb.Timer:
        timer_id, requested_by = requests.read_step(request)
        return show_struct(pb.Timer, await self._changes.fire(call.tenant_id, timer_id, requested_by))

    async def update(self, request: pb.TimerUpdateRequest, call: Call) -> pb.Timer:
        timer_id, changes = await beside(request.HasField("schedule"), requests.read_update, request)
        version = requests.read_version(request)
        return show_struct(pb.Timer, await self._changes.update(call.tenant_id, timer_id, changes, version))

    async def put(self, request: pb.TimerPutRequest, call: Call) -> pb.TimerPutResponse:
        new = await beside(request.HasField("schedule"), requests.read_put, request, call.traceparent)
        timer, created = await self._changes.put(call.tenant_id, new, requests.read_version(request))
        return pb.TimerPutResponse(timer=show_struct(pb.Timer, timer), created=created)

    async def preview(self, request: pb.SchedulePreviewRequest, call: Call) -> pb.SchedulePreviewResponse:
        moved, after, count = await beside(True, requests.read_preview, request)
        answer = pb.SchedulePreviewResponse()
        for found in await self._changes.preview(moved, after, count):
            item = answer.items.add(local=found.local, note=found.note)
            item.at.FromDatetime(found.at)
        return answer
