"""The file of the commands that an operator allows: read once, refused whole with the place of its first mistake."""

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from minoots.domain.command import Command, Commands, Parameter, fault_of, pieces_of
from minoots.domain.json_text import describe_mismatch, escape_step
from minoots.domain.limits import TENANT
from minoots.errors import ConfigError, Finding

_COMMAND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_commands(text: str, source: str) -> Commands:
    """The commands of a file of JSON; raises ConfigError that names `source`, the place, and what to do."""
    try:
        found = json.loads(text, object_pairs_hook=_once)
        commands = msgspec.convert(found, dict[str, Command])
    except msgspec.ValidationError as mismatch:
        wrong = _placed(found, str(mismatch))
        raise ConfigError(f"{source}: at {wrong.pointer or '/'}: {wrong.detail}") from None
    except (ValueError, RecursionError) as broken:
        raise ConfigError(f"{source} cannot be read as JSON: {broken}") from None
    for name, command in commands.items():
        for fault in _faults(name, command):
            raise ConfigError(f"{source}: at /{escape_step(name)}{fault.pointer}: {fault.detail}")
    return Commands(commands)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two commands of one name only one would be there, and nobody would know which."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _placed(found: Any, message: str) -> Finding:
    """The mismatch with its whole place: of an entry in a map the decoder does not say which."""
    if isinstance(found, dict):
        for name, entry in found.items():
            try:
                msgspec.convert(entry, Command)
            except msgspec.ValidationError as mismatch:
                inner = describe_mismatch(str(mismatch))
                return Finding(f"/{escape_step(name)}{inner.pointer}", inner.detail)
    return describe_mismatch(message)


def _faults(name: str, command: Command) -> Iterator[Finding]:
    """What types cannot say of a command."""
    if not _COMMAND_NAME.fullmatch(name):
        yield Finding("", "a command's name has 1 to 63 letters, digits and _ . -, and begins with a letter or digit")
    program = command.argv[0]
    if not program or ("/" in program and not program.startswith("/")):
        yield Finding("/argv/0", "the program is an absolute path, or a name that is found on PATH")
    yield from _argv_faults(command)
    for parameter_name, parameter in command.parameters.items():
        for detail in _parameter_faults(parameter_name, parameter):
            yield Finding(f"/parameters/{escape_step(parameter_name)}", detail)
    if not command.cwd.startswith("/") or "\0" in command.cwd:
        yield Finding("/cwd", "the working folder is an absolute path")
    for variable, value in command.environment.items():
        if not _VARIABLE.fullmatch(variable) or variable.startswith("MINOOTS_"):
            yield Finding(
                "/environment", f"{variable[:64]!r} is no variable to set; use letters, digits and _, not MINOOTS_"
            )
        elif "\0" in value:
            yield Finding(f"/environment/{variable}", "a value may not hold the character NUL")
    for tenant in command.tenants or ():
        if not re.fullmatch(TENANT, tenant):
            yield Finding("/tenants", f"{tenant[:64]!r} is no tenant")


def _argv_faults(command: Command) -> Iterator[Finding]:
    for nth, element in enumerate(command.argv):
        try:
            names = [piece.name for piece in pieces_of(element) if piece.name is not None]
        except ValueError as wrong:
            yield Finding(f"/argv/{nth}", str(wrong))
            continue
        if "\0" in element:
            yield Finding(f"/argv/{nth}", "an element may not hold the character NUL")
        if names and nth == 0:
            yield Finding("/argv/0", "the program itself is not the sender's to choose; leave parameters out of it")
        for name in names:
            if name not in command.parameters:
                yield Finding(f"/argv/{nth}", f"there is no parameter {name}; declare it in parameters")


def _parameter_faults(name: str, parameter: Parameter) -> Iterator[str]:
    if not _PARAMETER_NAME.fullmatch(name):
        yield "a parameter's name has letters, digits and _, and begins with no digit"
    if (parameter.type == "enum") != (parameter.values is not None):
        yield "values are what the type enum chooses from: give both, or neither"
    if parameter.type != "string" and (parameter.pattern is not None or parameter.max_length is not None):
        yield f"pattern and maxLength are for the type string, not {parameter.type}"
    if parameter.type not in ("integer", "number") and (parameter.min is not None or parameter.max is not None):
        yield f"min and max are for the types integer and number, not {parameter.type}"
    if parameter.pattern is not None:
        try:
            re.compile(parameter.pattern)
        except re.error as wrong:
            yield f"the pattern {parameter.pattern} cannot be read: {wrong}"
            return
    if parameter.default is not msgspec.UNSET and (fault := fault_of(parameter, parameter.default)):
        yield f"the default {fault}"
