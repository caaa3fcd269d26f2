"""RRULE against dateutil, which walks from DTSTART; and rules that dateutil would walk for hours."""

import json
from datetime import UTC, date, datetime, timedelta
from itertools import islice, takewhile

import pytest
from dateutil import rrule as dateutil
from hypothesis import given, settings
from hypothesis import strategies as st

from minoots.domain.schedule import Schedule, ScheduleTooSparse, following, read_schedule
from minoots.domain.schedule.calendar_days import week_of
from minoots.domain.schedule.recurrence import Recurrence
from minoots.domain.schedule.rrule_text import read_rrule
from minoots.domain.schedule.steps import BUDGET, Steps
from minoots.domain.schedule.wall import count_walls, walls
from minoots.errors import InvalidTimer

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - walls have no zone
DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")


def schedule(rule: str, dtstart: str, **fields: object) -> Schedule:
    return read_schedule(json.dumps({"rrule": rule, "dtstart": dtstart, **fields}).encode())


def first(found: Schedule, count: int, after: datetime) -> list[datetime]:
    return list(islice(following(found, after), count))


def seconds(local: datetime) -> int:
    return int((local - EPOCH).total_seconds())


def signed(most: int) -> st.SearchStrategy[int]:
    return st.integers(1, most) | st.integers(-most, -1)


def some(of: st.SearchStrategy[int], most: int = 4) -> st.SearchStrategy[str]:
    return st.lists(of, min_size=1, max_size=most, unique=True).map(lambda many: ",".join(map(str, many)))


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Lawful rules in which dateutil does what RFC 5545 says."""
    frequency = draw(st.sampled_from(("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")))
    parts = {"FREQ": frequency}
    if draw(st.booleans()):
        parts["INTERVAL"] = str(draw(st.integers(1, 40)))

    def maybe(name: str, values: st.SearchStrategy[str], rarely: bool = False) -> None:
        if draw(st.integers(0, 5 if rarely else 2)) == 0:
            parts[name] = draw(values)

    maybe("BYMONTH", some(st.integers(1, 12)))
    if frequency == "YEARLY":
        # Of a year's first days that belong to the last week of the year before, and of those week numbers counted from
        # the end, dateutil has it wrong; another test compares with `isocalendar`.
        maybe("BYWEEKNO", some(st.integers(1, 51) | st.integers(-51, -1)), rarely=True)
    if frequency not in ("MONTHLY", "WEEKLY", "DAILY"):
        maybe("BYYEARDAY", some(signed(366), 20), rarely=True)
    if frequency != "WEEKLY":
        maybe("BYMONTHDAY", some(signed(31), 8))
    maybe("BYDAY", st.lists(st.sampled_from(DAYS), min_size=1, max_size=4, unique=True).map(",".join))
    if frequency in ("MONTHLY", "YEARLY") and "BYWEEKNO" not in parts and draw(st.booleans()):
        # All numbered: dateutil does not unite plain and numbered weekdays.
        numbered = st.tuples(signed(5), st.sampled_from(DAYS)).map(lambda pair: f"{pair[0]}{pair[1]}")
        parts["BYDAY"] = ",".join(draw(st.lists(numbered, min_size=1, max_size=3, unique=True)))
    maybe("BYHOUR", some(st.integers(0, 23)))
    maybe("BYMINUTE", some(st.integers(0, 59)))
    maybe("BYSECOND", some(st.integers(0, 59)))
    if len(parts) > 2:
        maybe("WKST", st.sampled_from(DAYS))
    if any(name.startswith("BY") for name in parts):
        maybe("BYSETPOS", some(signed(4)))
    return ";".join(f"{name}={value}" for name, value in parts.items())


STARTS = st.datetimes(datetime(1995, 1, 1), datetime(2030, 1, 1)).map(  # noqa: DTZ001 - walls have no zone
    lambda at: at.replace(microsecond=0)
)


def by_dateutil(text: str, start: datetime, end: datetime) -> list[int]:
    """dateutil goes on to the year 9999 for the next instant after `until`; its idea of the last year is lowered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datetime.MAXYEAR", end.year + 1)
        found = takewhile(lambda at: at <= end, dateutil.rrulestr(text, dtstart=start))
        return [seconds(at) for at in found]


