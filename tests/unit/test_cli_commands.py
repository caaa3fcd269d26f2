"""The command line: what is read from it, how it ends, and that it starts fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minoots.cli.app import run
from minoots.cli.client import Api, Problem, Refused, named_path, timer_path
from minoots.cli.exits import CommandStopped, describe_end
from minoots.cli.timer_request import (
    WhenOptions,
    camel,
    read_duration,
    read_json_or_file,
    read_labels,
    read_timeout,
    read_when,
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


def test_when_and_name_are_told_apart_by_the_options() -> None:
    at = WhenOptions(at="2030-01-31T09:00:00Z")
    assert read_when(["30s", "tea"], WhenOptions()) == ({"duration": "30s"}, "tea")
    assert read_when(["tea", None], at) == ({"fireAt": "2030-01-31T09:00:00Z"}, "tea")
    assert read_when([None, None], WhenOptions(at="2030-01-31T09:00:00+01:00"))[1] is None
    assert read_when(["tea", None], WhenOptions(every="15m")) == ({"schedule": {"every": "15m"}}, "tea")


def test_a_schedule_is_a_cron_line_with_its_zone_or_anything_that_is_json(tmp_path: Path) -> None:
    cron = WhenOptions(cron="0 9 * * 1-5", timezone="Europe/Berlin")
    assert read_when([None], cron)[0] == {"schedule": {"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}}
    assert read_when([], WhenOptions(cron="@daily"))[0] == {"schedule": {"cron": "@daily"}}
    file = tmp_path / "schedule.json"
    file.write_text('{"specs": [{"every": "1h"}], "maxOccurrences": 3}')
    for text in (str(file), file.read_text()):
        asked, _ = read_when([None], WhenOptions(schedule=text))
        assert asked == {"schedule": {"specs": [{"every": "1h"}], "maxOccurrences": 3}}


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["30s", "tea"], WhenOptions(at="2030-01-31T09:00:00Z"), "only one of the duration 30s and --at"),
        (["30s"], WhenOptions(cron="@daily"), "only one of the duration 30s and --cron"),
        ([None, None], WhenOptions(cron="@daily", every="1h"), "only one of --cron and --every"),
        ([None, None], WhenOptions(), "say when: 30s, or --at, --cron, --every or --schedule"),
        ([], WhenOptions(), "say when: --cron, --every or --schedule"),
        ([None], WhenOptions(at="tomorrow"), "--at tomorrow"),
        ([None], WhenOptions(every="15"), "write 15s for seconds"),
        ([None], WhenOptions(schedule="{broken"), "--schedule is no valid JSON"),
        ([None], WhenOptions(every="1h", timezone="UTC"), "--timezone goes with --cron"),
        (["30s"], WhenOptions(timezone="UTC"), "--timezone goes with --cron"),
    ],
)
def test_two_ways_to_say_when_or_none_are_a_usage_error(
    words: list[str | None], options: WhenOptions, said: str
) -> None:
    with pytest.raises(CommandStopped, match=said) as stopped:
        read_when(words, options)
    assert stopped.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["update", "ID"], "say what to change"),
        (["update", "ID", "--name", "x", "--clear", "name"], "give name a value or clear it"),
        (["update", "ID", "--webhook", "http://h", "--action-bundle", "{}"], "either --webhook or --action-bundle"),
        (["update", "ID", "--clear", "schedule"], "schedule"),
        (["put", "nightly"], "say when"),
        (["put", " ", "1h"], "give the timer's name"),
        (["reschedule", "ID"], "say when"),
        (["preview"], "say when: --cron"),
        (["preview", "--every", "1h", "--after", "soon"], "--after soon"),
        (["preview", "--every", "1h", "--count", "101"], "less than or equal to 100"),
        (["watch", "ID", "--firings", "0"], "greater than or equal to 1"),
    ],
)
def test_a_change_that_cannot_be_meant_is_one_sentence(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["timer", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert (shown.out, shown.err.count("\n")) == ("", 1)


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


def test_a_name_is_one_step_of_its_path_whatever_is_in_it() -> None:
    assert named_path("a/b c?") == "/timers/by-name/a%2Fb%20c%3F"
    assert [camel(name) for name in ("action-bundle", "name")] == ["actionBundle", "name"]


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


def test_production_says_at_once_that_it_needs_a_key_for_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINOOTS_ENV", "production")
    monkeypatch.setenv("MINOOTS_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("API_KEYS_JSON", '[{"key":"mnt_12345678","userId":"a","tenants":["a"]}]')
    monkeypatch.delenv("MINOOTS_SECRETS_KEY", raising=False)
    assert run(["serve", "api", "orchestrator"]) == 2
    assert "openssl rand -base64 32" in capsys.readouterr().err


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = ("up", "serve", "migrate", "events", "orchestrate", "retention", "timer", "secret", "import")
    for command in (*commands, "dead-letters"):
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
