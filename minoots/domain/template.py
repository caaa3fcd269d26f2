"""Payload templates: JSON whose texts name fields of the timer and its firing. Paths only: no logic, no calls.

`{{timer.metadata.orderId}}` is replaced by what stands there. A text that is one placeholder and nothing else becomes
the value itself, number or object; within other text, what is no text is written as JSON. What is not there is null,
and nothing within text. `{{{{` stands for `{{`; keys are kept as they are.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from minoots.domain.json_text import escape_step
from minoots.domain.limits import PAYLOAD_BYTES
from minoots.errors import Finding

ROOTS: Final = ("timer", "firing", "event", "delivery", "ack")

# As the schema's is_template has it.
_PATH: Final = rf"(?:{'|'.join(ROOTS)})(?:\.[^.{{}}\x00-\x20\x7f]+)*"
_PLACEHOLDER: Final = re.compile(rf"\{{\{{ *({_PATH}) *\}}\}}")
_PIECE: Final = re.compile(rf"(?P<escape>\{{\{{\{{\{{)|{_PLACEHOLDER.pattern}|\{{\{{")
_SHOWN: Final = 40


class TooLarge(ValueError):
    """What a template makes is larger than a payload may be."""


def check_template(template: Any, pointer: str) -> list[Finding]:
    """What is wrong with a template: its size, and each placeholder that cannot be read, with its place."""
    if len(msgspec.json.encode(template)) > PAYLOAD_BYTES:
        return [Finding(pointer, f"a payload template is at most {PAYLOAD_BYTES // 1024} KiB")]
    return list(_faults(template, pointer))


def _faults(value: Any, pointer: str) -> Iterator[Finding]:
    if isinstance(value, str):
        for piece in _PIECE.finditer(value):
            if piece["escape"] is None and piece[2] is None:
                yield Finding(pointer, _explain(value[piece.start() :]))
                return
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _faults(inner, f"{pointer}/{escape_step(key)}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _faults(inner, f"{pointer}/{index}")


def _explain(text: str) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return (
        f"{shown} is no placeholder: write {{{{timer.metadata.orderId}}}}, a path that begins with "
        f"{', '.join(ROOTS[:-1])} or {ROOTS[-1]} and has no spaces in it; {{{{{{{{ stands for {{{{ itself"
    )


def render(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with `values` (one for each root) put in; raises TooLarge past 64 KiB of JSON.

    A placeholder that cannot be read, which only a row written past the rules can hold, stays as it is.
    """
    made = _Rendering(values).render(template)
    if len(msgspec.json.encode(made)) > PAYLOAD_BYTES:
        raise TooLarge
    return made


class _Rendering:
    """One rendering. What is put in is counted as it goes: a short template may name a large value many times."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._sizes: dict[str, int] = {}
        self._room = PAYLOAD_BYTES

    def render(self, value: Any) -> Any:
        if isinstance(value, str):
            if "{{" not in value:
                return value
            if whole := _PLACEHOLDER.fullmatch(value):
                return self._take(whole[1])
            return _PIECE.sub(self._piece, value)
        if isinstance(value, dict):
            return {key: self.render(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.render(inner) for inner in value]
        return value

    def _piece(self, piece: "re.Match[str]") -> str:
        if piece["escape"] is not None:
            return "{{"
        return piece[0] if piece[2] is None else _text(self._take(piece[2]))

    def _take(self, path: str) -> Any:
        value = look_up(self._values, path)
        if path not in self._sizes:
            self._sizes[path] = len(msgspec.json.encode(value))
        # What is put in takes the place of at least so much; text within text comes without its quotes.
        self._room -= max(self._sizes[path] - 4, 0)
        if self._room < 0:
            raise TooLarge
        return value


def look_up(values: Any, path: str) -> Any:
    """What stands at a dotted path; a list is entered by numbers from 0. None when it is not there."""
    for step in path.split("."):
        if isinstance(values, Mapping):
            values = values.get(step)
        elif isinstance(values, list) and step.isascii() and step.isdecimal() and len(step) < 10:
            values = values[int(step)] if int(step) < len(values) else None
        else:
            return None
    return values


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
