"""A timer: as it is asked for, as the rules leave it, and as every door shows it."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from minoots.domain.action import check_action_bundle, check_agent_binding, check_agents_are_bound
from minoots.domain.json_text import nesting
from minoots.domain.limits import (
    JSON_DEPTH,
    LABEL_KEY_CHARACTERS,
    LABEL_VALUE_CHARACTERS,
    LABELS,
    METADATA_BYTES,
    NAME_CHARACTERS,
)
from minoots.domain.moment import NOTHING, read_moment
from minoots.domain.schedule import Schedule
from minoots.errors import Finding, InvalidTimer

# W3C Trace Context, section 3.2: version ff and ids of nothing but zeros are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS)]
Label = Annotated[str, msgspec.Meta(max_length=LABEL_VALUE_CHARACTERS)]
LabelKey = Annotated[str, msgspec.Meta(min_length=1, max_length=LABEL_KEY_CHARACTERS)]


class TimerRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a door takes for a new timer; one of `duration`, `fireAt`, `schedule`, and its short forms `cron`, `every`.

    `metadata`, `action_bundle` and `agent_binding` are kept as the bytes that came, so that nothing is re-spelt.
    """

    tenant_id: str | None = None
    requested_by: Name | None = None
    name: Name | None = None
    duration: str | int | float | None = None
    fire_at: str | None = None
    schedule: msgspec.Raw = NOTHING
    cron: str | None = None
    every: str | int | float | None = None
    timezone: str | None = None
    metadata: msgspec.Raw = NOTHING
    labels: Annotated[dict[LabelKey, Label], msgspec.Meta(max_length=LABELS)] | None = None
    action_bundle: msgspec.Raw = NOTHING
    agent_binding: msgspec.Raw = NOTHING


@dataclass(frozen=True, slots=True)
class NewTimer:
    """A request that keeps the rules. Exactly one of `duration_ms`, `fire_at` and `schedule` is set.

    JSON fields are JSON text. `schedule_pointer` says where in the request the schedule stood.
    """

    requested_by: str
    name: str | None
    duration_ms: int | None
    fire_at: datetime | None
    metadata: str | None
    labels: str
    action_bundle: str | None
    agent_binding: str | None
    traceparent: str | None = None
    schedule: Schedule | None = None
    schedule_pointer: str = "/schedule"


class Timer(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A timer as it is shown: decoded from what `minoots.timer_text` writes, the one place of its shape."""

    id: UUID
    tenant_id: str
    name: str | None
    requested_by: str
    status: str
    duration_ms: int | None
    created_at: str
    fire_at: str | None
    fired_at: str | None
    settled_at: str | None
    cancelled_at: str | None
    cancel_reason: str | None
    cancelled_by: str | None
    failure_reason: str | None
    metadata: msgspec.Raw
    labels: dict[str, str]
    action_bundle: msgspec.Raw
    agent_binding: msgspec.Raw
    schedule: msgspec.Raw
    occurrence: int
    missed: int
    version: int


def admit(request: TimerRequest, traceparent: str | None = None, known: set[str] | None = None) -> NewTimer:
    """Apply the rules of a new timer; raises InvalidTimer with every field that breaks one.

    Bundles and bindings that keep theirs are noted in `known`, and not looked at again when they are there already.
    """
    findings: list[Finding] = []
    if request.requested_by is None:
        findings.append(Finding("/requestedBy", "requestedBy is required: say who asks for the timer"))
    moved = read_moment(request, findings)
    metadata = json_text(request.metadata)
    bundle, binding = json_text(request.action_bundle), json_text(request.agent_binding)
    findings += check_bodies(metadata, bundle, binding, known)
    if not findings and binding is None and bundle is not None:
        findings += check_agents_are_bound(bundle)
    if moved is None or findings:
        raise InvalidTimer(findings)
    return NewTimer(
        requested_by=request.requested_by or "",
        name=request.name,
        duration_ms=moved.duration_ms,
        fire_at=moved.fire_at,
        metadata=metadata,
        labels=msgspec.json.encode(request.labels).decode() if request.labels else "{}",
        action_bundle=bundle,
        agent_binding=binding,
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
        schedule=moved.schedule,
        schedule_pointer=moved.pointer,
    )


def check_bodies(
    metadata: str | None, bundle: str | None, binding: str | None, known: set[str] | None = None
) -> list[Finding]:
    """What is wrong with the parts that are JSON of their own; None is right."""
    findings = [] if metadata is None else _check_metadata(metadata)
    for text, check, pointer in (
        (bundle, check_action_bundle, "/actionBundle"),
        (binding, check_agent_binding, "/agentBinding"),
    ):
        if text is None or (known is not None and pointer + text in known):
            continue
        try:
            _check_depth(text, pointer)
            check(text.encode())
        except InvalidTimer as refused:
            findings += refused.findings
        else:
            if known is not None:
                known.add(pointer + text)
    return findings


def _check_metadata(text: str) -> list[Finding]:
    if text[:1] != "{":
        return [Finding("/metadata", "metadata is a JSON object")]
    if len(text.encode()) > METADATA_BYTES:
        return [Finding("/metadata", f"metadata is at most {METADATA_BYTES // 1024} KiB")]
    try:
        _check_depth(text, "/metadata")
    except InvalidTimer as refused:
        return list(refused.findings)
    return []


def _check_depth(text: str, pointer: str) -> None:
    if text.count("{") + text.count("[") > JSON_DEPTH and nesting(text.encode()) > JSON_DEPTH:
        raise InvalidTimer.at(pointer, f"the JSON is nested deeper than {JSON_DEPTH} levels")


def json_text(raw: msgspec.Raw) -> str | None:
    """The JSON as it came; None for null."""
    if raw is NOTHING:
        return None
    text = bytes(raw).strip().decode()
    return None if text in ("", "null") else text
