"""The part of the OpenAPI document about changing timers and about schedules."""

from minoots.domain.limits import NAME_CHARACTERS
from minoots.rest import examples
from minoots.rest.openapi_parts import TIMER_ID, WITH_BODY, Document, answers, body, call, parameter, tenant

_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The name, percent-encoded; the body may leave it out.",
    "schema": {"type": "string", "minLength": 1, "maxLength": NAME_CHARACTERS},
}


def change_paths() -> Document:
    """Every step that a request can make with a timer that waits."""
    steps = {
        "pause": ("pauseTimer", "Let a timer wait", "StepRequest", examples.STEPS, examples.PAUSED),
        "resume": ("resumeTimer", "Let a paused timer go on", "ResumeRequest", examples.RESUMES, examples.TIMER),
        "reschedule": (
            "rescheduleTimer",
            "Give a timer another instant or schedule",
            "RescheduleRequest",
            examples.RESCHEDULES,
            examples.RECURRING,
        ),
        "fire": ("fireTimer", "Fire a timer now", "StepRequest", examples.STEPS, examples.FIRED),
    }
    paths: Document = {}
    for step, (name, summary, schema, shown, answer) in steps.items():
        made = call(name, summary, "timers", [TIMER_ID, *tenant()])
        made["requestBody"] = body(schema, shown, is_required=step == "reschedule")
        made["responses"] = answers(200, "Timer", answer, 404, 409, *WITH_BODY, headers=("ETag",))
        paths[f"/timers/{{timer_id}}/{step}"] = {"post": made}
    paths["/timers/by-name/{name}"] = {"put": _put_call()}
    return paths


def update_call() -> Document:
    """PATCH of a timer."""
    made = call("updateTimer", "Change a timer in place", "timers", [TIMER_ID, *tenant(), parameter("IfMatch")])
    made["requestBody"] = body("UpdateRequest", examples.UPDATES)
    made["responses"] = answers(200, "Timer", examples.RECURRING, 404, 409, 412, *WITH_BODY, headers=("ETag",))
    return made


def _put_call() -> Document:
    made = call("putTimer", "Create or replace a timer by its name", "timers", [_NAME, *tenant(), parameter("IfMatch")])
    made["requestBody"] = body("TimerRequest", examples.PUTS)
    created = answers(201, "Timer", examples.RECURRING, headers=("ETag", "Location"))
    replaced = answers(200, "Timer", examples.RECURRING, 412, *WITH_BODY, headers=("ETag",))
    replaced["200"]["description"] = "Replaced."
    made["responses"] = created | replaced
    return made


def schedule_paths() -> Document:
    """What a schedule comes to."""
    made = call("previewSchedule", "Show the next instants of a schedule", "schedules", [])
    made["requestBody"] = body("PreviewRequest", examples.PREVIEWS)
    made["responses"] = answers(200, "Preview", examples.PREVIEW, *WITH_BODY)
    return {"/schedules/preview": {"post": made}}
