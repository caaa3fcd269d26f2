"""A schedule's JSON: both forms, defaults, what is stored, and every mistake with its place."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from minoots.domain.schedule import CatchUp, following, read_schedule, schedule_text
from minoots.errors import Finding, InvalidTimer

EVERY = {"every": "15m"}
RULE = {"rrule": "FREQ=DAILY", "dtstart": "2026-01-01T00:00:00"}


def read(fields: Any, pointer: str = "/schedule") -> Any:
    return read_schedule(json.dumps(fields).encode(), pointer)


def refusals(fields: Any, pointer: str = "/schedule") -> tuple[Finding, ...]:
    with pytest.raises(InvalidTimer) as refused:
        read(fields, pointer)
    return refused.value.findings


def test_what_is_left_out_has_its_default() -> None:
    found = read(EVERY)
    assert found.start_at is found.end_at is found.max_occurrences is found.pause_after_failures is None
    assert found.gap is found.overlap is None
    assert found.jitter_ms == 0
    assert found.while_running == "allow"
    assert found.catch_up == CatchUp("latest", timedelta(days=365), 100)


def test_every_field_is_read() -> None:
    found = read(
        {
            "specs": [EVERY, {"cron": "0 9 * * *", "timezone": "Asia/Tokyo"}, RULE, {"at": ["2030-01-01T00:00:00Z"]}],
            "timezone": "Europe/Berlin",
            "exclude": ["2030-12-25", "2030-01-01T00:00:00Z", {"cron": "0 * * * *"}],
            "gap": "skip",
            "overlap": "last",
            "startAt": "2027-01-01T00:00:00+01:00",
            "endAt": "2031-01-01T00:00:00Z",
            "maxOccurrences": 10,
            "jitter": "30s",
            "catchUp": {"policy": "all", "window": "1d", "max": 7},
            "whileRunning": "queue",
            "pauseAfterFailures": 3,
        }
    )
    assert (found.gap, found.overlap) == ("skip", "last")
    assert found.start_at == datetime(2026, 12, 31, 23, tzinfo=UTC)
    assert found.end_at == datetime(2031, 1, 1, tzinfo=UTC)
    assert (found.max_occurrences, found.jitter_ms, found.pause_after_failures) == (10, 30_000, 3)
    assert found.catch_up == CatchUp("all", timedelta(days=1), 7)
    assert found.while_running == "queue"
    assert [line.zone.name for line in found.lines] == ["Europe/Berlin", "Asia/Tokyo", "Europe/Berlin", "Europe/Berlin"]


def test_not_catching_up_still_fires_what_is_a_minute_late() -> None:
    assert read({**EVERY, "catchUp": {"policy": "none"}}).catch_up == CatchUp("none", timedelta(minutes=1), 100)
    assert read({**EVERY, "catchUp": {"policy": "none", "window": "5m"}}).catch_up.window == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("fields", "stored"),
    [
        ({"every": 900_000}, '{"specs":[{"every":900000}]}'),
        (
            {"timezone": "Europe/Berlin", "cron": " 0 9 * * 1-5 ", "catchUp": {"policy": "none", "max": None}},
            '{"specs":[{"cron":" 0 9 * * 1-5 ","timezone":"Europe/Berlin"}],"catchUp":{"policy":"none"}}',
        ),
        (
            {"gap": None, "specs": [{"every": "15m", "phase": None}], "timezone": "UTC", "exclude": ["2030-12-25"]},
            '{"specs":[{"every":"15m"}],"timezone":"UTC","exclude":["2030-12-25"]}',
        ),
    ],
)
def test_what_is_stored_has_specs_and_only_what_was_given(fields: Any, stored: str) -> None:
    assert schedule_text(read(fields)) == stored
    assert schedule_text(read_schedule(stored.encode())) == stored


BAD_SPECS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"cron": "* * * * *", "every": "1h"}, ""),
    ({"cron": 5}, "/cron"),
    ({"cron": "* * * *"}, "/cron"),
    ({"cron": "* * * * *", "timezone": "Europe/Belin"}, "/timezone"),
    ({"cron": "* * * * *", "timezone": 1}, "/timezone"),
    ({"cron": "* * * * *", "phase": "1s"}, "/phase"),
    ({"cron": "* * * * *", "dtstart": "2026-01-01"}, "/dtstart"),
    ({"cron": "* * * * *", "hour": 3}, "/hour"),
    ({"every": "999ms"}, "/every"),
    ({"every": "0s"}, "/every"),
    ({"every": -5}, "/every"),
    ({"every": True}, "/every"),
    ({"every": "15"}, "/every"),
    ({"every": "15m", "phase": "15m"}, "/phase"),
    ({"every": "15m", "phase": -1}, "/phase"),
    ({"every": "15m", "phase": "x0"}, "/phase"),
    ({"rrule": "FREQ=DAILY"}, "/dtstart"),
    ({"rrule": "FREQ=DAILY", "dtstart": "tomorrow"}, "/dtstart"),
    ({"rrule": "FREQ=DAILY", "dtstart": "2026-02-30"}, "/dtstart"),
    ({"rrule": "FREQ=DAYLY", "dtstart": "2026-01-01"}, "/rrule"),
    ({"at": []}, "/at"),
    ({"at": "2030-01-01T00:00:00Z"}, "/at"),
    ({"at": ["2030-01-01T00:00:00Z", "2030-01-01T00:00:00.5"]}, "/at/1"),
    ({"at": ["9000-01-01T00:00:00Z"]}, "/at/0"),
    ({"at": [5]}, "/at/0"),
    ({"at": ["2030-01-01T00:00:00Z"] * 1_001}, "/at"),
]


@pytest.mark.parametrize(("spec", "place"), BAD_SPECS)
def test_a_wrong_spec_is_told_with_its_place(spec: dict[str, Any], place: str) -> None:
    assert [finding.pointer for finding in refusals(spec)] == [f"/schedule{place}"]
    assert [finding.pointer for finding in refusals({"specs": [EVERY, spec]})] == [f"/schedule/specs/1{place}"]
    assert [finding.pointer for finding in refusals({**EVERY, "exclude": [spec]})] == [f"/schedule/exclude/0{place}"]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"specs": []}, "/specs"),
        ({"specs": [EVERY] * 17}, "/specs"),
        ({"specs": EVERY}, "/specs"),
        ({"specs": [5]}, "/specs/0"),
        ({"specs": [EVERY], "cron": "* * * * *"}, "/cron"),
        ({"specs": [EVERY], "timezone": "Mars/Olympus"}, "/timezone"),
        ({**EVERY, "exlude": []}, "/exlude"),
        ({**EVERY, "a/b~": 1}, "/a~1b~0"),
        ({**EVERY, "exclude": "2030-12-25"}, "/exclude"),
        ({**EVERY, "exclude": ["2030-12-25"] * 1_001}, "/exclude"),
        ({**EVERY, "exclude": ["2030-13-25"]}, "/exclude/0"),
        ({**EVERY, "exclude": ["2030-12-25T00:00:00"]}, "/exclude/0"),
        ({**EVERY, "exclude": [5]}, "/exclude/0"),
        ({**EVERY, "exclude": [EVERY] * 17}, "/exclude/16"),
        ({**EVERY, "gap": "first"}, "/gap"),
        ({**EVERY, "overlap": ["first"]}, "/overlap"),
        ({**EVERY, "startAt": "2030-01-01"}, "/startAt"),
        ({**EVERY, "startAt": "9000-01-01T00:00:00Z"}, "/startAt"),
        ({**EVERY, "startAt": 5}, "/startAt"),
        ({**EVERY, "startAt": "2030-01-01T00:00:00Z", "endAt": "2030-01-01T00:00:00Z"}, "/endAt"),
        ({**EVERY, "maxOccurrences": 0}, "/maxOccurrences"),
        ({**EVERY, "maxOccurrences": 1_000_000_001}, "/maxOccurrences"),
        ({**EVERY, "maxOccurrences": True}, "/maxOccurrences"),
        ({**EVERY, "jitter": "24h1ms"}, "/jitter"),
        ({**EVERY, "jitter": "soon"}, "/jitter"),
        ({**EVERY, "catchUp": "all"}, "/catchUp"),
        ({**EVERY, "catchUp": {"policy": "some"}}, "/catchUp/policy"),
        ({**EVERY, "catchUp": {"window": "59s"}}, "/catchUp/window"),
        ({**EVERY, "catchUp": {"policy": "all", "max": 0}}, "/catchUp/max"),
        ({**EVERY, "catchUp": {"policy": "all", "max": 1_001}}, "/catchUp/max"),
        ({**EVERY, "catchUp": {"age": "1h"}}, "/catchUp/age"),
        ({**EVERY, "whileRunning": "wait"}, "/whileRunning"),
        ({**EVERY, "pauseAfterFailures": 1_001}, "/pauseAfterFailures"),
        ([EVERY], ""),
        ("@daily", ""),
        ({**EVERY, "exclude": [f"{year}-12-25" for year in range(2030, 3000)] + ["x" * 60_000]}, ""),
    ],
)  # fmt: skip
def test_a_wrong_field_is_told_with_its_place(fields: Any, place: str) -> None:
    found = refusals(fields, "/items/3/schedule")
    assert [finding.pointer for finding in found] == [f"/items/3/schedule{place}"]
    assert all(len(finding.detail) < 400 for finding in found)


def test_a_local_instant_needs_a_zone() -> None:
    (finding,) = refusals({"at": ["2030-01-01T00:00:00Z", "2030-06-01T00:00:00"]})
    assert finding.pointer == "/schedule/at/1"
    found = read({"at": ["2030-01-01T00:00:00Z", "2030-06-01T00:00:00"], "timezone": "Asia/Tokyo"})
    before = datetime(2030, 1, 2, tzinfo=UTC)
    assert list(following(found, before)) == [datetime(2030, 5, 31, 15, tzinfo=UTC)]


def test_all_mistakes_are_told_at_once() -> None:
    found = refusals(
        {
            "specs": [{"cron": "x"}, {"every": "1h", "timezone": "Europe/Berln"}, {"rrule": "FREQ=X"}],
            "gap": 1,
            "catchUp": {"policy": 1, "window": 1},
            "jitter": 0,
        }
    )
    assert sorted(finding.pointer.removeprefix("/schedule") for finding in found) == [
        "/catchUp/policy",
        "/catchUp/window",
        "/gap",
        "/jitter",
        "/specs/0/cron",
        "/specs/1/timezone",
        "/specs/2/dtstart",
        "/specs/2/rrule",
    ]


def test_what_is_no_json_is_refused() -> None:
    for raw in (b"{", b"\xff", b"[" * 60_000):
        with pytest.raises(InvalidTimer) as refused:
            read_schedule(raw)
        assert refused.value.findings[0].pointer == "/schedule"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("Europe/Belin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        ("new york", "America/New_York"),
        ("utc", "UTC"),
    ],
)
def test_an_unknown_zone_names_close_ones(asked: str, meant: str) -> None:
    (finding,) = refusals({"cron": "@daily", "timezone": asked})
    assert meant in finding.detail


@pytest.mark.parametrize("name", ["", "../UTC", "/etc/passwd", "Europe/", "Nowhere/Land", "localtime", "x" * 5_000])
def test_a_name_that_is_none_is_no_path_either(name: str) -> None:
    (finding,) = refusals({"cron": "@daily", "timezone": name})
    assert "no time zone" in finding.detail


def test_mistakes_without_number_are_told_in_part() -> None:
    assert len(refusals({**EVERY, "exclude": ["never"] * 1_000})) == 50


def test_an_excluded_spec_has_the_zone_of_what_it_is_taken_from() -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    found = read({"cron": "0 9,10 * * *", "timezone": "Asia/Tokyo", "exclude": [{"cron": "0 9 * * *"}]})
    assert next(following(found, now)) == datetime(2026, 11, 22, 1, tzinfo=UTC)


@pytest.mark.parametrize(("phase", "comes"), [("0s", 15), (0, 15), ("5m", 5), ("PT5M", 5), (300_000, 5)])
def test_a_phase_says_how_far_after_each_multiple(phase: Any, comes: int) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert next(following(read({"every": "15m", "phase": phase}), now)) == now + timedelta(minutes=comes)
