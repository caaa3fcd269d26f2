"""A timer: as it is asked for, as the rules leave it, and as every door shows it."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from minoots.domain.action import check_action_bundle, check_agent_binding
from minoots.domain.duration import parse_duration, parse_instant
from minoots.domain.json_text import nesting
from minoots.domain.limits import (
    JSON_DEPTH,
    LABEL_KEY_CHARACTERS,
    LABEL_VALUE_CHARACTERS,
    LABELS,
    METADATA_BYTES,
    NAME_CHARACTERS,
)
from minoots.errors import Finding, InvalidTimer

# W3C Trace Context, section 3.2: version ff and ids of nothing but zeros are invalid.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NOTHING = msgspec.Raw(b"null")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_CHARACTERS)]
Label = Annotated[str, msgspec.Meta(max_length=LABEL_VALUE_CHARACTERS)]
LabelKey = Annotated[str, msgspec.Meta(min_length=1, max_length=LABEL_KEY_CHARACTERS)]


class TimerRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a door takes for a new timer; one of `duration` and `fireAt`.

    `metadata`, `action_bundle` and `agent_binding` are kept as the bytes that came, so that nothing is re-spelt.
    """

    tenant_id: str | None = None
    requested_by: Name | None = None
    name: Name | None = None
    duration: str | int | float | None = None
    fire_at: str | None = None
    schedule: Any = None
    metadata: msgspec.Raw = _NOTHING
    labels: Annotated[dict[LabelKey, Label], msgspec.Meta(max_length=LABELS)] | None = None
    action_bundle: msgspec.Raw = _NOTHING
    agent_binding: msgspec.Raw = _NOTHING


@dataclass(frozen=True, slots=True)
class NewTimer:
    """A request that keeps the rules. Exactly one of `duration_ms` and `fire_at` is set; JSON fields are JSON text."""

    requested_by: str
    name: str | None
    duration_ms: int | None
    fire_at: datetime | None
    metadata: str | None
    labels: str
    action_bundle: str | None
    agent_binding: str | None
    traceparent: str | None = None


class Timer(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A timer as it is shown: decoded from what `minoots.timer_json` writes, the one place of its shape."""

    id: UUID
    tenant_id: str
    name: str | None
    requested_by: str
    status: str
    duration_ms: int | None
    created_at: str
    fire_at: str
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
    version: int


def admit(request: TimerRequest, traceparent: str | None = None) -> NewTimer:
    """Apply the rules of a new timer; raises InvalidTimer with every field that breaks one."""
    findings: list[Finding] = []
    if request.requested_by is None:
        findings.append(Finding("/requestedBy", "requestedBy is required: say who asks for the timer"))
    if request.schedule is not None:
        findings.append(Finding("/schedule", "this version has no recurring schedules; give duration or fireAt"))
    duration_ms, fire_at = _instant(request, findings)
    metadata = _text(request.metadata)
    if metadata is not None:
        findings += _check_metadata(metadata)
    bundle, binding = _text(request.action_bundle), _text(request.agent_binding)
    for text, check, pointer in (
        (bundle, check_action_bundle, "/actionBundle"),
        (binding, check_agent_binding, "/agentBinding"),
    ):
        if text is not None:
            try:
                _check_depth(text, pointer)
                check(text.encode())
            except InvalidTimer as refused:
                findings += refused.findings
    if findings:
        raise InvalidTimer(findings)
    return NewTimer(
        requested_by=request.requested_by or "",
        name=request.name,
        duration_ms=duration_ms,
        fire_at=fire_at,
        metadata=metadata,
        labels=msgspec.json.encode(request.labels).decode() if request.labels else "{}",
        action_bundle=bundle,
        agent_binding=binding,
        traceparent=traceparent if traceparent and _TRACEPARENT.fullmatch(traceparent) else None,
    )


def _instant(request: TimerRequest, findings: list[Finding]) -> tuple[int | None, datetime | None]:
    """The duration or the instant; whether an instant is past only the database's clock can say."""
    if request.schedule is not None:
        return None, None
    if (request.duration is None) == (request.fire_at is None):
        findings.append(Finding("/duration", 'give either duration ("30s") or fireAt ("2030-01-31T09:00:00Z")'))
        return None, None
    try:
        if request.duration is not None:
            return parse_duration(request.duration), None
        instant = parse_instant(request.fire_at or "")
        if instant.year >= 9000:
            raise ValueError("a timer must fire before the year 9000")
        return None, instant
    except ValueError as wrong:
        findings.append(Finding("/duration" if request.duration is not None else "/fireAt", str(wrong)))
        return None, None


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


def _text(raw: msgspec.Raw) -> str | None:
    text = bytes(raw).strip().decode()
    return None if text in ("", "null") else text
