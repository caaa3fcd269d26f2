"""The rules of a new timer, before any database is asked."""

import json
from typing import Any

import msgspec
import pytest

from minoots.domain.json_text import read_json
from minoots.domain.limits import METADATA_BYTES
from minoots.domain.timer import NewTimer, Timer, TimerRequest, admit
from minoots.errors import Finding, InvalidTimer

# design.md, section 3: "Timer JSON".
TIMER_FIELDS = (
    "id tenantId name requestedBy status durationMs createdAt fireAt firedAt settledAt cancelledAt cancelReason "
    "cancelledBy failureReason metadata labels actionBundle agentBinding schedule occurrence missed version"
)


def ask(**fields: Any) -> NewTimer:
    """Admit a request as REST reads it; `None` leaves a field out."""
    asked = {"requestedBy": "ann", "duration": "30s"} | fields
    body = json.dumps({name: value for name, value in asked.items() if value is not None})
    return admit(read_json(body.encode(), TimerRequest))


def findings(**fields: Any) -> list[Finding]:
    with pytest.raises(InvalidTimer) as refused:
        ask(**fields)
    return list(refused.value.findings)


def nested(deep: int) -> Any:
    value: Any = 1
    for _ in range(deep):
        value = {"a": value}
    return value


def test_the_least_timer_is_admitted() -> None:
    new = ask()
    assert new == NewTimer("ann", None, 30_000, None, None, "{}", None, None, None)


def test_everything_a_timer_may_have_is_kept_as_it_came() -> None:
    body = (
        b'{"requestedBy":"ann","name":"tea","fireAt":"2030-01-31T09:00:00+01:00","metadata": {"a" : 1.50, "b":1e5},'
        b'"labels":{"k":"v"},"actionBundle":{"actions":[ ]},"agentBinding":{"adapter":"mcp","target":"http://h"}}'
    )
    new = admit(read_json(body, TimerRequest))
    assert new.metadata == '{"a" : 1.50, "b":1e5}'
    assert new.action_bundle == '{"actions":[ ]}'
    assert new.agent_binding == '{"adapter":"mcp","target":"http://h"}'
    assert new.labels == '{"k":"v"}'
    assert (new.name, new.duration_ms) == ("tea", None)
    assert new.fire_at is not None
    assert new.fire_at.isoformat() == "2030-01-31T08:00:00+00:00"


