"""The envelope of an event, as any CloudEvents reader takes it."""

import json
import re
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.event import KINDS, bare, cut, envelope

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
DATA = st.dictionaries(TEXT, TEXT | st.integers() | st.lists(TEXT), max_size=3)
# CloudEvents 1.0, "Naming attributes" and "Required attributes".
ATTRIBUTE = re.compile(r"[a-z0-9]{1,20}")
REQUIRED = {"id", "source", "specversion", "type"}


def made(
    kind: str = "timer.fired", data: Any = None, traceparent: str | None = None
) -> tuple[UUID, UUID, dict[str, Any]]:
    event_id, timer_id = uuid4(), uuid4()
    shown = envelope(
        event_id, "acme:1@x", timer_id, kind, "2030-01-31T09:00:00.000000Z", json.dumps(data or {}), traceparent
    )
    decoded: dict[str, Any] = json.loads(shown)
    return event_id, timer_id, decoded


def test_an_event_has_the_attributes_of_the_design() -> None:
    event_id, timer_id, event = made(data={"timer": {"id": "x"}})
    assert event == {
        "specversion": "1.0",
        "id": str(event_id),
        "source": "/minoots/tenants/acme:1@x",
        "type": "minoots.timer.fired",
        "subject": str(timer_id),
        "time": "2030-01-31T09:00:00.000000Z",
        "datacontenttype": "application/json",
        "data": {"timer": {"id": "x"}},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_valid_cloudevent(kind: str) -> None:
    _, _, event = made(kind, {"timer": {}}, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert event.keys() >= REQUIRED
    for name, value in event.items():
        assert ATTRIBUTE.fullmatch(name)
        assert value
        assert name == "data" or isinstance(value, str)
    assert event["specversion"] == "1.0"
    assert datetime.fromisoformat(event["time"]).utcoffset() is not None
    assert event["type"] == f"minoots.{kind}"


def test_the_kinds_are_those_of_the_design() -> None:
    assert set(KINDS) == {
        "timer.scheduled", "timer.rescheduled", "timer.paused", "timer.resumed", "timer.cancelled", "timer.fired",
        "timer.missed", "timer.settled", "timer.failed", "delivery.delivered", "delivery.retrying", "delivery.dead",
        "delivery.escalated", "delivery.confirmed", "delivery.overdue", "lane.opened", "lane.half_opened",
        "lane.closed",
    }  # fmt: skip


@given(DATA, st.none() | TEXT)
def test_any_data_and_any_trace_make_valid_json(data: Any, traceparent: str | None) -> None:
    _, _, event = made(data=data, traceparent=traceparent)
    assert event["data"] == data
    assert event.get("traceparent") == (traceparent or None)


def test_a_cut_event_keeps_all_but_what_makes_it_large() -> None:
    timer = {
        "id": "x",
        "name": "é\n",
        "metadata": {"a": 1},
        "actionBundle": {"actions": []},
        "agentBinding": {},
        "version": 3,
    }
    data = {"timer": timer, "firing": {"occurrence": 1}, "reason": "x"}
    assert json.loads(cut(json.dumps(data))) == {
        "timer": {"id": "x", "name": "é\n", "metadata": None, "actionBundle": None, "agentBinding": None, "version": 3},
        "firing": {"occurrence": 1},
        "reason": "x",
        "truncated": True,
    }


def test_a_cut_event_is_small_whatever_the_timer_holds() -> None:
    timer = {"name": "x" * 200, "metadata": {"a": "x" * 10**6}, "actionBundle": {"actions": ["x" * 10**6]}}
    assert len(cut(json.dumps({"timer": timer}))) < 1000


def test_cutting_an_event_adds_no_fields_to_its_timer() -> None:
    assert json.loads(cut('{"timer":{"id":"x"}}')) == {"timer": {"id": "x"}, "truncated": True}


def test_a_bare_event_says_which_timer_it_is_and_nothing_else() -> None:
    timer = {"id": "x", "tenantId": "acme", "status": "fired", "version": 3, "labels": {"a": "b" * 10**6}, "name": "n"}
    assert json.loads(bare(json.dumps({"timer": timer, "reason": "r" * 10**6, "firing": {"occurrence": 1}}))) == {
        "timer": {"id": "x", "tenantId": "acme", "status": "fired", "version": 3},
        "truncated": True,
    }


def test_numbers_beyond_the_doubles_do_not_break_cutting() -> None:
    """Plain SQL can write such into a timer: jsonb's numbers have no such bound."""
    huge = "9" * 400
    data = f'{{"timer":{{"id":"x","metadata":{{"a":{huge}}}}},"reason":"r"}}'
    assert json.loads(cut(data)) == {"timer": {"id": "x", "metadata": None}, "reason": "r", "truncated": True}
