"""What the verbs take: pause, resume, reschedule, fire, and the preview of a schedule."""

from datetime import datetime
from typing import Annotated

import msgspec

from minoots.domain.duration import parse_instant
from minoots.domain.limits import PREVIEW_DEFAULT, PREVIEW_MOST
from minoots.domain.moment import NOTHING, Moved, read_moment
from minoots.domain.timer import Name
from minoots.errors import Finding, InvalidTimer


class StepRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Pause or fire: who asks for it."""

    tenant_id: str | None = None
    requested_by: Name | None = None


class ResumeRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Whether what came due during the pause is caught up with, as the schedule's `catchUp` says, or is missed."""

    tenant_id: str | None = None
    requested_by: Name | None = None
    catch_up: bool | None = None


class RescheduleRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """When it is to fire from now on; one of `duration`, `fireAt`, `schedule`, and its short forms `cron`, `every`."""

    tenant_id: str | None = None
    requested_by: Name | None = None
    duration: str | int | float | None = None
    fire_at: str | None = None
    schedule: msgspec.Raw = NOTHING
    cron: str | None = None
    every: str | int | float | None = None
    timezone: str | None = None


class PreviewRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A schedule, or its short forms `cron`, `every`; from when on, and how many instants."""

    schedule: msgspec.Raw = NOTHING
    cron: str | None = None
    every: str | int | float | None = None
    timezone: str | None = None
    after: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=PREVIEW_MOST)] | None = None


def admit_reschedule(request: RescheduleRequest) -> Moved:
    """Raises InvalidTimer with every field that breaks a rule."""
    findings: list[Finding] = []
    moved = read_moment(request, findings)
    if moved is None:
        raise InvalidTimer(findings)
    return moved


def admit_preview(request: PreviewRequest) -> tuple[Moved, datetime | None, int]:
    """The schedule, from when on (None: from now), and how many instants; raises InvalidTimer."""
    findings: list[Finding] = []
    moved = read_moment(request, findings, ("schedule", "cron", "every"))
    after = None
    if request.after is not None:
        try:
            after = parse_instant(request.after)
            if after.year >= 9000:
                raise ValueError("after is before the year 9000, as every instant is")
        except ValueError as wrong:
            findings.append(Finding("/after", str(wrong)))
    if moved is None or findings:
        raise InvalidTimer(findings)
    return moved, after, request.count or PREVIEW_DEFAULT