@pytest.mark.parametrize("field", ["metadata", "labels", "actionBundle", "agentBinding", "name", "schedule"])
def test_null_is_the_same_as_nothing(field: str) -> None:
    assert admit(read_json(f'{{"requestedBy":"ann","duration":1000,"{field}": null }}'.encode(), TimerRequest)) == ask(
        duration="1s"
    )


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"requestedBy": None}, "/requestedBy", "who asks"),
        ({"duration": None}, "/duration", "either duration"),
        ({"fireAt": "2030-01-31T09:00:00Z"}, "/duration", "either duration"),
        ({"duration": "soon"}, "/duration", "written as"),
        ({"duration": 0}, "/duration", "longer than 0"),
        ({"duration": 1.5}, "/duration", "whole number"),
        ({"duration": None, "fireAt": "tomorrow"}, "/fireAt", "written with its offset"),
        ({"duration": None, "fireAt": "9000-01-01T00:00:00Z"}, "/fireAt", "year 9000"),
        ({"schedule": {"cron": "* * * * *"}}, "/duration", "this has duration and schedule"),
        ({"duration": None, "cron": "@daily", "every": "5m"}, "/cron", "this has cron and every"),
        ({"duration": None, "schedule": {"cron": "61 * * * *"}}, "/schedule/cron", "61"),
        ({"duration": None, "schedule": {"specs": [{"every": "1s"}, {}]}}, "/schedule/specs/1", "exactly one of"),
        ({"duration": None, "schedule": {"every": "1s", "jiter": 1}}, "/schedule/jiter", "jiter"),
        ({"duration": None, "cron": "61 * * * *"}, "/cron", "61"),
        ({"duration": None, "every": "soon"}, "/every", "written as"),
        ({"duration": None, "cron": "@daily", "timezone": "Europe/Berln"}, "/timezone", "Europe/Berln"),
        ({"timezone": "Europe/Berlin"}, "/timezone", "goes with cron"),
        ({"metadata": [1]}, "/metadata", "JSON object"),
        ({"metadata": "text"}, "/metadata", "JSON object"),
        ({"metadata": {"a": "x" * METADATA_BYTES}}, "/metadata", "64 KiB"),
        ({"metadata": nested(33)}, "/metadata", "deeper than 32"),
        ({"actionBundle": {}}, "/actionBundle/actions", "required"),
        (
            {"actionBundle": {"actions": [{"id": "a", "kind": "command", "parameters": nested(30)}]}},
            "/actionBundle",
            "deeper",
        ),
        ({"agentBinding": {"adapter": "x", "target": "http://h"}}, "/agentBinding/adapter", "none of mcp, langchain"),
        (
            {"agentBinding": {"adapter": "mcp", "target": "http://h", "payloadTemplate": nested(32)}},
            "/agentBinding",
            "deeper",
        ),
    ],
)
def test_a_broken_rule_is_told_with_its_place(fields: dict[str, Any], pointer: str, words: str) -> None:
    (finding,) = findings(**fields)
    assert finding.pointer == pointer
    assert words in finding.detail


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "x" * 201}, "/name"),
        ({"name": 5}, "/name"),
        ({"requestedBy": ""}, "/requestedBy"),
        ({"requestedBy": "x" * 201}, "/requestedBy"),
        ({"labels": {"": "x"}}, "/labels"),
        ({"labels": {"k" * 64: "x"}}, "/labels"),
        ({"labels": {"k": "x" * 256}}, "/labels"),
        ({"labels": {"k": 1}}, "/labels"),
        ({"labels": {f"k{n}": "" for n in range(65)}}, "/labels"),
        ({"labels": ["a"]}, "/labels"),
        ({"durationMs": 5}, "/durationMs"),
        ({"duration": True}, "/duration"),
    ],
)
def test_what_the_types_refuse_points_at_the_field(fields: dict[str, Any], pointer: str) -> None:
    (finding,) = findings(**fields)
    assert finding.pointer == pointer
    assert finding.detail


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "x" * 200, "requestedBy": "é" * 200},
        {"labels": {f"{n:063}": "ü" * 255 for n in range(64)}},
        {"metadata": {"a": "x" * (METADATA_BYTES - 9)}},
        {"metadata": nested(32)},
        {"agentBinding": {"adapter": "mcp", "target": "http://h", "payloadTemplate": nested(31)}},
        {"duration": None, "fireAt": "8999-12-31T23:59:59.999999Z"},
    ],
)
def test_what_is_just_within_its_bound_is_admitted(fields: dict[str, Any]) -> None:
    ask(**fields)


def test_every_broken_rule_is_told_at_once() -> None:
    found = findings(requestedBy=None, duration="soon", metadata=[], actionBundle={}, agentBinding={})
    assert [finding.pointer for finding in found] == [
        "/requestedBy", "/duration", "/metadata", "/actionBundle/actions", "/agentBinding/adapter",
    ]  # fmt: skip


def test_findings_are_seen_from_further_out() -> None:
    refused = InvalidTimer.at("/duration", "too long").below("/items/3")
    assert [finding.pointer for finding in refused.findings] == ["/items/3/duration"]
    assert refused.detail == "too long"


def test_a_trace_context_that_is_none_is_left_out() -> None:
    request = TimerRequest(requested_by="ann", duration=1)
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert admit(request, good).traceparent == good
    for bad in ("", "00-xyz", good.upper(), good + "\n", good + "-00"):
        assert admit(request, bad).traceparent is None


def test_a_timer_is_shown_with_the_fields_of_the_design() -> None:
    assert [field.encode_name for field in msgspec.structs.fields(Timer)] == TIMER_FIELDS.split()
