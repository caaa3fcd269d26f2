"""The operator's file of commands, and the command lines that arguments make."""

import json
from typing import Any

import pytest

from minoots.domain.command import Line
from minoots.domain.command_file import read_commands
from minoots.errors import ConfigError, Finding

BACKUP: dict[str, Any] = {
    "argv": ["/usr/bin/backup", "--order={order}", "--", "{file}", "{{x}}", "{count}", "{speed}", "{full}", "{kind}"],
    "parameters": {
        "order": {"type": "string", "pattern": "[A-Z]-[0-9]+"},
        "file": {"type": "string", "maxLength": 20},
        "count": {"type": "integer", "min": 1, "max": 9, "default": 3},
        "speed": {"type": "number", "allowDash": True, "default": 1.5},
        "full": {"type": "boolean", "default": False},
        "kind": {"type": "enum", "values": ["hot", "cold"], "default": "hot"},
    },
    "tenants": ["acme"],
}
GOOD = {"order": "A-1", "file": "a b"}


def fill(arguments: Any = None, tenant: str = "acme", name: str = "backup", **command: Any) -> Line | list[Finding]:
    commands = read_commands(json.dumps({"backup": BACKUP | command}), "the file")
    return commands.fill(tenant, {"name": name} | ({} if arguments is None else {"arguments": arguments}))


def argv(arguments: Any, **command: Any) -> list[str]:
    made = fill(arguments, **command)
    assert isinstance(made, Line), made
    return made.argv


def refusal(arguments: Any, **given: Any) -> Finding:
    found = fill(arguments, **given)
    assert isinstance(found, list), found
    (finding,) = found
    return finding


def test_each_argument_fills_its_place_and_what_is_left_out_has_its_default() -> None:
    assert argv(GOOD) == ["/usr/bin/backup", "--order=A-1", "--", "a b", "{x}", "3", "1.5", "false", "hot"]
    assert argv(GOOD | {"count": 9.0, "speed": -2, "full": True, "kind": "cold"})[5:] == ["9", "-2", "true", "cold"]


@pytest.mark.parametrize("text", ["$(id)", "; rm -rf /", "`id`", "a\nb", "'\"", "*", "{order}", "--", "ä😀"])
def test_an_argument_is_neither_split_nor_expanded(text: str) -> None:
    made = argv({"it": text}, argv=["p", "x{it}y"], parameters={"it": {"type": "string"}})
    assert made == ["p", f"x{text}y"]


@pytest.mark.parametrize(
    ("arguments", "pointer", "words"),
    [
        ({"file": "a"}, "/arguments/order", "needs the argument"),
        (GOOD | {"order": "A-1\n"}, "/arguments/order", "pattern"),
        (GOOD | {"order": "xA-1"}, "/arguments/order", "pattern"),
        (GOOD | {"order": 1}, "/arguments/order", "text"),
        (GOOD | {"order": None}, "/arguments/order", "text"),
        (GOOD | {"file": "x" * 21}, "/arguments/file", "at most 20"),
        (GOOD | {"file": "a\0b"}, "/arguments/file", "NUL"),
        (GOOD | {"file": "-rf"}, "/arguments/file", "begin with -"),
        (GOOD | {"count": 0}, "/arguments/count", "at least 1"),
        (GOOD | {"count": 10}, "/arguments/count", "at most 9"),
        (GOOD | {"count": 1.5}, "/arguments/count", "whole number"),
        (GOOD | {"count": True}, "/arguments/count", "whole number"),
        (GOOD | {"count": "1"}, "/arguments/count", "whole number"),
        (GOOD | {"full": "yes"}, "/arguments/full", "true or false"),
        (GOOD | {"full": 1}, "/arguments/full", "true or false"),
        (GOOD | {"kind": "warm"}, "/arguments/kind", "hot, cold"),
        (GOOD | {"speed": False}, "/arguments/speed", "a number"),
        (GOOD | {"other/~": 1}, "/arguments/other~1~0", "no parameter"),
        ("x", "/arguments", "object"),
    ],
)
def test_an_argument_that_is_not_allowed_is_told_with_its_place(arguments: Any, pointer: str, words: str) -> None:
    finding = refusal(arguments)
    assert finding.pointer == pointer
    assert words in finding.detail


