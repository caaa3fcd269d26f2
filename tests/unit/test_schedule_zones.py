"""Every change of every zone from 2000 to 2037, against the clock itself.

The independent side knows neither spans nor policies of ours: it asks `zoneinfo` for the local time minute by minute
around a change, and sees there what is skipped and what comes twice.
"""

import importlib.resources
import json
import struct
import zoneinfo
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby, pairwise, takewhile

import pytest

from minoots.domain.schedule import Schedule, following, read_schedule, run_between
from minoots.domain.schedule.zones import Change, find_zone, zone_names

FROM, UNTIL = datetime(2000, 1, 1, tzinfo=UTC), datetime(2038, 1, 1, tzinfo=UTC)
MINUTE, FIVE = 60, 300
Wall = Callable[[datetime], bool]


@cache
def tzif(name: str) -> bytes:
    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).read_bytes()


@cache
def zone_of(name: str) -> zoneinfo.ZoneInfo:
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return zoneinfo.ZoneInfo.from_file(file, key=name)


def different_zones() -> list[str]:
    """One name for each set of rules: links and copies have the same bytes."""
    names = sorted(zone_names(), key=tzif)
    return [next(same) for _, same in groupby(names, key=tzif)]


def schedule(**fields: object) -> Schedule:
    return read_schedule(json.dumps(fields).encode())


def changes(name: str) -> list[Change]:
    return find_zone(name).changes(int(FROM.timestamp()), int(UNTIL.timestamp()))


def offset(name: str, utc: int) -> int:
    local = datetime.fromtimestamp(utc, zone_of(name)).utcoffset()
    assert local is not None
    return int(local.total_seconds())


def listed_changes(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Changes of offset that a TZif file lists (RFC 9636, version 2 data block), as (utc, before, after)."""
    skip = struct.unpack(">6l", raw[20:44])
    start = 44 + skip[3] * 5 + skip[4] * 6 + skip[5] + skip[2] * 8 + skip[1] + skip[0]
    _, _, _, times, kinds, _ = struct.unpack(">6l", raw[start + 20 : start + 44])
    start += 44
    instants = struct.unpack(f">{times}q", raw[start : start + 8 * times])
    indexes = raw[start + 8 * times : start + 9 * times]
    start += 9 * times
    offsets = [struct.unpack(">lbb", raw[start + 6 * kind : start + 6 * kind + 6])[0] for kind in range(kinds)]
    before = offsets[0]
    for utc, index in zip(instants, indexes, strict=True):
        if offsets[index] != before:
            yield utc, before, offsets[index]
        before = offsets[index]


def test_every_zone_of_this_python_is_known() -> None:
    """The machine's own files may have more: `posixrules`, `localtime`, and what a newer release added."""
    assert {name for name in zoneinfo.available_timezones() if name in zone_names()} == zone_names()
    assert len(zone_names()) > 590


def test_no_change_of_any_zone_is_overlooked() -> None:
    low, high = int(datetime(1999, 6, 1, tzinfo=UTC).timestamp()), int(UNTIL.timestamp())
    for name in different_zones():
        listed = {change for change in listed_changes(tzif(name)) if low < change[0] < high}
        found = {(change.utc, change.before, change.after) for change in find_zone(name).changes(low, high)}
        assert listed <= found, name
        for utc, before, after in found - listed:
            # What the file's last line tells as a rule, for the years after its list.
            assert not listed or utc > max(listed)[0], name
            assert (offset(name, utc - 1), offset(name, utc)) == (before, after), name


def test_no_two_changes_of_the_future_hide_each_other() -> None:
    for name in different_zones():
        start, end = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2037, 2039))
        seen = [offset(name, utc) for utc in range(start, end, 4 * 3600)]
        assert sum(a != b for a, b in pairwise(seen)) == len(find_zone(name).changes(start, end)), name


def brute_force(name: str, change: Change, matches: Wall, gap: str, overlap: str) -> tuple[int, int, list[int]]:
    """The minutes (low, high] around a change, and those at which a rule comes that matches walls."""
    jump = abs(change.after - change.before)
    low, high = change.utc - jump - 40 * MINUTE, change.utc + jump + 40 * MINUTE
    clock = walls_around(name, change.utc, 2 * jump + 60 * MINUTE)
    times: dict[datetime, list[int]] = {}
    for utc, wall in clock:
        times.setdefault(wall, []).append(utc)
    come = set()
    for wall, instants in times.items():
        if matches(wall):
            come |= {"first": {instants[0]}, "last": {instants[-1]}, "both": set(instants)}[overlap]
    if gap == "shift":
        for (start, before), (utc, after) in pairwise(clock):
            missing = before + timedelta(seconds=utc - start)
            while missing < after:
                if matches(missing):
                    come.add(utc)
                missing += timedelta(minutes=1)
    return low, high, sorted(utc for utc in come if low < utc <= high)


