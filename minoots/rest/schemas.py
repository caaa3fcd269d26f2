"""JSON Schemas of bodies and answers, made from the structs that decode and encode them."""

from typing import Any, cast

import msgspec

from minoots.domain.ack import AckOutcome, AckRequest
from minoots.domain.action import ActionBundle, AgentBinding, Webhook
from minoots.domain.agent import AgentParameters
from minoots.domain.command import CommandParameters
from minoots.domain.dead_letter import DeadLetter, Redriven, RedriveRequest
from minoots.domain.firing import Delivery, Firing
from minoots.domain.lane import Lane, LimitsRequest
from minoots.domain.limits import BATCH_TIMERS, METADATA_BYTES, TENANT
from minoots.domain.signing import NewSigningSecret, SecretRequest, SigningSecret
from minoots.domain.timer import Name, Timer, TimerRequest
from minoots.domain.update import UpdateRequest
from minoots.domain.verbs import PreviewRequest, RescheduleRequest, ResumeRequest, StepRequest
from minoots.domain.workflow import WorkflowEvent
from minoots.rest.batch import BatchRequest
from minoots.rest.problems import Problem
from minoots.rest.schedule_shapes import WORDS, Schedule
from minoots.rest.schedules import ScheduledInstant
from minoots.rest.timers import STATUSES, CancelRequest

Schema = dict[str, Any]

# An empty one counts as none.
TENANT_SCHEMA: Schema = {"type": "string", "pattern": f"^({TENANT})?$"}

_REF = "#/components/schemas/{name}"
_INSTANTS = {
    "Timer": ("createdAt", "fireAt", "firedAt", "settledAt", "cancelledAt"),
    "Firing": ("nominalAt", "dueAt", "firedAt", "settledAt"),
    "Delivery": ("nextAttemptAt", "deliveredAt", "deadAt"),
    "Attempt": ("startedAt",),
    "Acknowledgement": ("at",),
    "DeadLetter": ("deadAt",),
    "RedriveFilter": ("since", "until"),
    "ScheduledInstant": ("at", "local"),
    "Lane": ("openedAt", "nextProbeAt"),
    "SigningSecret": ("createdAt", "expiresAt"),
    "NewSigningSecret": ("createdAt", "expiresAt"),
}
_DURATION = (
    'When to fire, from now by the database\'s clock: "30s", "1h30m", "PT30S", or milliseconds. '
    "Give one of duration, fireAt, schedule, cron and every."
)
_MOMENT: dict[str, Schema] = {
    "duration": {"description": _DURATION, "examples": ["30s", "1h30m", "PT30S", 30000]},
    "fireAt": {"description": "When to fire: an RFC 3339 instant; up to a minute past fires at once."},
    "schedule": {"description": "When to fire, again and again."},
    "cron": {"description": "A schedule in short.", "examples": ["0 9 * * 1-5", "@daily"]},
    "every": {"description": "A schedule in short.", "examples": ["15m", "1h30m", 30000]},
    "timezone": {"description": "The zone of cron, as Europe/Berlin; UTC unless given."},
}
_CHANGES = ("UpdateRequest", "StepRequest", "ResumeRequest", "RescheduleRequest")
_ACK_WORDS = {
    "outcome": "done; failed: the retry policy goes on; or working: it needs more time, and done comes later.",
    "note": "For people to read.",
    "result": "What came of it: any JSON of up to 16 KiB.",
    "extendMs": "With working: how much time is needed from now on; without it as much as there was at first.",
}
_SECRET_WORDS = {
    "destination": "The origin whose webhooks it signs, as https://example.com; all of the tenant without it.",
    "secret": "whsec_ and the base64 of 24 to 64 bytes; made by the server without it.",
    "requestedBy": "Who asks for it.",
    "overlap": "How long what signed there before signs too, as a duration; 24h unless given.",
}
_JSON_FIELDS: dict[str, Any] = {
    "metadata": dict[str, Any] | None,
    "action_bundle": ActionBundle | None,
    "agent_binding": AgentBinding | None,
    "schedule": Schedule | None,
}


