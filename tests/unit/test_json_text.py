"""JSON as it comes: nesting, escapes, numbers, and errors that point at the field."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.json_text import check_bounds, describe_mismatch, escape_step, nesting, read_json
from minoots.domain.timer import TimerRequest
from minoots.errors import InvalidTimer, MalformedRequest

# Text with what is special in JSON in every position: quotes, backslashes, brackets, NUL, surrogate halves.
TEXT = st.text(alphabet=st.characters(codec="utf-8") | st.sampled_from('"\\[]{}:,u0d\x00\x1f\x7f\n'), max_size=12)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    LEAVES | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max((depth(one) for one in inner), default=0)


def has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any("\0" in key or has_nul(inner) for key, inner in value.items())
    if isinstance(value, list):
        return any(has_nul(inner) for inner in value)
    return isinstance(value, str) and "\0" in value


@given(VALUES, st.booleans())
def test_nesting_is_counted_outside_of_strings_alone(value: Any, ascii_only: bool) -> None:
    assert nesting(json.dumps(value, ensure_ascii=ascii_only).encode()) == depth(value)


@given(st.integers(0, 20_000))
def test_nesting_of_any_depth_is_counted_without_recursion(deep: int) -> None:
    assert nesting(b"[" * deep + b"]" * deep) == deep


@given(VALUES, st.booleans())
def test_what_is_within_the_bounds_passes_and_nul_does_not(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    if has_nul(value):
        with pytest.raises(InvalidTimer, match="NUL"):
            check_bounds(body)
    else:
        check_bounds(body)
        assert msgspec.json.decode(body) == value


@pytest.mark.parametrize("half", ["\\ud800", "\\uDFFF", "\\udc00\\ud800", "\\ud83dx", "x\\uD83D"])
@pytest.mark.parametrize("where", ['{"metadata":{"a":"%s"}}', '{"metadata":{"%s":1}}', '{"name":"%s"}', '{"%s":1}'])
def test_half_of_a_surrogate_pair_is_refused_everywhere(half: str, where: str) -> None:
    with pytest.raises((MalformedRequest, InvalidTimer)):
        read_json((where % half).encode(), TimerRequest)


def test_a_whole_surrogate_pair_is_a_character() -> None:
    assert read_json(rb'{"name":"\ud83d\ude00"}', TimerRequest).name == "😀"


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    check_bounds(rb'{"metadata":{"a":"\\u0000"}}')


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (rb'{"name":"a\u0000"}', "/name"),
        (rb'{"metadata":{"a/b":[1,{"c~":"\u0000"}]}}', "/metadata/a~1b/1/c~0"),
        (rb'{"labels":{"\u0000":"x"}}', "/labels"),
    ],
)
def test_nul_is_refused_with_its_place(body: bytes, pointer: str) -> None:
    with pytest.raises(InvalidTimer, match="NUL") as refused:
        read_json(body, TimerRequest)
    assert refused.value.findings[0].pointer == pointer


@pytest.mark.parametrize(
    "number",
    [
        "9223372036854775808",
        "-9223372036854775809",
        "1" * 100,
        "1e309",
        "-1E+309",
        "1e-325",
        "1.0e400",
        "1e99999",
        "12e9999999999",
    ],
)
def test_numbers_that_no_column_holds_are_refused(number: str) -> None:
    with pytest.raises(InvalidTimer, match="out of range") as refused:
        check_bounds(f'{{"metadata":{{"a":[{number}]}}}}'.encode())
    assert refused.value.findings[0].pointer == "/metadata/a/0"


@pytest.mark.parametrize(
    "number", ["9223372036854775807", "-9223372036854775808", "1e308", "-1.5E-300", "5e-324", "0.1234567890123456789"]
)
def test_numbers_within_64_bits_and_the_doubles_pass(number: str) -> None:
    check_bounds(f'{{"metadata":{{"a":{number}}}}}'.encode())


def test_digits_in_text_are_no_number() -> None:
    check_bounds(b'{"name":"99999999999999999999999999 and 1e999 \\" 1e999"}')


@pytest.mark.parametrize("deep", [100, 5_000, 100_000])
def test_a_body_nested_too_deep_is_refused_and_breaks_nothing(deep: int) -> None:
    with pytest.raises(InvalidTimer, match="deeper than 32"):
        read_json(b'{"metadata":' + b'{"a":' * deep + b"1" + b"}" * deep + b"}", TimerRequest)
    with pytest.raises(InvalidTimer, match="deeper than 32"):
        read_json(b'{"metadata":' + b"[" * deep, TimerRequest)


@given(st.binary(max_size=60) | TEXT.map(lambda text: f'{{"name":{text}'.encode()))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    with suppress(MalformedRequest, InvalidTimer):
        assert isinstance(read_json(body, TimerRequest), TimerRequest)


@given(VALUES, st.integers(0, 60), st.characters(codec="utf-8"))
def test_raw_fields_are_checked_as_closely_as_typed_ones(value: Any, place: int, typo: str) -> None:
    """What is kept as bytes goes to Postgres as it came: a slip in it must not get further than here."""
    text = json.dumps(value)
    place = min(place, len(text))
    text = text[:place] + typo + text[place:]
    try:
        json.loads(text, parse_constant=lambda word: json.loads(f"!{word}"))
        is_json = True
    except ValueError:
        is_json = False
    try:
        read_json(f'{{"metadata":{text}}}'.encode(), TimerRequest)
        is_taken = True
    except MalformedRequest:
        is_taken = False
    except InvalidTimer:
        return
    assert is_taken <= is_json


@pytest.mark.parametrize("body", [b"", b"{", b"{} {}", b"\xff", b"\xef\xbb\xbf{}", b"{'a':1}", b'{"name":NaN}', b"{,}"])
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_json(body, TimerRequest)


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        (b"[]", "", "object"),
        (b'{"name":1}', "/name", "name has to be text"),
        (b'{"labels":{"a":1}}', "/labels", "each value of labels has to be text"),
        (b'{"nmae":"x"}', "/nmae", "there is no field nmae"),
        (b'{"name":""}', "/name", "at least 1 characters long"),
    ],
)
def test_a_misfit_points_at_the_field(body: bytes, pointer: str, words: str) -> None:
    with pytest.raises(InvalidTimer, match=words) as refused:
        read_json(body, TimerRequest)
    assert [finding.pointer for finding in refused.value.findings] == [pointer]


def test_a_missing_field_is_named() -> None:
    needed = msgspec.defstruct("Needed", [("who", str)])
    with pytest.raises(msgspec.ValidationError) as mismatch:
        msgspec.json.decode(b'[{"who":"ann"},{}]', type=list[needed])  # type: ignore[valid-type]
    found = describe_mismatch(str(mismatch.value))
    assert found.pointer == "/1/who"
    assert found.detail == "who is required"


def test_steps_of_a_pointer_are_escaped() -> None:
    assert escape_step("a/b~c~1") == "a~1b~0c~01"