def by_definition(text: str, start: datetime, end: datetime) -> list[int]:
    """Frequencies below a day, period by period from DTSTART as RFC 5545 tells it: dateutil takes hours for them."""
    parts = dict(part.split("=") for part in text.split(";"))
    by = {name: [int(n) for n in parts[name].split(",")] for name in parts if name.startswith("BY") and name != "BYDAY"}
    unit = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}[parts["FREQ"]]
    minutes = by.get("BYMINUTE", [start.minute]) if unit == 3600 else [0]
    plain = by.get("BYSECOND", [start.second]) if unit > 1 else [0]
    within = sorted({minute * 60 + second for minute in minutes for second in plain})
    chosen = within
    if "BYSETPOS" in by:
        chosen = sorted({within[n - 1 if n > 0 else n] for n in by["BYSETPOS"] if abs(n) <= len(within)})
    found = []
    for period in range(seconds(start) // unit * unit, seconds(end) + 1, unit * int(parts.get("INTERVAL", 1))):
        at = EPOCH + timedelta(seconds=period)
        tomorrow, new_year = at + timedelta(days=1), at.replace(year=at.year + 1, month=1, day=1)
        month_end = (at.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
        days_left = (new_year.date() - at.date()).days
        is_kept = (
            at.month in by.get("BYMONTH", [at.month])
            and {at.day, at.day - month_end.day - 1} & set(by.get("BYMONTHDAY", [at.day]))
            and {at.timetuple().tm_yday, -days_left} & set(by.get("BYYEARDAY", [-days_left]))
            and DAYS[at.weekday()] in parts.get("BYDAY", ",".join(DAYS))
            and at.hour in by.get("BYHOUR", [at.hour])
            and (unit == 3600 or at.minute in by.get("BYMINUTE", [at.minute]))
            and (unit > 1 or at.second in by.get("BYSECOND", [at.second]))
        )
        assert tomorrow > at
        found += [period + one for one in chosen if is_kept]
    return [wall for wall in found if seconds(start) <= wall <= seconds(end)]


# How far the walk goes in reasonable time.
REACH = {"SECONDLY": timedelta(hours=2), "MINUTELY": timedelta(days=4), "HOURLY": timedelta(days=200)}


@settings(max_examples=250, deadline=None)
@given(rules(), STARTS, st.floats(0, 1))
def test_walls_are_those_of_a_walk_from_dtstart_wherever_the_look_begins(
    text: str, start: datetime, place: float
) -> None:
    parts = dict(part.split("=") for part in text.split(";"))
    if parts["FREQ"] == "WEEKLY" and "BYSETPOS" in parts:
        # dateutil's first week begins at DTSTART; in RFC 5545 BYSETPOS counts in whole ones.
        start -= timedelta(days=(start.weekday() - DAYS.index(parts.get("WKST", "MO"))) % 7)
    end = start + REACH.get(parts["FREQ"], timedelta(days=12 * 366))
    expected = (by_definition if parts["FREQ"] in REACH else by_dateutil)(text, start, end)
    try:
        ours = Recurrence(read_rrule(text), start)
    except ValueError:
        # "This rule never comes."
        assert not expected
        return
    assert list(walls(ours, seconds(start), seconds(end) + 1, Steps(10**9))) == expected
    # Asked in the middle, it gives what the walk from DTSTART gives there; and it counts what it gives.
    middle = seconds(start) + int(place * (end - start).total_seconds())
    rest = [wall for wall in expected if wall >= middle]
    assert list(walls(ours, middle, seconds(end) + 1, Steps(10**9))) == rest
    assert count_walls(ours, middle, seconds(end) + 1, Steps(10**9)) == len(rest)


@pytest.mark.parametrize(
    "text",
    [
        "FREQ=HOURLY;INTERVAL=7;BYMINUTE=5,50",
        "FREQ=MINUTELY;INTERVAL=25;BYHOUR=9,17",
        "FREQ=SECONDLY;INTERVAL=700;BYDAY=MO,WE",
        "FREQ=HOURLY;BYMINUTE=0,20,40;BYSETPOS=-1,1",
        "FREQ=MINUTELY;INTERVAL=5;BYMONTH=1",
        # RFC 5545, section 3.8.5.3.
        "FREQ=YEARLY;INTERVAL=2;BYMONTH=1;BYDAY=SU;BYHOUR=8,9;BYMINUTE=30",
        "FREQ=YEARLY;BYDAY=20MO",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        "FREQ=MONTHLY;BYDAY=TU,WE,TH;BYSETPOS=3",
        "FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST=SU",
        "FREQ=DAILY;BYHOUR=9,10,11,12,13,14,15,16;BYMINUTE=0,20,40",
    ],
)
def test_well_known_rules_come_as_in_dateutil(text: str) -> None:
    start, end = datetime(1997, 9, 2, 9, 0, 7), datetime(1999, 9, 2, 9)  # noqa: DTZ001 - walls have no zone
    ours = Recurrence(read_rrule(text), start)
    expected = by_dateutil(text, start, end)
    assert expected
    assert list(walls(ours, seconds(start), seconds(end) + 1, Steps(10**9))) == expected


def test_weeks_are_numbered_as_iso_8601_has_them() -> None:
    for day in range(datetime(1995, 1, 1).toordinal(), datetime(2025, 1, 1).toordinal()):  # noqa: DTZ001 - a date
        year, number, _ = date.fromordinal(day).isocalendar()
        assert week_of(day, 0) == (number, date(year, 12, 28).isocalendar().week)


def test_plain_and_numbered_weekdays_are_united() -> None:
    """RFC 5545: BYDAY lists days. dateutil takes only what is both."""
    found = schedule("FREQ=MONTHLY;BYDAY=MO,1TU", "2026-01-01T00:00:00")
    after = datetime(2026, 5, 31, tzinfo=UTC)
    assert [at.day for at in first(found, 6, after)] == [1, 2, 8, 15, 22, 29]


NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "dtstart", "comes"),
    [
        ("FREQ=MINUTELY;INTERVAL=5", "1970-01-01T00:02:00", "2026-11-22T00:02:00Z"),
        ("FREQ=SECONDLY", "1901-01-01T00:00:00", "2026-11-22T00:00:01Z"),
        ("FREQ=SECONDLY;INTERVAL=86399;BYHOUR=3", "1970-01-01T00:00:00", None),
        ("FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=29;BYHOUR=23;BYMINUTE=59;BYSECOND=59", "1970-01-01T00:00:00",
         "2028-02-29T23:59:59Z"),
        ("FREQ=MINUTELY;BYMONTH=12;BYMONTHDAY=25;BYHOUR=6;BYMINUTE=30", "1970-01-01T00:00:00", "2026-12-25T06:30:00Z"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO", "1970-01-01T00:00:00", "2044-02-29T00:00:00Z"),
        ("FREQ=YEARLY;INTERVAL=400", "1600-03-01T00:00:00", "2400-03-01T00:00:00Z"),
        ("FREQ=DAILY;INTERVAL=100000", "1970-01-01T00:00:00", "2243-10-17T00:00:00Z"),
        ("FREQ=HOURLY;INTERVAL=1000000", "1970-01-01T00:00:00", "2084-01-29T16:00:00Z"),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13", "1902-01-01T09:00:00", "2027-08-13T09:00:00Z"),
    ],
)  # fmt: skip
def test_no_rule_costs_more_for_its_age_or_its_rarity(text: str, dtstart: str, comes: str | None) -> None:
    (line,) = schedule(text, dtstart).lines
    steps = Steps(BUDGET)
    (micros,) = islice(line.between(int(NOW.timestamp()) * 10**6, 10**17, steps), 1)
    if comes is None:
        # It moves by a second a day, and may be two thirds of a century away.
        assert datetime.fromtimestamp(micros / 10**6, UTC).hour == 3
        return
    assert micros == int(datetime.fromisoformat(comes).timestamp()) * 10**6
    # Of the budget that a lawful rule may use, not even a tenth.
    assert BUDGET - steps.left < BUDGET // 10


def test_a_rule_that_only_a_long_search_could_tell_of_is_given_up() -> None:
    found = schedule("FREQ=DAILY;INTERVAL=7;BYMONTHDAY=1;BYDAY=TU", "2026-11-22T00:00:00")
    with pytest.raises(ScheduleTooSparse):
        next(following(found, NOW))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "text", ["FREQ=HOURLY;INTERVAL=5", "FREQ=DAILY;BYHOUR=2;BYMINUTE=30", "FREQ=MONTHLY;BYDAY=-1FR"]
)
@pytest.mark.parametrize("count", [1, 2, 100, 731])
def test_count_ends_after_so_many_instants(text: str, zone: str, count: int) -> None:
    whole = schedule(text, "2019-03-01T02:30:00", timezone=zone)
    counted = schedule(f"{text};COUNT={count}", "2019-03-01T02:30:00", timezone=zone)
    before = datetime(2019, 1, 1, tzinfo=UTC)
    assert list(following(counted, before)) == first(whole, count, before)