_Acknowledgement = msgspec.defstruct(
    "Acknowledgement", [("outcome", AckOutcome), ("note", str | None), ("result", Any), ("at", str)]
)
_Acknowledgement.__doc__ = "What the receiver said last of its work."


def component_schemas() -> dict[str, Schema]:
    """Every named schema of the document."""
    request = _spelt_out(TimerRequest, "TimerRequest", requested_by=Name, **_JSON_FIELDS)
    item = _spelt_out(TimerRequest, "BatchItem", **_JSON_FIELDS)
    timer = _spelt_out(Timer, "Timer", **_JSON_FIELDS)
    delivery = _spelt_out(Delivery, "Delivery", ack=_Acknowledgement | None)
    firing = _spelt_out(Firing, "Firing", deliveries=list[delivery] | msgspec.UnsetType)  # type: ignore[valid-type]
    batch = _spelt_out(BatchRequest, "BatchRequest", items=list[item])  # type: ignore[valid-type]
    changes = [
        _spelt_out(kind, kind.__name__, **_JSON_FIELDS)
        for kind in (UpdateRequest, StepRequest, ResumeRequest, RescheduleRequest, PreviewRequest)
    ]
    acknowledgement = _spelt_out(AckRequest, "AckRequest", result=Any)
    further = [acknowledgement, SecretRequest, SigningSecret, NewSigningSecret, DeadLetter, RedriveRequest, Redriven]
    further += [Lane, LimitsRequest, AgentParameters, CommandParameters, WorkflowEvent]
    shown = [request, item, timer, firing, batch, CancelRequest, *changes, ScheduledInstant, Problem, Webhook, *further]
    _, schemas = msgspec.json.schema_components(shown, ref_template=_REF)
    found = cast("dict[str, Schema]", schemas)
    _describe_requests(found)
    _describe_answers(found)
    found["TimerPage"] = _page("Timer", "newest first")
    found["FiringPage"] = _page("Firing", "the latest first")
    found["LanePage"] = _page("Lane", "by name")
    found["DeadLetterPage"] = _page("DeadLetter", "the newest first")
    found["SigningSecretPage"] = _page("SigningSecret", "newest first")
    found["Preview"] = _object({"items": {"type": "array", "items": _ref("ScheduledInstant")}})
    found["TimerBatch"] = _object({"items": {"type": "array", "items": _ref("Timer")}})
    found["Status"] = _object({"status": {"type": "string"}})
    return found


def _spelt_out(kind: type[msgspec.Struct], name: str, **types: Any) -> type[msgspec.Struct]:
    """The struct with types in the place of raw JSON; all else follows by itself.

    What a request may leave out is null then. An answer leaves nothing out but what is UNSET.
    """
    strict = kind.__struct_config__.forbid_unknown_fields
    fields: list[Any] = []
    for field in msgspec.structs.fields(kind):
        shape = types.get(field.name, field.type)
        default = (None,) if strict else (msgspec.UNSET,) if field.default is msgspec.UNSET else ()
        is_required = field.required or shape is Name
        fields.append((field.name, shape, *(() if is_required else default)))
    made = msgspec.defstruct(name, fields, rename="camel", kw_only=True, forbid_unknown_fields=strict)
    made.__doc__ = kind.__doc__
    return made