def test_a_dash_may_come_from_no_argument_where_a_value_was_meant() -> None:
    free = {"a": {"type": "string"}, "b": {"type": "string"}}
    where = {"argv": ["p", "{a}-{b}", "-{a}", "--x={b}"], "parameters": free}
    assert argv({"a": "x", "b": "-y"}, **where) == ["p", "x--y", "-x", "--x=-y"]
    assert refusal({"a": "", "b": ""}, **where).pointer == "/arguments/a"
    assert refusal({"a": "", "b": "-y"}, argv=["p", "{a}{b}"], parameters=free).pointer == "/arguments/b"


@pytest.mark.parametrize(("tenant", "name"), [("other", "backup"), ("acme", "none")])
def test_a_command_of_others_is_told_as_one_that_is_not_there(tenant: str, name: str) -> None:
    finding = refusal(GOOD, tenant=tenant, name=name)
    assert finding == Finding("/name", f"there is no command '{name}' that this tenant may run")


def test_parameters_that_are_no_command_are_told() -> None:
    commands = read_commands(json.dumps({"backup": BACKUP}), "the file")
    for parameters, pointer in (({}, "/name"), ({"name": 1}, "/name"), ({"name": "backup", "argv": []}, "/argv")):
        (finding,) = commands.check("acme", parameters, "/p")
        assert finding.pointer == f"/p{pointer}"


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"argv": []}, "/backup/argv", "at least 1"),
        ({"argv": ["./backup"]}, "/backup/argv/0", "absolute path"),
        ({"argv": ["{order}"]}, "/backup/argv/0", "not the sender's to choose"),
        ({"argv": ["p", "{nobody}"]}, "/backup/argv/1", "no parameter nobody"),
        ({"argv": ["p", "{"]}, "/backup/argv/1", "brace"),
        ({"argv": ["p", "a\0"]}, "/backup/argv/1", "NUL"),
        ({"cwd": "here"}, "/backup/cwd", "absolute path"),
        ({"timeoutMs": 0}, "/backup/timeoutMs", "at least 1"),
        ({"environment": {"MINOOTS_TIMER_ID": "x"}}, "/backup/environment", "MINOOTS_"),
        ({"environment": {"A=B": "x"}}, "/backup/environment", "no variable"),
        ({"tenants": ["a b"]}, "/backup/tenants", "no tenant"),
        ({"rejectedExitCodes": [0]}, "/backup/rejectedExitCodes", "at least 1"),
        ({"shell": True}, "/backup/shell", "no field shell"),
        ({"parameters": {"order": {"type": "text"}}}, "/backup/parameters", "text"),
        ({"parameters": {"a b": {"type": "string"}}}, "/backup/argv/1", "no parameter order"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(fields: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_commands(json.dumps({"backup": BACKUP | fields}), "MINOOTS_COMMANDS_PATH=/x")
    assert refused.value.detail.startswith(f"MINOOTS_COMMANDS_PATH=/x: at {place}")
    assert words in refused.value.detail


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ({"type": "string", "pattern": "("}, "cannot be read"),
        ({"type": "integer", "pattern": "1"}, "for the type string"),
        ({"type": "string", "min": 1}, "integer and number"),
        ({"type": "enum"}, "enum"),
        ({"type": "string", "values": ["a"]}, "enum"),
        ({"type": "integer", "default": "x"}, "the default has to be a whole number"),
    ],
)
def test_a_mistake_in_a_parameter_is_told(parameter: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_commands(json.dumps({"c": {"argv": ["p", "{x}"], "parameters": {"x": parameter}}}), "the file")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a b": {"argv": ["p"]}}', '{"a": {}, "a": {}}'])
def test_what_is_no_such_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the file"):
        read_commands(text, "the file")
