"""JSON as bytes: reading it into a type with errors that point at the field, and the bounds that types cannot say."""

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
_LARGE_NUMBER = re.compile(rb"\d{19}|\d[eE][+-]?\d{3}")
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
    return Finding(pointer, f"{detail[:1].lower()}{detail[1:]}".replace("`", ""))


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
    """Integers of 64 bits, and exponents of a double: what it cannot hold would come back as something else."""
    for found in _NUMBERS.finditer(body):
        number = found[0]
        if number[:1] == b'"':
            continue
        mantissa, _, exponent = number.lower().partition(b"e")
        if exponent and (len(exponent) > 4 or not -324 <= int(exponent) <= 308):
            raise InvalidTimer.at("", f"{number[:24].decode()} is out of range; send it as text")
        if not exponent and b"." not in mantissa and (len(mantissa) > 20 or not -(2**63) <= int(mantissa) < 2**63):
            raise InvalidTimer.at("", f"{number[:24].decode()} does not fit in 64 bits; send it as text")


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
