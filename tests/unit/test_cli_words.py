"""Spans, instants and states in words; and what of a stranger's text reaches a terminal."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from minoots.cli.exits import printable
from minoots.cli.schedule_words import describe_schedule, short_schedule
from minoots.cli.words import describe_attempt, due, fired_late, has_ended, lateness, local, span

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9999, "1 s"),
        (1, "1 s"),
        (3.24, "3.2 s"),
        (9.96, "10 s"),
        (45, "45 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3661, "1 h 1 min"),
        (86_400 * 2 + 3600 * 4 + 59, "2 d 4 h"),
        (86_400 * 400, "1 y 35 d"),
        (-5, "0 ms"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds) == words


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_waiting_timer_is_due_in_or_late_by() -> None:
    assert due({"status": "scheduled", "fireAt": at(25)}, NOW) == "in 25 s"
    assert due({"status": "scheduled", "fireAt": at(-4)}, NOW) == "late by 4 s"
    assert due({"status": "paused", "fireAt": at(-4)}, NOW) == "paused"


def test_an_ended_timer_says_since_when() -> None:
    assert due({"status": "settled", "firedAt": at(-90), "settledAt": at(-60)}, NOW) == "1 min ago"
    assert due({"status": "cancelled", "cancelledAt": at(-3600)}, NOW) == "1 h ago"
    assert due({"status": "of a newer server"}, NOW) == "–"


def test_lateness_is_fired_minus_asked() -> None:
    assert lateness({"fireAt": at(0), "firedAt": at(0.012)}) == "late by 12 ms"
    assert lateness({"fireAt": at(0), "firedAt": None}) is None


def test_a_recurring_timer_is_due_at_its_next_instant() -> None:
    daily = {"schedule": {"specs": [{"cron": "@daily"}]}}
    assert due(daily | {"status": "scheduled", "fireAt": at(60), "firedAt": at(-60)}, NOW) == "in 1 min"
    assert due(daily | {"status": "scheduled", "fireAt": None, "firedAt": at(-60)}, NOW) == "none planned"
    assert due(daily | {"status": "paused", "fireAt": None}, NOW) == "paused"
    assert due(daily | {"status": "settled", "fireAt": None, "settledAt": at(-60)}, NOW) == "1 min ago"
    assert lateness(daily | {"fireAt": at(60), "firedAt": at(0)}) is None, "its fireAt is the next one"
    assert fired_late({"latenessMs": 12.4}) == "late by 12 ms"


@pytest.mark.parametrize(
    ("schedule", "short", "whole"),
    [
        (
            {"specs": [{"cron": "0 9 * * 1-5", "timezone": "Europe/Berlin"}], "maxOccurrences": 5, "jitter": "30s"},
            "cron 0 9 * * 1-5 Europe/Berlin",
            "cron 0 9 * * 1-5 Europe/Berlin, maxOccurrences 5, jitter 30s",
        ),
        (
            {"specs": [{"every": "15m", "phase": "5m"}, {"at": ["2030-01-01T00:00:00Z"]}]},
            "every 15m phase 5m and at 2030-01-01T00:00:00Z",
            "every 15m phase 5m and at 2030-01-01T00:00:00Z",
        ),
        (
            {"specs": [{"rrule": "FREQ=DAILY", "dtstart": "2026-01-01T09:00:00"}, {"every": 1}, {"at": ["a", "b"]}]},
            "rrule FREQ=DAILY dtstart 2026-01-01T09:00:00 and 2 more",
            "rrule FREQ=DAILY dtstart 2026-01-01T09:00:00 and 2 more",
        ),
        (
            {"specs": [{"at": ["a", "b"]}], "catchUp": {"policy": "all"}},
            "at 2 instants",
            'at 2 instants, catchUp {"policy": "all"}',
        ),
        ({"specs": [{"moon": "full"}], "gap": None}, '{"moon": "full"}', '{"moon": "full"}'),
        (None, "", ""),
    ],
)
def test_a_schedule_is_told_by_its_specs_and_what_else_it_says(schedule: object, short: str, whole: str) -> None:
    assert (short_schedule(schedule), describe_schedule(schedule)) == (short, whole)


def test_an_instant_is_shown_on_the_readers_clock_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2030, 1, 31, 10, 0, tzinfo=timezone(timedelta(hours=1)))
    shown = local(moment)
    assert datetime.strptime(shown, "%Y-%m-%d %H:%M:%S %z") == moment


@pytest.mark.parametrize(
    ("timer", "ended"),
    [
        ({"status": "scheduled"}, False),
        ({"status": "scheduled", "schedule": {}, "firedAt": "2030-01-01T00:00:00Z"}, False),
        ({"status": "paused"}, False),
        ({"status": "fired", "actionBundle": None, "agentBinding": None}, True),
        ({"status": "fired", "actionBundle": {"actions": []}, "agentBinding": None}, True),
        ({"status": "fired", "actionBundle": {"actions": [{"id": "a"}]}}, False),
        ({"status": "fired", "actionBundle": None, "agentBinding": {"adapter": "mcp"}}, False),
        ({"status": "settled", "actionBundle": {"actions": [{"id": "a"}]}}, True),
        ({"status": "failed"}, True),
        ({"status": "cancelled"}, True),
    ],
)
def test_a_timer_has_ended_when_nothing_more_happens_by_itself(timer: dict[str, object], ended: bool) -> None:
    assert has_ended(timer) is ended


def test_an_attempt_is_told_in_one_line() -> None:
    failed = {"outcome": "retry", "statusCode": 503, "durationMs": 12, "error": "HTTP 503", "excerpt": "sorry"}
    assert describe_attempt(failed) == "retry, 503 in 12 ms: HTTP 503"
    assert describe_attempt({"outcome": "delivered", "statusCode": 200, "excerpt": "ok"}) == "delivered, 200"


def test_text_of_strangers_cannot_steer_the_terminal() -> None:
    assert printable("coffee break") == "coffee break"
    assert printable("Kaffee für Zoë ☕") == "Kaffee für Zoë ☕"
    assert printable("a\nb\tc") == "a b c"
    assert printable("\x1b[31mred\x07\x9b1m\u202eevil\ud800") == "�[31mred��1m�evil�"
