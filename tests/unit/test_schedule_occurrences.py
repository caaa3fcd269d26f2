"""Instants of whole schedules: united, excluded, counted, previewed; and those that never come."""

import importlib.resources
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minoots.domain.schedule import (
    Schedule,
    ScheduleTooSparse,
    following,
    jitter_of,
    never_fires,
    preview,
    read_schedule,
    run_between,
)
from minoots.domain.schedule import occurrences as module

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = timedelta(days=1)


def schedule(**fields: Any) -> Schedule:
    return read_schedule(json.dumps(fields).encode())


def first(found: Schedule, count: int = 1, after: datetime = NOW) -> list[datetime]:
    return list(islice(following(found, after), count))


def until(found: Schedule, end: datetime, after: datetime = NOW) -> list[datetime]:
    return list(takewhile(lambda at: at <= end, following(found, after)))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@given(st.integers(1_000, 10**10), st.integers(0, 10**10), st.integers(0, 10**9))
def test_every_never_drifts(every: int, phase: int, later: int) -> None:
    found = schedule(every=every, phase=phase % every)
    after = NOW + timedelta(milliseconds=later)
    came = first(found, 5, after)
    millisecond = timedelta(milliseconds=1)
    assert all((one - datetime(1970, 1, 1, tzinfo=UTC)) // millisecond % every == phase % every for one in came)
    assert timedelta() < came[0] - after <= every * millisecond
    assert all(b - a == every * millisecond for a, b in pairwise(came))


def test_every_counts_from_the_start_of_its_schedule() -> None:
    found = schedule(every="1h", startAt="2026-11-23T00:17:05.250Z")
    assert first(found, 2) == [at("2026-11-23T00:17:05.250Z"), at("2026-11-23T01:17:05.250Z")]
    with_phase = schedule(every="1h", phase="5m", startAt="2026-11-23T00:17:05.250Z")
    assert first(with_phase) == [at("2026-11-23T01:05:00Z")]


def test_every_pays_no_heed_to_changed_clocks() -> None:
    found = schedule(every="12h", timezone="Europe/Berlin")
    came = first(found, 4, at("2026-10-24T12:00:00Z"))
    assert all(b - a == timedelta(hours=12) for a, b in pairwise(came))


def test_a_union_comes_once_where_its_specs_coincide() -> None:
    found = schedule(specs=[{"every": "10m"}, {"cron": "*/15 * * * *"}, {"at": ["2026-11-22T00:10:00Z"]}])
    assert [one.minute for one in first(found, 8)] == [10, 15, 20, 30, 40, 45, 50, 0]


def test_the_bounds_are_included() -> None:
    found = schedule(cron="@hourly", startAt="2026-11-22T05:00:00Z", endAt="2026-11-22T07:00:00Z")
    assert [one.hour for one in first(found, 9)] == [5, 6, 7]


def test_nothing_comes_twice_and_nothing_at_the_moment_asked_about() -> None:
    found = schedule(cron="@hourly")
    assert first(found, 1, at("2026-11-22T05:00:00Z")) == [at("2026-11-22T06:00:00Z")]
    assert first(found, 1, at("2026-11-22T04:59:59.999999Z")) == [at("2026-11-22T05:00:00Z")]


def test_an_excluded_date_is_the_local_one() -> None:
    found = schedule(cron="0 0,23 * * *", timezone="Asia/Tokyo", exclude=["2026-11-23", "2026-11-23"])
    assert first(found, 3, at("2026-11-22T12:00:00Z")) == [
        at("2026-11-22T14:00:00Z"),
        at("2026-11-23T15:00:00Z"),
        at("2026-11-24T14:00:00Z"),
    ]


def test_excluded_dates_hold_for_every_in_its_zone() -> None:
    found = schedule(every="1s", timezone="America/Havana", exclude=["2020-11-01"])
    # On that day Havana goes back from 01:00 to 00:00: it has 25 hours.
    came = first(found, 2, at("2020-11-01T03:59:58Z"))
    assert came == [at("2020-11-01T03:59:59Z"), at("2020-11-02T05:00:00Z")]
    run = run_between(found, at("2020-10-31T04:00:00Z"), at("2020-11-03T05:00:00Z"), 2)
    assert (run.count, run.is_exact) == (2 * 86_400, True)


def test_instants_and_specs_are_excluded_where_they_coincide() -> None:
    found = schedule(cron="0 * * * *", exclude=["2026-11-22T03:00:00Z", {"cron": "0 0-1,5-23 * * *"}])
    assert [one.hour for one in first(found, 4)] == [2, 4, 2, 3]


def test_a_dense_exclusion_costs_no_walk_through_it() -> None:
    found = schedule(cron="0 9 * * *", exclude=[{"cron": "* * * * * SAT,SUN"}])
    assert all(one.weekday() < 5 for one in first(found, 300))


def test_an_excluded_weekend_of_seconds_is_passed_over() -> None:
    found = schedule(cron="* * * * * *", exclude=[{"cron": "* * * * * SAT,SUN"}])
    assert first(found) == [at("2026-11-23T00:00:00Z")]


SPECS = st.sampled_from(
    (
        {"every": "7m"},
        {"every": "1h", "phase": "5s"},
        {"cron": "*/5 * * * *"},
        {"cron": "30 2 * * *"},
        {"cron": "15,45 0-3 * * *"},
        {"rrule": "FREQ=HOURLY;INTERVAL=5;BYMINUTE=0,30", "dtstart": "2020-01-01T00:00:00"},
        {"rrule": "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0,20", "dtstart": "2020-01-01T00:00:00"},
        {"at": ["2026-03-29T01:00:00Z", "2026-10-25T00:30:00Z"]},
    )
)
ZONES = st.sampled_from(("UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "America/Havana"))
EXCLUDED = st.sampled_from(
    ("2026-03-29", "2026-10-25", "2026-04-05", "2026-03-29T01:00:00Z", {"cron": "*/30 * * * *"}, {"every": "35m"})
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(SPECS, min_size=1, max_size=3),
    ZONES,
    st.lists(EXCLUDED, max_size=2),
    st.sampled_from((None, "shift", "skip")),
    st.sampled_from((None, "first", "last", "both")),
    st.sampled_from(("2026-03-27T12:00:00Z", "2026-04-03T00:00:00Z", "2026-10-23T17:31:07Z", "2026-10-31T00:00:00Z")),
    st.integers(1, 4 * 86_400),
    st.integers(0, 20),
)
def test_a_run_is_what_walking_gives(
    specs: Sequence[Any], zone: str, exclude: Sequence[Any], gap: Any, overlap: Any, start: str, span: int, keep: int
) -> None:
    after = at(start)
    end = after + timedelta(seconds=span)
    # It ends, for some of these have nothing left that a look beyond could find.
    ends = (end + DAY).isoformat()
    found = schedule(specs=specs, timezone=zone, exclude=exclude, gap=gap, overlap=overlap, endAt=ends)
    walked = until(found, end, after)
    assert all(a < b for a, b in pairwise(walked))
    assert all(after < one <= end for one in walked)
    run = run_between(found, after, end, keep)
    assert (run.count, run.is_exact) == (len(walked), True)
    assert run.first == (walked[0] if walked else None)
    assert run.kept == (walked[-keep:] if keep else [])
    # Where one begins to ask makes no difference.
    middle = after + (end - after) / 2
    assert until(found, end, middle) == [one for one in walked if one > middle]
    assert [one.at for one in preview(found, after, 5)] == first(found, 5, after)


@pytest.mark.parametrize(
    "fields",
    [
        {"every": "1s"},
        {"cron": "* * * * * *", "timezone": "Europe/Berlin"},
        {"cron": "* * * * * *", "timezone": "Europe/Berlin", "exclude": ["2027-12-25"]},
        {"rrule": "FREQ=SECONDLY", "dtstart": "2000-01-01T00:00:00"},
    ],
)
def test_a_second_s_schedule_of_a_year_is_counted_without_walking(fields: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0
    walk = module.instants

    def counted(*args: Any) -> Any:
        nonlocal taken
        for one in walk(*args):
            taken += 1
            yield one

    monkeypatch.setattr(module, "instants", counted)
    run = run_between(schedule(**fields), NOW, NOW + 365 * DAY, 100)
    assert (run.count, run.is_exact) == (365 * 86_400, True)
    assert run.kept[-1] == NOW + 365 * DAY
    assert run.kept[0] == NOW + 365 * DAY - timedelta(seconds=99)
    assert taken < 2_000


def test_a_run_that_is_too_long_to_walk_is_a_lower_bound_with_the_right_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WALKED", 10_000)
    found = schedule(specs=[{"every": "1s"}, {"every": "2s"}])
    run = run_between(found, NOW, NOW + 7 * DAY, 3)
    assert (run.count, run.is_exact) == (10_000, False)
    assert run.kept == [NOW + 7 * DAY - timedelta(seconds=back) for back in (2, 1, 0)]


def test_the_last_of_a_burst_long_ago_are_found() -> None:
    burst = run_between(schedule(cron="* * 0-11 1 1 *"), NOW, NOW + 300 * DAY, 5)
    assert burst.count == 12 * 3600
    assert burst.kept == [at(f"2027-01-01T11:59:{second}Z") for second in range(55, 60)]


def test_an_empty_run_is_empty() -> None:
    run = run_between(schedule(cron="@yearly"), NOW, NOW + DAY, 3)
    assert (run.count, run.first, run.kept, run.is_exact) == (0, None, [], True)
    assert run_between(schedule(every="1s"), NOW, NOW, 3).count == 0
    assert run_between(schedule(every="1s"), NOW, NOW - DAY, 3).count == 0


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"rrule": "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "dtstart": "2020-01-01T00:00:00"}, "never come"),
        ({"rrule": "FREQ=MONTHLY;BYMONTH=4;BYMONTHDAY=31", "dtstart": "2020-01-01T00:00:00"}, "never come"),
        ({"rrule": "FREQ=DAILY;COUNT=3", "dtstart": "2020-01-01T00:00:00"}, "past"),
        ({"rrule": "FREQ=DAILY;UNTIL=20261121T000000Z", "dtstart": "2020-01-01T00:00:00"}, "past"),
        ({"at": ["2026-11-22T00:00:00Z"]}, "past"),
        ({"cron": "@daily", "endAt": "2026-11-22T00:00:00Z"}, "ended"),
        ({"cron": "@daily", "endAt": "2026-11-22T23:00:00Z"}, "before it first comes, at 2026-11-23T00:00:00"),
        ({"cron": "@daily", "exclude": [{"cron": "@hourly"}]}, "exclude"),
        ({"at": ["2027-01-01T00:00:00Z"], "exclude": ["2027-01-01"]}, "past"),
        ({"at": ["2027-01-01T00:00:00Z"], "exclude": ["2027-01-01T00:00:00Z"]}, "exclude"),
        ({"every": "1h", "exclude": [{"every": "30m"}]}, "exclude"),
        ({"rrule": "FREQ=DAILY;INTERVAL=7;BYMONTHDAY=1;BYDAY=TU", "dtstart": "2026-11-22T00:00:00"}, "cannot be found"),
    ],
)
def test_what_never_fires_says_why(fields: Any, says: str) -> None:
    why = never_fires(schedule(**fields), NOW)
    assert why is not None
    assert says in why


@pytest.mark.parametrize(
    "fields",
    [{"every": "1s"}, {"cron": "0 0 29 2 *"}, {"cron": "@daily", "endAt": "2026-11-23T00:00:00Z"}],
)
def test_what_fires_once_more_is_lawful(fields: Any) -> None:
    assert never_fires(schedule(**fields), NOW) is None


def test_an_exclusion_that_leaves_nothing_over_is_given_up() -> None:
    with pytest.raises(ScheduleTooSparse):
        first(schedule(every="1h", exclude=[{"every": "30m"}]))


def test_years_end_before_the_year_9000() -> None:
    assert first(schedule(cron="@yearly"), 9, at("8997-06-01T00:00:00Z")) == [
        at("8998-01-01T00:00:00Z"),
        at("8999-01-01T00:00:00Z"),
    ]
    assert len(first(schedule(every="24h"), 9, at("8999-12-27T12:00:00Z"))) == 4


@pytest.mark.parametrize("start", ["0001-01-01T00:00:00Z", "1899-12-31T23:59:59Z", "9999-12-31T00:00:00Z"])
@pytest.mark.parametrize("fields", [{"every": "1h"}, {"cron": "@daily", "timezone": "Europe/Paris"}])
def test_asked_about_any_year_it_answers(fields: Any, start: str) -> None:
    found = first(schedule(**fields), 2, at(start))
    assert all(1900 <= one.year < 9000 for one in found)


def remarks(after: str, count: int, **fields: Any) -> list[tuple[str, str | None]]:
    return [(one.local, one.note) for one in preview(schedule(**fields), at(after), count)]


def test_a_preview_tells_what_a_change_moved() -> None:
    assert remarks("2026-03-28T12:00:00Z", 2, cron="30 2 * * *", timezone="Europe/Berlin") == [
        (
            "2026-03-29T03:00:00+02:00",
            "02:30 does not exist on 2026-03-29 in Europe/Berlin: moved to 03:00; "
            "clocks change before this: the offset is now +02:00",
        ),
        ("2026-03-30T02:30:00+02:00", None),
    ]


def test_a_preview_tells_what_a_change_left_out() -> None:
    ((local, note),) = remarks("2026-03-28T12:00:00Z", 1, cron="30 2 * * *", timezone="Europe/Berlin", gap="skip")
    assert local == "2026-03-30T02:30:00+02:00"
    assert note is not None
    assert "02:30 does not exist on 2026-03-29 in Europe/Berlin: left out" in note


def test_a_preview_tells_which_of_two_times_it_is() -> None:
    found = remarks("2026-10-24T23:30:00Z", 4, cron="30 * * * *", timezone="Europe/Berlin")
    assert [local for local, _ in found] == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:30:00+01:00",
        "2026-10-25T04:30:00+01:00",
    ]
    notes = [note or "" for _, note in found]
    assert "02:30 comes twice on 2026-10-25 in Europe/Berlin: this is the first" in notes[0]
    assert "this is the second; clocks change before this: the offset is now +01:00" in notes[1]
    assert notes[2:] == ["", ""]


def test_a_preview_tells_of_a_day_that_there_was_not() -> None:
    ((local, note),) = remarks("2011-12-30T09:00:00Z", 1, cron="0 9 * * *", timezone="Pacific/Apia")
    assert local == "2011-12-31T00:00:00+14:00"
    assert note is not None
    assert "09:00 does not exist on 2011-12-30 in Pacific/Apia: moved to 2011-12-31 00:00" in note


def test_a_preview_shows_each_instant_in_its_spec_s_zone() -> None:
    specs = [{"cron": "0 9 * * *", "timezone": "Asia/Kathmandu"}, {"every": "24h"}]
    assert [local for local, _ in remarks("2026-11-22T00:00:00Z", 2, specs=specs)] == [
        "2026-11-22T09:00:00+05:45",
        "2026-11-23T00:00:00+00:00",
    ]


@settings(max_examples=50, deadline=None)
@given(ZONES, st.integers(0, 400 * 86_400), SPECS)
def test_a_preview_s_local_time_is_the_instant(zone: str, later: int, spec: Any) -> None:
    # The rules of the package, as the schedule has them: the machine's own may be of another year.
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *zone.split("/")).open("rb") as file:
        rules = ZoneInfo.from_file(file)
    after = NOW - 300 * DAY + timedelta(seconds=later)
    for one in preview(schedule(specs=[spec], timezone=zone), after, 12):
        assert datetime.fromisoformat(one.local) == one.at
        assert one.local[:19] == one.at.astimezone(rules).isoformat()[:19]


@given(st.uuids(), st.integers(1, 86_400_000))
def test_jitter_is_stable_and_inside_its_window(timer: UUID, window: int) -> None:
    found = schedule(every="1h", jitter=window)
    drawn = jitter_of(found, timer, NOW)
    assert timedelta() <= drawn <= timedelta(milliseconds=window)
    assert drawn == jitter_of(found, timer, NOW + DAY)
    assert drawn % timedelta(milliseconds=1) == timedelta()


def test_jitter_spreads_over_the_whole_window() -> None:
    found = schedule(every="1h", jitter="10s")
    drawn = [jitter_of(found, uuid4(), NOW) for _ in range(2_000)]
    assert min(drawn) < timedelta(milliseconds=200)
    assert max(drawn) > timedelta(milliseconds=9_800)
    assert jitter_of(schedule(every="1h"), uuid4(), NOW) == timedelta()
