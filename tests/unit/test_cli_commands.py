"""The command line: what is read from it, how it ends, and that it starts fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minoots.cli.app import run
from minoots.cli.client import Api, Problem, Refused, timer_path
from minoots.cli.exits import CommandStopped, describe_end
from minoots.cli.timer_request import (
    read_duration,
    read_instant_words,
    read_json_or_file,
    read_labels,
    read_timeout,
    webhook_bundle,
)
from minoots.domain.action import check_action_bundle
from minoots.errors import (
    ConfigError,
    EmbeddedError,
    FiringNotFound,
    Forbidden,
    MinootsError,
    StoreUnavailable,
    TimerNotFound,
)


@pytest.mark.parametrize("text", ["30s", "1h30m", "PT30S", "0.5s", "0s", "999999999999w", " 5m "])
def test_what_has_the_form_of_a_duration_is_for_the_server_to_judge(text: str) -> None:
    assert read_duration(text) == text.strip()


@pytest.mark.parametrize("text", ["banana", "30", "", "s", "30x", "P1Y", "1h1h", "--"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(CommandStopped) as stopped:
        read_duration(text)
    assert stopped.value.code == 2


def test_a_bare_number_is_asked_for_its_unit() -> None:
    with pytest.raises(CommandStopped, match="write 30s for seconds, 30ms for milliseconds"):
        read_duration("30")


def test_when_and_name_are_told_apart_by_at() -> None:
    assert read_instant_words("30s", "tea", None) == ({"duration": "30s"}, "tea")
    assert read_instant_words("tea", None, "2030-01-31T09:00:00Z") == ({"fireAt": "2030-01-31T09:00:00Z"}, "tea")
    assert read_instant_words(None, None, "2030-01-31T09:00:00+01:00")[1] is None
    for wrong in (("30s", "tea", "2030-01-31T09:00:00Z"), (None, None, None), (None, None, "tomorrow")):
        with pytest.raises(CommandStopped) as stopped:
            read_instant_words(*wrong)
        assert stopped.value.code == 2


def test_labels_are_divided_at_the_first_separator() -> None:
    assert read_labels(["a=b=c", "team:x"], "=:") == {"a": "b=c", "team": "x"}
    assert read_labels(["imported-from:a:b", "k=v"], ":=") == {"imported-from": "a:b", "k": "v"}
    assert read_labels(["empty="], "=:") == {"empty": ""}
    with pytest.raises(CommandStopped, match="has no value"):
        read_labels(["alone"], "=:")
    with pytest.raises(CommandStopped, match="given twice"):
        read_labels(["a=1", "a=2"], "=:")


def test_a_timeout_is_a_duration_or_seconds() -> None:
    assert read_timeout("1m30s") == 90
    assert read_timeout("2.5") == 2.5
    with pytest.raises(CommandStopped):
        read_timeout("soon")


def test_a_bundle_comes_as_json_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    file.write_text('{"actions": []}')
    assert read_json_or_file("--action-bundle", str(file)) == {"actions": []}
    assert read_json_or_file("--action-bundle", ' {"actions": []}') == {"actions": []}
    for wrong in (str(tmp_path / "none"), "{broken", '{"a": NaN}'):
        with pytest.raises(CommandStopped) as stopped:
            read_json_or_file("--action-bundle", wrong)
        assert stopped.value.code == 2


def test_webhooks_make_a_lawful_bundle() -> None:
    bundle = webhook_bundle(["http://127.0.0.1/a", "http://127.0.0.1/b"])
    check_action_bundle(json.dumps(bundle).encode())
    assert [action["id"] for action in bundle["actions"]] == ["webhook", "webhook-2"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (TimerNotFound(), 3),
        (FiringNotFound(), 3),
        (Forbidden(), 4),
        (StoreUnavailable(), 5),
        (EmbeddedError("x"), 1),
        (Refused(Problem(404, "none", (), None)), 3),
        (Refused(Problem(422, "no", (), None)), 4),
        (Refused(Problem(409, "no", (), None)), 4),
    ],
)
def test_an_error_has_its_exit_code(error: MinootsError | CommandStopped, code: int) -> None:
    assert describe_end(error)[1] == code


def test_every_finding_is_a_line_with_its_pointer() -> None:
    problem = Problem(422, "x", [("/name", "too long"), ("", "nothing")], None)
    assert problem.sentence() == "too long (/name)\nnothing"


def test_an_id_cannot_leave_its_path() -> None:
    assert timer_path("a/../b?c#d", "firings", 1) == "/timers/a%2F..%2Fb%3Fc%23d/firings/1"
    for wrong in ("", " ", ".", ".."):
        with pytest.raises(CommandStopped):
            timer_path(wrong)


@pytest.mark.parametrize("url", ["localhost:4000", "ftp://x", "http://", "http://x:99999", "http://a b"])
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(CommandStopped, match="MINOOTS_API_URL") as stopped:
        Api(url, None, None)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["timer", "bogus"], ["timer", "get"], ["timer", "list", "--status", "x"], ["serve", "x"], ["--bogus"]],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("minoots: ")
    assert shown.err.count("\n") == 1
    assert "--help" in shown.err


def test_a_misspelt_setting_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINOOTS_API_KEI", "x")
    assert run(["timer", "list"]) == 2
    assert "did you mean MINOOTS_API_KEY?" in capsys.readouterr().err


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("up", "serve", "migrate", "events", "orchestrate", "timer", "import"):
        assert command in shown
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("minoots 0.")


def test_a_client_command_loads_no_server() -> None:
    """What makes `minoots timer list` start fast, as a fact that does not depend on the machine."""
    code = (
        "import sys; from minoots.cli.app import run; run(['timer', 'list']);"
        "heavy = {'litestar', 'grpc', 'asyncpg', 'sqlalchemy', 'alembic', 'nats', 'aiohttp', 'granian', 'structlog'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MINOOTS_API_URL": "http://127.0.0.1:1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == "[]", done.stderr
