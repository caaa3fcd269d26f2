"""A change in place: what a PATCH gives, as it is asked for and as the rules leave it."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from minoots.domain.change import Change, Kept, check_open, move
from minoots.domain.duration import format_instant
from minoots.domain.limits import LABELS
from minoots.domain.moment import Moved, given, is_nothing, read_moment
from minoots.domain.schedule import schedule_text
from minoots.domain.timer import Label, LabelKey, Name, NewTimer, Timer, check_bodies, json_text
from minoots.errors import Finding, InvalidTimer

# The version that every timer has: it must be there, whichever it is.
ANY_VERSION = 0


class UpdateRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change: a field that is given replaces the whole of it, null clears it, one that is not given stays.

    `requested_by` says who changes it; who asked for the timer stays.
    """

    tenant_id: str | None = None
    requested_by: Name | None = None
    name: Name | UnsetType | None = UNSET
    duration: str | int | float | UnsetType | None = UNSET
    fire_at: str | UnsetType | None = UNSET
    schedule: msgspec.Raw | UnsetType = UNSET
    cron: str | UnsetType | None = UNSET
    every: str | int | float | UnsetType | None = UNSET
    timezone: str | UnsetType | None = UNSET
    metadata: msgspec.Raw | UnsetType = UNSET
    labels: Annotated[dict[LabelKey, Label], msgspec.Meta(max_length=LABELS)] | UnsetType | None = UNSET
    action_bundle: msgspec.Raw | UnsetType = UNSET
    agent_binding: msgspec.Raw | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class TimerUpdate:
    """A change that keeps the rules.

    `fields` are the new values by column (name, metadata, labels, action_bundle, agent_binding), JSON as text; None
    clears. `moved` says when it is to fire from now on; with `is_once` a recurring timer becomes one that fires once.
    """

    fields: dict[str, str | None]
    moved: Moved | None = None
    is_once: bool = False
    requested_by: str | None = None


def admit_update(request: UpdateRequest) -> TimerUpdate:
    """Apply the rules of a new timer to what is given; raises InvalidTimer with every field that breaks one."""
    findings: list[Finding] = []
    fields: dict[str, str | None] = {}
    if not isinstance(request.name, UnsetType):
        fields["name"] = request.name
    if not isinstance(request.labels, UnsetType):
        fields["labels"] = msgspec.json.encode(request.labels or {}).decode()
    for column in ("metadata", "action_bundle", "agent_binding"):
        raw = getattr(request, column)
        if raw is not UNSET:
            fields[column] = json_text(raw)
    findings += check_bodies(fields.get("metadata"), fields.get("action_bundle"), fields.get("agent_binding"))
    moved = _read_moved(request, findings)
    if findings:
        raise InvalidTimer(findings)
    is_once = request.schedule is not UNSET and is_nothing(request.schedule)
    return TimerUpdate(fields, moved, is_once, request.requested_by)


def _read_moved(request: UpdateRequest, findings: list[Finding]) -> Moved | None:
    """None when nothing is said of it. An instant can only be replaced: a timer has one, or a schedule."""
    if given(request) or not is_nothing(request.timezone):
        return read_moment(request, findings)
    for field, wire in (("duration", "duration"), ("fire_at", "fireAt")):
        if getattr(request, field) is not UNSET:
            findings.append(Finding(f"/{wire}", f"{wire} cannot be taken away alone: say when the timer is to fire"))
    return None


def decide_update(kept: Kept, update: TimerUpdate) -> Change | None:
    """None when nothing is asked for. May take long; raises TimerStateConflict and InvalidTimer."""
    check_open(kept, "changed")
    if update.moved is not None:
        return replace(move(kept, update.moved, update.is_once), fields=update.fields)
    if update.is_once and kept.timing.schedule is not None:
        raise InvalidTimer.at("/schedule", "the schedule cannot be taken away alone: give duration or fireAt with it")
    return Change("rescheduled", fields=update.fields) if update.fields else None


def decide_put(kept: Kept, new: NewTimer) -> Change:
    """Everything is as it is given now; a schedule that is the same goes on. May take long."""
    fields = {
        "requested_by": new.requested_by,
        "labels": new.labels,
        "metadata": new.metadata,
        "action_bundle": new.action_bundle,
        "agent_binding": new.agent_binding,
    }
    moved = Moved(new.duration_ms, new.fire_at, new.schedule, new.schedule_pointer)
    return replace(move(kept, moved, is_once=True), fields=fields)


def says_the_same(shown: Timer, new: NewTimer) -> bool:
    """Whether the timer is already as it is put: then nothing has to change. A duration counts from now, always."""
    if new.duration_ms is not None:
        return False
    if new.schedule is not None:
        is_then = _value(shown.schedule) == _value(schedule_text(new.schedule))
    else:
        fires_once = shown.duration_ms is None and _value(shown.schedule) is None
        is_then = fires_once and new.fire_at is not None and shown.fire_at == format_instant(new.fire_at)
    return (
        is_then
        and shown.requested_by == new.requested_by
        and shown.labels == _value(new.labels)
        and _value(shown.metadata) == _value(new.metadata)
        and _value(shown.action_bundle) == _value(new.action_bundle)
        and _value(shown.agent_binding) == _value(new.agent_binding)
    )


def _value(text: msgspec.Raw | str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