def _describe_requests(schemas: dict[str, Schema]) -> None:
    tenant = {"description": "Whose it is; may stand in a header or parameter instead."}
    for name in (
        "TimerRequest",
        "BatchItem",
        "BatchRequest",
        "CancelRequest",
        "AckRequest",
        "SecretRequest",
        "RedriveRequest",
        "LimitsRequest",
        *_CHANGES,
    ):
        schemas[name]["properties"]["tenantId"] = tenant | {"anyOf": [TENANT_SCHEMA, {"type": "null"}]}
    for name in ("RescheduleRequest", "PreviewRequest", "UpdateRequest", "TimerRequest", "BatchItem"):
        _describe_moment(schemas[name]["properties"])
    for name in ("Schedule", "Spec"):
        for field, schema in schemas[name]["properties"].items():
            schema["description"] = WORDS[field]
    for name in ("UpdateRequest", "TimerRequest", "BatchItem"):
        properties = schemas[name]["properties"]
        properties["requestedBy"]["description"] = "Who asks for it."
        properties["metadata"]["description"] = f"Any JSON object of yours; at most {METADATA_BYTES // 1024} KiB."
        properties["labels"]["description"] = "Texts to find it by."
    for field, text in _ACK_WORDS.items():
        schemas["AckRequest"]["properties"][field]["description"] = text
    for field, text in _SECRET_WORDS.items():
        schemas["SecretRequest"]["properties"][field]["description"] = text
    schemas["BatchRequest"]["properties"]["items"] |= {"minItems": 1, "maxItems": BATCH_TIMERS}
    schemas["Action"]["properties"]["parameters"]["description"] = (
        "As the kind takes them: Webhook, AgentParameters, CommandParameters, WorkflowEvent, or as an extension says."
    )
    binding = schemas["AgentBinding"]["properties"]
    binding["target"]["description"] = "https://host/mcp#tool, https://host#assistant, https://host/path, nats:subject."
    binding["payloadTemplate"]["description"] = "Any JSON; in its texts {{timer.name}} and the like are filled in."
    for name, text in (
        ("TimerRequest", "A new timer."),
        ("BatchItem", "A new timer. Without requestedBy it has that of the batch."),
        ("StepRequest", "Who asks for it; all of it may be left out."),
        ("UpdateRequest", "A field that is given replaces the whole of it, null clears it, what is not given stays."),
        ("BatchRequest", "Many new timers: all are created, or none."),
        ("SecretRequest", "A new signing secret; the one that it comes after ends when the overlap is over."),
        ("AgentParameters", "Parameters of an agent_prompt; without adapter and target the agentBinding says where."),
        ("CommandParameters", "Parameters of a command action: a command that the operator allows, and its arguments."),
        ("WorkflowEvent", "Parameters of a workflow_event action, which becomes a CloudEvent of this name."),
        ("Webhook", "Parameters of a webhook action. Without a body the receiver gets {timer, event}."),
    ):
        schemas[name]["description"] = text


def _describe_moment(properties: dict[str, Schema]) -> None:
    for field, described in _MOMENT.items():
        if field in properties:
            properties[field] |= described


def _describe_answers(schemas: dict[str, Schema]) -> None:
    for name, fields in _INSTANTS.items():
        for field in fields:
            _mark_instant(schemas[name]["properties"][field])
    schemas["Timer"]["properties"]["status"]["enum"] = list(STATUSES)
    schemas["Firing"]["properties"]["status"]["enum"] = ["dispatching", "settled", "failed"]
    schemas["Delivery"]["properties"]["status"]["enum"] = [
        "pending",
        "awaiting",
        "overdue",
        "delivered",
        "confirmed",
        "dead",
    ]
    schemas["Timer"]["description"] = "A timer as it is now. Every field is there, null when it has no value."
    schemas["Firing"]["description"] = "One coming-due of a timer. Lists leave deliveries out."


def _mark_instant(schema: Schema) -> None:
    """Instants are text as the database writes it."""
    schema.get("anyOf", [schema])[0]["format"] = "date-time"


def _page(name: str, order: str) -> Schema:
    items = {"type": "array", "items": _ref(name), "description": f"Up to `limit`, {order}."}
    cursor = {"type": ["string", "null"], "description": "Pass it as `cursor` for what follows; null at the end."}
    return _object({"items": items, "nextCursor": cursor})


def _object(properties: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(name=name)}
