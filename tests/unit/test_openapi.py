"""The document says what the application has, and the structs that it is made of."""

import re
from typing import Any

import msgspec
import pytest

from minoots.access.keyring import load_keyring
from minoots.access.keys import load_keys
from minoots.domain.schedule.read import _FIELDS as SCHEDULE_FIELDS
from minoots.domain.schedule.specs import SPEC_FIELDS
from minoots.domain.timer import Timer, TimerRequest, admit
from minoots.domain.update import UpdateRequest, admit_update
from minoots.domain.verbs import PreviewRequest, RescheduleRequest, ResumeRequest, admit_preview, admit_reschedule
from minoots.rest.app import create_app
from minoots.rest.docs import render_page
from minoots.rest.examples import (
    FIRED,
    NEW_TIMERS,
    PAUSED,
    PREVIEWS,
    PUTS,
    RECURRING,
    RESCHEDULES,
    TIMER,
    UPDATES,
)
from minoots.rest.openapi import build_document
from minoots.rest.schedule_shapes import WORDS, Schedule, Spec
from minoots.wiring import further_routes


class Ready:
    async def problems(self) -> list[str]:
        return []


def test_the_document_lists_exactly_the_calls_that_there_are() -> None:
    keys = load_keys("development", None, None)
    further = further_routes(None, load_keyring("development", None), keys)  # type: ignore[arg-type] # nothing is called
    app = create_app(None, None, keys, Ready(), further=further)  # type: ignore[arg-type]
    served = {
        (re.sub(r":\w+}", "}", route.path), method.lower())
        for route in app.routes
        for method in route.methods  # type: ignore[union-attr]
        if method not in {"OPTIONS", "HEAD"}
    }
    assert served == {(path, method) for path, item in build_document()["paths"].items() for method in item}


def test_every_reference_leads_somewhere() -> None:
    document = build_document()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found = document
                for step in node["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(document)


def test_requests_and_answers_have_the_fields_of_their_structs() -> None:
    schemas = build_document()["components"]["schemas"]
    for kind in (TimerRequest, UpdateRequest, RescheduleRequest, ResumeRequest, PreviewRequest, Timer):
        wire = [field.encode_name for field in msgspec.structs.fields(kind)]
        assert list(schemas[kind.__name__]["properties"]) == wire
    assert schemas["Timer"]["required"] == [field.encode_name for field in msgspec.structs.fields(Timer)]


def test_the_examples_are_admitted() -> None:
    for example in NEW_TIMERS.values():
        admit(msgspec.json.decode(msgspec.json.encode(example["value"]), type=TimerRequest))
    for timer in (TIMER, PAUSED, FIRED, RECURRING):
        msgspec.json.decode(msgspec.json.encode(timer), type=Timer)


@pytest.mark.parametrize(
    ("shown", "kind", "admitted"),
    [
        (PUTS, TimerRequest, admit),
        (UPDATES, UpdateRequest, admit_update),
        (RESCHEDULES, RescheduleRequest, admit_reschedule),
        (PREVIEWS, PreviewRequest, admit_preview),
    ],
)
def test_the_examples_of_changes_are_admitted(shown: Any, kind: type, admitted: Any) -> None:
    for example in shown.values():
        admitted(msgspec.json.decode(msgspec.json.encode(example["value"]), type=kind))


def test_the_shape_of_a_schedule_is_the_one_that_is_read() -> None:
    fields = [field.encode_name for field in msgspec.structs.fields(Schedule)]
    assert sorted(fields) == sorted({*SCHEDULE_FIELDS, *SPEC_FIELDS})
    assert [field.encode_name for field in msgspec.structs.fields(Spec)] == list(SPEC_FIELDS)
    assert list(WORDS) == fields


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render_page(build_document(), "http://timers.example:4000")
    assert "<script" not in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert "curl -X POST http://timers.example:4000/timers" in page
