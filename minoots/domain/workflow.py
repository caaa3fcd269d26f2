"""Workflow events: what an action may say of one, and the CloudEvent that it becomes."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from minoots.domain.json_text import describe_mismatch
from minoots.domain.template import check_template
from minoots.errors import Finding

NAME_CHARACTERS: Final = 128
# Words joined by dots, each a token of a NATS subject; as the schema's is_workflow_event has it.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9][A-Za-z0-9_-]*)*")


class WorkflowEvent(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Parameters of a `workflow_event` action. `payload` goes out as it is, `payload_template` is rendered first.

    With `endpoint` the event is POSTed there, wherever this installation's events go otherwise.
    """

    name: str
    payload: Any = None
    payload_template: Any = None
    endpoint: str | None = None


def check_workflow_event(
    parameters: Mapping[str, Any], pointer: str, check_url: Callable[[str], list[str]]
) -> list[Finding]:
    """What is wrong with the parameters, with places below `pointer`; `check_url` is that of a webhook."""
    try:
        asked = msgspec.convert(parameters, WorkflowEvent)
    except msgspec.ValidationError as mismatch:
        found = describe_mismatch(str(mismatch))
        return [Finding(pointer + found.pointer, found.detail)]
    findings: list[Finding] = []
    if len(asked.name) > NAME_CHARACTERS or not _NAME.fullmatch(asked.name):
        findings.append(
            Finding(
                f"{pointer}/name",
                f"a workflow event's name is words of letters, digits, _ and - joined by dots, as order.overdue; "
                f"each begins with a letter or digit, and there are at most {NAME_CHARACTERS} characters",
            )
        )
    if asked.payload is not None and asked.payload_template is not None:
        findings.append(Finding(f"{pointer}/payloadTemplate", "give payload or payloadTemplate, not both"))
    if asked.payload_template is not None:
        findings += check_template(asked.payload_template, f"{pointer}/payloadTemplate")
    if asked.endpoint is not None:
        findings += [Finding(f"{pointer}/endpoint", detail) for detail in check_url(asked.endpoint)]
    return findings


class Fired(msgspec.Struct):
    """What a webhook would be sent: the timer, and `timer.fired` with its firing. Parts stay the text that they are."""

    timer: msgspec.Raw
    event: "FiredEvent"


class FiredEvent(msgspec.Struct):
    """The event's instant and its firing."""

    time: msgspec.Raw = msgspec.Raw(b"null")
    data: dict[str, msgspec.Raw] = {}


def cloud_event(
    event_id: str, tenant_id: str, timer_id: str, name: str, fired: Fired, payload: bytes, traceparent: str | None
) -> bytes:
    """The event as bytes: CloudEvents 1.0, structured JSON. The same in every attempt.

    Its type is the name as the user chose it, for that is what consumers choose by; `payload` is JSON.
    """
    time = {} if fired.event.time == b"null" else {"time": fired.event.time}
    return msgspec.json.encode(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": f"/minoots/tenants/{tenant_id}",
            "type": name,
            "subject": timer_id,
            **time,
            "datacontenttype": "application/json",
            **({"traceparent": traceparent} if traceparent else {}),
            "data": {
                "timer": fired.timer,
                "firing": fired.event.data.get("firing", msgspec.Raw(b"null")),
                "payload": msgspec.Raw(payload),
            },
        }
    )
