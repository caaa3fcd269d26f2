"""A command that an operator allows, and the command line that an action's arguments make of it."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from minoots.domain.json_text import describe_mismatch, escape_step
from minoots.errors import Finding

# An argument of Linux ends at 128 KiB (MAX_ARG_STRLEN); a character is up to four bytes, and an element may have a few.
TEXT_CHARACTERS = 8_192
TEXT_DEFAULT = 1_024
TIMEOUT_DEFAULT_MS = 60_000
TIMEOUT_MOST_MS = 24 * 3_600_000

_PLACE = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")
# Beyond it a double holds no whole number exactly.
_WHOLE_MOST = 2**53

Value = str | int | float | bool


class Parameter(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What one argument may be. `pattern` has to match all of it; `allow_dash` lets it begin an element with `-`."""

    type: Literal["string", "integer", "number", "boolean", "enum"]
    values: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    pattern: str | None = None
    max_length: Annotated[int, msgspec.Meta(ge=1, le=TEXT_CHARACTERS)] | None = None
    min: int | float | None = None
    max: int | float | None = None
    default: Value | msgspec.UnsetType = msgspec.UNSET
    allow_dash: bool = False


class Command(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One program with its command line, in which `{parameter}` stands for an argument, and `{{` for a brace."""

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    parameters: dict[str, Parameter] = {}
    cwd: str = "/"
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=TIMEOUT_MOST_MS)] = TIMEOUT_DEFAULT_MS
    environment: dict[str, str] = {}
    tenants: list[str] | None = None
    rejected_exit_codes: list[Annotated[int, msgspec.Meta(ge=1, le=255)]] = []


class CommandParameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Parameters of a `command` action: which one, and its arguments."""

    name: str
    arguments: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A command as it is to be run."""

    command: Command
    argv: list[str]


class Commands:
    """All commands of an installation by name."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = dict(commands)

    def __contains__(self, name: str) -> bool:
        return name in self._commands

    def check(self, tenant_id: str, parameters: Mapping[str, Any], pointer: str) -> list[Finding]:
        """What keeps the action from being run, with places below `pointer`; none is well."""
        made = self.fill(tenant_id, parameters)
        return [] if isinstance(made, Line) else [Finding(pointer + f.pointer, f.detail) for f in made]

    def fill(self, tenant_id: str, parameters: Mapping[str, Any]) -> Line | list[Finding]:
        """The command line of these parameters, or what is wrong with them."""
        try:
            asked = msgspec.convert(parameters, CommandParameters)
        except msgspec.ValidationError as mismatch:
            return [describe_mismatch(str(mismatch))]
        command = self._commands.get(asked.name)
        # Whose it is not is told the same as where there is none: the names of others are theirs.
        if command is None or (command.tenants is not None and tenant_id not in command.tenants):
            return [Finding("/name", f"there is no command {asked.name[:64]!r} that this tenant may run")]
        given = asked.arguments or {}
        findings = [
            Finding(f"/arguments/{escape_step(name)}", f"the command {asked.name} has no parameter of this name")
            for name in given
            if name not in command.parameters
        ]
        texts: dict[str, str] = {}
        for name, parameter in command.parameters.items():
            value = given.get(name, parameter.default)
            if value is msgspec.UNSET:
                findings.append(Finding(f"/arguments/{name}", f"the command {asked.name} needs the argument {name}"))
            elif fault := fault_of(parameter, value):
                findings.append(Finding(f"/arguments/{name}", f"{name} {fault}"))
            else:
                texts[name] = text_of(value)
        return findings or _line(command, texts)


def _line(command: Command, texts: Mapping[str, str]) -> Line | list[Finding]:
    """Each element is filled by itself and stays one element, whatever the text is."""
    argv: list[str] = []
    findings: list[Finding] = []
    for element in command.argv:
        pieces = [(piece, texts[piece.name] if piece.name else piece.text) for piece in pieces_of(element)]
        text = "".join(part for _, part in pieces)
        # An option where a value was meant: what the program makes of `-rf` is not the sender's to choose.
        if text.startswith("-") and not element.startswith("-"):
            # The argument that begins it, or an empty one before a dash of the operator's own.
            name = next(piece for piece, part in pieces if part).name or pieces[0][0].name
            if name is not None and not command.parameters[name].allow_dash:
                findings.append(Finding(f"/arguments/{name}", f"{name} may not begin with -, as an option would"))
        argv.append(text)
    return findings or Line(command, argv)


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an element: text as it is, or the name of the parameter in whose place a value goes."""

    text: str
    name: str | None = None


def pieces_of(element: str) -> Iterator[Piece]:
    """The parts of one element of argv; ValueError for a brace that stands alone."""
    end = 0
    for mark in _PLACE.finditer(element):
        if mark.start() > end:
            yield Piece(element[end : mark.start()])
        if mark[1] is not None:
            yield Piece(mark[0], mark[1])
        elif mark[0] in ("{{", "}}"):
            yield Piece(mark[0][0])
        else:
            raise ValueError(f"{element!r} has a brace that begins no {{parameter}}; write {{{{ or }}}} for a brace")
        end = mark.end()
    if end < len(element):
        yield Piece(element[end:])


def fault_of(parameter: Parameter, value: Any) -> str | None:
    """What is wrong with an argument, as the end of a sentence that begins with its name."""
    match parameter.type:
        case "string":
            return _text_fault(parameter, value)
        case "enum":
            values = parameter.values or []
            return None if isinstance(value, str) and value in values else f"has to be one of {', '.join(values)}"
        case "boolean":
            return None if isinstance(value, bool) else "has to be true or false"
        case "integer":
            return _number_fault(parameter, value) if _is_whole(value) else "has to be a whole number"
        case "number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return _number_fault(parameter, value) if is_number else "has to be a number"


def _text_fault(parameter: Parameter, value: Any) -> str | None:
    if not isinstance(value, str):
        return "has to be text"
    most = parameter.max_length or TEXT_DEFAULT
    if len(value) > most:
        return f"has to be at most {most} characters long"
    if "\0" in value or not _is_unicode(value):
        return "may not hold the character NUL, nor half of a surrogate pair"
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, value):
        return f"does not match the pattern {parameter.pattern}"
    return None


def _number_fault(parameter: Parameter, value: float) -> str | None:
    if parameter.min is not None and value < parameter.min:
        return f"has to be at least {parameter.min:g}"
    if parameter.max is not None and value > parameter.max:
        return f"has to be at most {parameter.max:g}"
    return None


def _is_whole(value: Any) -> bool:
    """2.0 as well: gRPC has no other numbers."""
    if isinstance(value, float):
        return value.is_integer() and abs(value) <= _WHOLE_MOST
    return isinstance(value, int) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_of(value: Value) -> str:
    """As it stands on the command line: text as it is, true and false, whole numbers without a point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) <= _WHOLE_MOST:
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value)