@cache
def walls_around(name: str, utc: int, reach: int) -> list[tuple[int, datetime]]:
    """Instants and what a clock shows then: every five minutes, and every minute at the change."""
    zone = zone_of(name)
    coarse = range((utc - reach) // FIVE * FIVE, utc + reach + 1, FIVE)
    looked_at = sorted({*coarse, *range(utc - 2 * MINUTE, utc + 3 * MINUTE, MINUTE)})
    return [(minute, datetime.fromtimestamp(minute, zone).replace(tzinfo=None, fold=0)) for minute in looked_at]


def computed(rule: Schedule, low: int, high: int) -> list[int]:
    after, until = datetime.fromtimestamp(low, UTC), datetime.fromtimestamp(high, UTC)
    return [int(at.timestamp()) for at in takewhile(lambda at: at <= until, following(rule, after))]


EVERY_TEN = "*/10 0-23 * * *"
CASES: list[tuple[dict[str, object], Wall, str, str]] = [
    *(
        ({"cron": EVERY_TEN, "gap": gap, "overlap": overlap}, lambda wall: wall.minute % 10 == 0, gap, overlap)
        for gap in ("shift", "skip")
        for overlap in ("first", "last", "both")
    ),
    # The defaults: a fixed hour comes once, an hour that is a wildcard goes on.
    ({"cron": "20,50 0-23 * * *"}, lambda wall: wall.minute in (20, 50), "shift", "first"),
    ({"cron": "25 * * * *"}, lambda wall: wall.minute == 25, "shift", "both"),
    ({"cron": "*/30 0-23 * * SAT,SUN"}, lambda wall: wall.minute % 30 == 0 and wall.weekday() > 4, "shift", "first"),
    (
        {"rrule": "FREQ=MINUTELY;INTERVAL=20", "dtstart": "1999-12-31T23:50:00"},
        lambda wall: wall.minute % 20 == 10,
        "shift",
        "both",
    ),
    (
        {"rrule": "FREQ=DAILY;BYHOUR=0,1,2,3,23;BYMINUTE=15,45", "dtstart": "1999-12-31T00:00:00"},
        lambda wall: wall.hour in (0, 1, 2, 3, 23) and wall.minute in (15, 45),
        "shift",
        "first",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: json.dumps(case[0]))
def test_around_every_change_a_schedule_comes_as_its_policies_say(
    case: tuple[dict[str, object], Wall, str, str],
) -> None:
    fields, matches, gap, overlap = case
    looked_at = 0
    for name in different_zones():
        rule = schedule(**fields, timezone=name)
        for change in changes(name):
            assert change.utc % MINUTE == 0
            low, high, expected = brute_force(name, change, matches, gap, overlap)
            found = computed(rule, low, high)
            assert found == expected, (name, datetime.fromtimestamp(change.utc, UTC))
            looked_at += 1
    assert looked_at > 5_000


NOTABLE = (
    "America/Havana",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Pacific/Apia",
)


@pytest.mark.parametrize("name", NOTABLE)
@pytest.mark.parametrize("clock", ["00:00", "01:45", "02:30", "23:30"])
def test_a_time_of_day_comes_once_on_every_day_of_38_years(name: str, clock: str) -> None:
    hour, minute = map(int, clock.split(":"))
    rule = schedule(cron=f"{minute} {hour} * * *", timezone=name)
    came = list(takewhile(lambda at: at < UNTIL, following(rule, FROM)))
    assert all(a < b for a, b in pairwise(came))
    local = [at.astimezone(zone_of(name)) for at in came]
    moved = [at for at in local if (at.hour, at.minute) != (hour, minute)]
    for at in moved:
        # Only what does not exist is moved, and to the first instant that does.
        assert offset(name, int(at.timestamp()) - 1) != offset(name, int(at.timestamp()))
    days = [at.date() for at in local if at not in moved]
    assert len(set(days)) == len(days)
    whole = {FROM.date() + timedelta(days=day) for day in range(1, (UNTIL - FROM).days - 1)}
    # What is missing on its day has been moved; a day that is skipped as a whole leads to the start of the next, where
    # it coincides with midnight.
    skipped = whole - set(days)
    assert len(skipped) == len(moved) + (name == "Pacific/Apia" and clock == "00:00")
    assert run_between(rule, FROM, UNTIL - timedelta(microseconds=1), 1).count == len(came)
