"""Payload templates: what a placeholder becomes, what is refused, and that nothing grows past its bound."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.limits import PAYLOAD_BYTES
from minoots.domain.template import TooLarge, check_template, look_up, render

VALUES: dict[str, Any] = {
    "timer": {
        "name": "Tee", "metadata": {"orderId": 7, "tags": ["a", {"b": True}], "price": 12.5, "no": None, "a:b/c": "x"},
        "labels": {"für": "ja"},
    },
    "firing": {"dueAt": "2026-11-22T10:00:00.000000Z", "occurrence": 3},
    "event": {"id": "e"},
    "delivery": {"actionId": "call"},
    "ack": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{timer.name}}", "Tee"),
        ("{{ timer.name }}", "Tee"),
        ("{{timer.metadata.orderId}}", 7),
        ("{{timer.metadata.tags}}", ["a", {"b": True}]),
        ("{{timer.metadata.tags.0}}", "a"),
        ("{{timer.metadata.tags.1.b}}", True),
        ("{{timer.metadata.a:b/c}} {{timer.labels.für}}", "x ja"),
        ("{{firing}}", VALUES["firing"]),
        ("order {{timer.metadata.orderId}} of {{timer.name}}", "order 7 of Tee"),
        ("{{timer.name}}{{timer.name}}", "TeeTee"),
        ("now: {{timer.metadata.tags}} {{timer.metadata.price}}", 'now: ["a",{"b":true}] 12.5'),
        ("{{timer.metadata.missing}}", None),
        ("{{timer.metadata.tags.9}}", None),
        ("{{timer.metadata.tags.x}}", None),
        ("{{timer.name.x}}", None),
        ("{{ack.url}}", None),
        ("<{{timer.metadata.no}}{{ack.url}}{{timer.metadata.tags.-1}}>", "<>"),
        ("{{{{timer.name}}", "{{timer.name}}"),
        ("{{{{ and {{timer.name}}", "{{ and Tee"),
        ('{"a":{"b":1}} } }} {', '{"a":{"b":1}} } }} {'),
        ({"{{timer.name}}": ["{{timer.name}}", 1, None, True]}, {"{{timer.name}}": ["Tee", 1, None, True]}),
        (None, None),
        (1.5, 1.5),
    ],
)
def test_a_placeholder_becomes_what_stands_there(template: Any, rendered: Any) -> None:
    assert check_template(template, "/x") == []
    assert render(template, VALUES) == rendered


@pytest.mark.parametrize(
    ("template", "pointer"),
    [
        ("{{timr.name}}", ""),
        ("{{timer.name", ""),
        ("{{}}", ""),
        ("{{timer..name}}", ""),
        ("{{timer.name|upper}} {{timer.na me}}", ""),
        ("{{{timer.name}}}", ""),
        ("{{#if timer}}", ""),
        ("{{ timer.name\n}}", ""),
        ({"a": ["x", {"b/c": "{{nothing}}"}]}, "/a/1/b~1c"),
    ],
)
def test_what_is_no_placeholder_is_told_with_its_place(template: Any, pointer: str) -> None:
    (found,) = check_template(template, "/payloadTemplate")
    assert found.pointer == f"/payloadTemplate{pointer}"
    assert "timer.metadata.orderId" in found.detail


def test_every_bad_text_is_told() -> None:
    assert [f.pointer for f in check_template(["{{a}}", "ok", "{{b}}"], "/t")] == ["/t/0", "/t/2"]


def test_a_template_has_a_size() -> None:
    assert check_template("x" * (PAYLOAD_BYTES - 2), "/t") == []
    (found,) = check_template("x" * (PAYLOAD_BYTES - 1), "/t")
    assert "64 KiB" in found.detail


@pytest.mark.parametrize("template", [["{{timer.big}}"] * 4_000, "{{timer.big}}" * 4_000, {"a": "{{timer.big}}"}])
def test_what_it_makes_has_a_size_and_is_not_made_first(template: Any) -> None:
    assert check_template(template, "/t") == []
    with pytest.raises(TooLarge):
        render(template, {"timer": {"big": ["x" * 1_000] * 80}})


def test_what_is_put_in_is_no_template_again() -> None:
    assert render("{{timer.name}}", {"timer": {"name": "{{firing.dueAt}}"}}) == "{{firing.dueAt}}"
    assert render("x{{timer.name}}", {"timer": {"name": "{{firing.dueAt}}"}}) == "x{{firing.dueAt}}"


TEXT = st.text(st.sampled_from(list("{} .at")) | st.characters(codec="utf-8"), max_size=20)
PIECES = st.lists(st.sampled_from(["{{", "}}", "{{{{", "{{timer.a}}", "{{ firing }}", "{", "}", "x"]), max_size=8)
TEXTS = TEXT | PIECES.map("".join)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(template=JSON, timer=JSON)
def test_whatever_passes_the_check_can_be_rendered(template: Any, timer: Any) -> None:
    values = {"timer": timer, "firing": {"a": 1}, "event": None, "delivery": {}, "ack": None}
    if check_template(template, ""):
        return
    made = render(template, values)
    assert len(msgspec.json.encode(made)) <= PAYLOAD_BYTES
    if "{{" not in json.dumps(template, ensure_ascii=False):
        assert made == template


@given(text=TEXTS)
def test_any_text_can_be_written_with_its_braces_escaped(text: str) -> None:
    escaped = text.replace("{{", "{{{{")
    assert check_template(escaped, "") == []
    assert render(escaped, {}) == text


@given(value=JSON, steps=st.lists(st.text("ab0129.", max_size=3), max_size=4))
def test_looking_up_never_fails(value: Any, steps: list[str]) -> None:
    look_up(value, ".".join(steps))
