"""JSON as bytes: reading it into a type with errors that point at the field, and the bounds that types cannot say."""

import json
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

from minoots.domain.limits import JSON_DEPTH
from minoots.errors import Finding, InvalidTimer, MalformedRequest

T = TypeVar("T")

_WHERE = re.compile(r" - at `(?P<path>[^`]*)`$")
_KEY_WHERE = re.compile(r" - at `key` in `(?P<path>[^`]*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_UNKNOWN = re.compile(r"contains unknown field `([^`]+)`")
_EXPECTED = re.compile(r"^Expected `(?P<wanted>[^`]+)`, got `(?P<got>[^`]+)`")
_BOUND = re.compile(r"^Expected `(?P<kind>\w+)` (?:of length )?(?P<sign>[<>]=?) (?P<limit>[\d.]+)")
_WORDS = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
    "object": "an object", "array": "a list",
}  # fmt: skip
# What the decoder does not say when a word is none of those that a field may hold.
_CHOICES = {
    "kind": ("webhook", "agent_prompt", "command", "workflow_event"),
    "method": ("GET", "POST", "PUT", "PATCH", "DELETE"),
    "tier": ("free", "pro", "team", "unlimited"),
}
# One alternative that begins with a digit: the search skips to the digits, and takes a third of the time of two.
_LARGE_NUMBER = re.compile(rb"\d(?:\d{18}|[eE][+-]?\d{3})")
_NUMBERS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.]*(?:[eE][+-]?\d+)?', re.DOTALL)


def read_json(body: bytes, kind: type[T]) -> T:
    """The body as `kind`; MalformedRequest when it is no JSON, InvalidTimer with a pointer when it does not fit."""
    check_bounds(body)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as mismatch:
        raise InvalidTimer([describe_mismatch(str(mismatch))]) from None
    except msgspec.DecodeError as broken:
        raise MalformedRequest(f"the body is no valid JSON: {broken}") from None
    except (RecursionError, UnicodeDecodeError):
        raise MalformedRequest("the body is no valid JSON: it is nested too deep, or is not UTF-8") from None


def describe_mismatch(message: str) -> Finding:
    """A decoder's complaint as a finding: "Expected `str`, got `int` - at `$.name`" becomes /name and a sentence."""
    where = _KEY_WHERE.search(message) or _WHERE.search(message)
    pointer = pointer_of(where["path"]) if where else ""
    detail = message[: where.start()] if where else message
    if missing := _MISSING.search(detail):
        return Finding(f"{pointer}/{missing[1]}", f"{missing[1]} is required")
    if unknown := _UNKNOWN.search(detail):
        return Finding(f"{pointer}/{escape_step(unknown[1])}", f"there is no field {unknown[1]}")
    field = pointer.rsplit("/", 1)[-1]
    if where and where["path"].endswith("[...]"):
        field = f"each {'key' if where.re is _KEY_WHERE else 'value'} of {field}"
    return Finding(pointer, _humane(detail, field))


def _humane(detail: str, field: str) -> str:
    """The decoder speaks of its types; a person is told what to send."""
    if bound := _BOUND.search(detail):
        word = {"<=": "at most", ">=": "at least", "<": "less than", ">": "more than"}[bound["sign"]]
        what = {"str": "characters long", "array": "items long", "object": "entries long"}.get(bound["kind"], "")
        return f"{field or 'this'} has to be {word} {bound['limit']} {what}".rstrip()
    if found := _EXPECTED.search(detail):
        wanted = [_WORDS.get(kind, kind) for kind in found["wanted"].split(" | ")]
        got = _WORDS.get(found["got"], found["got"])
        return f"{field or 'this'} has to be {' or '.join(dict.fromkeys(wanted))}, not {got}"
    if field in _CHOICES and "enum value" in detail:
        return f"{detail.split('value ')[-1]} is none of {', '.join(_CHOICES[field])}".replace("`", "")
    return f"{detail[:1].lower()}{detail[1:]}".replace("`", "")


def pointer_of(path: str) -> str:
    """`$.items[3].labels[...]` as the RFC 6901 pointer /items/3/labels: a map's key is not known here."""
    steps = [name or index for name, index in _STEP.findall(path.removeprefix("$"))]
    return "".join(f"/{escape_step(step)}" for step in steps if step != "...")


def escape_step(step: str) -> str:
    """RFC 6901, section 3."""
    return step.replace("~", "~0").replace("/", "~1")


def check_bounds(body: bytes) -> None:
    """Depth, NUL and the size of integers, looked at closely only where a glance shows that it may matter."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise MalformedRequest("the body is no valid JSON: it is not UTF-8") from None
    suspicious = (
        body.count(b"{") + body.count(b"[") > JSON_DEPTH
        or b"\\u0000" in body
        or b"\\ud" in body.lower()
        or _LARGE_NUMBER.search(body)
    )
    if not suspicious:
        return
    if nesting(body) > JSON_DEPTH + 8:
        raise InvalidTimer.at("", f"the JSON is nested deeper than {JSON_DEPTH} levels")
    _check_numbers(body)
    try:
        value = msgspec.json.decode(body)
    except msgspec.ValidationError as mismatch:
        raise InvalidTimer([describe_mismatch(str(mismatch))]) from None
    except (msgspec.DecodeError, RecursionError):
        raise MalformedRequest("the body is no valid JSON; text may not hold half of a surrogate pair") from None
    for pointer, detail in _faults(value, ""):
        raise InvalidTimer.at(pointer, detail)


def nesting(body: bytes) -> int:
    """How deep brackets outside of strings are nested; one pass, no recursion."""
    deepest = depth = 0
    for mark in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', body, re.DOTALL):
        first = mark[0][0]
        if first in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in b"]}":
            depth -= 1
    return deepest


def _check_numbers(body: bytes) -> None:
    """Integers of 64 bits, and no exponent past 308: what a double cannot hold would come back as something else."""
    if not any(_is_out_of_range(found[0]) for found in _NUMBERS.finditer(body) if found[0][:1] != b'"'):
        return
    try:
        # Again with the standard library, which tells of each number's text and so of its place.
        value = json.loads(body, parse_int=_mark, parse_float=_mark)
    except (ValueError, RecursionError):
        return
    for pointer, number in _marked(value, ""):
        shown = number if len(number) <= 40 else f"{number[:40]}…"
        raise InvalidTimer.at(
            pointer, f"{shown} is out of range: whole numbers have 64 bits, others go up to about 1.8e308"
        )


class _OutOfRange(str):
    """A number's text in the place of the number."""


def _mark(number: str) -> str | None:
    return _OutOfRange(number) if _is_out_of_range(number.encode()) else None


def _is_out_of_range(number: bytes) -> bool:
    mantissa, _, exponent = number.lower().partition(b"e")
    if exponent:
        return len(exponent) > 4 or not -324 <= int(exponent) <= 308
    return b"." not in mantissa and (len(mantissa) > 20 or not -(2**63) <= int(mantissa) < 2**63)


def _marked(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, _OutOfRange):
        yield pointer, str(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _marked(inner, f"{pointer}/{escape_step(key)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _marked(inner, f"{pointer}/{index}")


def _faults(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if "\0" in value:
            yield pointer, "text may not hold the character NUL"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if "\0" in key:
                yield pointer, "a key may not hold the character NUL"
            yield from _faults(inner, f"{pointer}/{escape_step(key)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{pointer}/{index}")