def test_a_large_count_of_a_fast_rule_is_counted_by_days() -> None:
    found = schedule("FREQ=SECONDLY;COUNT=900000000", "1999-01-01T00:00:00")
    last = datetime(1999, 1, 1, tzinfo=UTC) + timedelta(seconds=899_999_999)
    assert list(following(found, last - timedelta(seconds=2))) == [last - timedelta(seconds=1), last]


def test_a_count_that_cannot_be_counted_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidTimer) as refused:
        schedule("FREQ=DAILY;COUNT=300000", "1999-01-01T00:00:00")
    (finding,) = refused.value.findings
    assert finding.pointer == "/schedule/rrule"
    assert "maxOccurrences" in finding.detail


@pytest.mark.parametrize(
    ("until", "last"),
    [
        ("20260329T003000Z", "2026-03-28T01:30:00Z"),
        ("20260329T010000Z", "2026-03-29T01:00:00Z"),
        ("20260330T023000", "2026-03-30T00:30:00Z"),
        ("20260330T022959", "2026-03-29T01:00:00Z"),
        ("20260330", "2026-03-30T00:30:00Z"),
    ],
)
def test_until_is_an_instant_or_local_and_included(until: str, last: str) -> None:
    found = schedule(f"FREQ=DAILY;UNTIL={until}", "2026-03-01T02:30:00", timezone="Europe/Berlin")
    before = datetime(2026, 3, 20, tzinfo=UTC)
    assert list(following(found, before))[-1] == datetime.fromisoformat(last)


@pytest.mark.parametrize(
    ("dtstart", "zone", "comes"),
    [
        ("2026-01-05T09:00:00", None, "2026-01-05T09:00:00Z"),
        ("2026-01-05T09:00", "Europe/Berlin", "2026-01-05T08:00:00Z"),
        ("2026-01-05", "America/New_York", "2026-01-05T05:00:00Z"),
        ("2026-01-05T09:00:00Z", "Europe/Berlin", "2026-01-05T09:00:00Z"),
        ("2026-07-05T09:00:00+09:00", "Europe/Berlin", "2026-07-05T00:00:00Z"),
        ("2026-01-05T09:00:00.250Z", None, "2026-01-05T09:00:00Z"),
    ],
)
def test_dtstart_is_local_or_an_instant(dtstart: str, zone: str | None, comes: str) -> None:
    found = schedule("FREQ=DAILY", dtstart, timezone=zone)
    before = datetime(2025, 1, 1, tzinfo=UTC)
    assert first(found, 1, before) == [datetime.fromisoformat(comes)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "FREQ=WEEKLY;BYDAY=MO,FR"),
        ("INTERVAL=2", "FREQ is required"),
        ("FREQ=FORTNIGHTLY", "YEARLY"),
        ("FREQ=DAILY;FREQ=DAILY", "twice"),
        ("FREQ=DAILY;INTERVAL=0", "from 1"),
        ("FREQ=DAILY;COUNT=0", "from 1"),
        ("FREQ=DAILY;COUNT=x", "whole numbers"),
        ("FREQ=DAILY;COUNT=3;UNTIL=20300101", "exclude each other"),
        ("FREQ=DAILY;UNTIL=20301301T000000Z", "no moment"),
        ("FREQ=DAILY;BYHOUR=24", "0 to 23"),
        ("FREQ=DAILY;BYSECOND=60", "0 to 59"),
        ("FREQ=MONTHLY;BYMONTHDAY=0", "-31 to -1"),
        ("FREQ=DAILY;BYEASTER=1", "no part"),
        ("FREQ=WEEKLY;BYDAY=XX", "no weekday"),
        ("FREQ=WEEKLY;BYDAY=1MO", "MONTHLY or YEARLY"),
        ("FREQ=MONTHLY;BYDAY=6MO", "five"),
        ("FREQ=MONTHLY;BYWEEKNO=1", "does not go with"),
        ("FREQ=WEEKLY;BYMONTHDAY=1", "does not go with"),
        ("FREQ=DAILY;BYSETPOS=1", "another BY part"),
        ("FREQ=DAILY;WKST=1", "MO, TU"),
        ("FREQ=HOURLY;INTERVAL=24;BYHOUR=5", "never comes"),
        ("FREQ=MINUTELY;BYSECOND=1,2;BYSETPOS=3", "never comes"),
        ("DTSTART:20200101T000000Z\nRRULE:FREQ=DAILY", "no part"),
    ],
)
def test_a_wrong_rule_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        schedule(text, "2026-01-01T00:00:00")
    (finding,) = refused.value.findings
    assert finding.pointer == "/schedule/rrule"
    assert says in finding.detail
