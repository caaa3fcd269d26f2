"""Cron expressions: what is understood, which days and times they name, and what is refused with which words."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, takewhile

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from minoots.domain.schedule import Schedule, following, never_fires, read_schedule
from minoots.domain.schedule.cron import parse_cron
from minoots.domain.schedule.steps import BUDGET, Steps
from minoots.domain.schedule.wall import count_walls, walls
from minoots.errors import InvalidTimer

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - walls have no zone
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def schedule(cron: str, **fields: object) -> Schedule:
    return read_schedule(json.dumps({"cron": cron, **fields}).encode())


def comes(cron: str, count: int = 1, after: datetime = NOW) -> list[str]:
    found = islice(following(schedule(cron), after), count)
    return [at.strftime("%Y-%m-%d %H:%M:%S") for at in found]


def field(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    value = st.integers(low, high).map(str) | (st.sampled_from(names) if names else st.nothing())
    span = st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.integers(1, high)
    term = value | span | st.tuples(span, step).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return (
        st.just("*")
        | step.map(lambda n: f"*/{n}")
        | st.lists(term, min_size=1, max_size=3).map(",".join)
    )  # fmt: skip


MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "MON#1", "5#3", "5L", "2L")
CRONS = st.tuples(
    st.none() | field(0, 59),
    field(0, 59),
    field(0, 23),
    field(1, 28) | st.sampled_from(("L", "LW", "15,L", "31")),
    st.just("*") | field(1, 12, MONTHS),
    st.just("*") | field(0, 7, WEEKDAYS),
).map(lambda parts: " ".join(part for part in parts if part is not None))


@settings(max_examples=300, deadline=None)
@given(CRONS, st.datetimes(datetime(2000, 1, 1), datetime(2037, 1, 1)))  # noqa: DTZ001 - walls have no zone
def test_walls_are_those_of_cronsim(cron: str, start: datetime) -> None:
    start = start.replace(microsecond=0)
    try:
        theirs = CronSim(cron, start)
    except CronSimError:
        with pytest.raises(ValueError, match="never comes"):
            parse_cron(cron)
        return
    expected = [int((at - EPOCH).total_seconds()) for at in islice(theirs, 50)]
    if not expected:
        # It gives up after fifty years.
        with suppress(ValueError):
            begin = int((start - EPOCH).total_seconds()) + 1
            assert not list(walls(parse_cron(cron), begin, begin + 50 * 365 * 86_400, Steps(10**9)))
        return
    ours = parse_cron(cron)
    begin = int((start - EPOCH).total_seconds()) + 1
    assert list(islice(walls(ours, begin, expected[-1] + 1, Steps()), len(expected))) == expected
    assert count_walls(ours, begin, expected[-1] + 1, Steps()) == len(expected)


@pytest.mark.parametrize(
    ("cron", "next_three"),
    [
        ("30 9 * * *", ["2026-11-22 09:30:00", "2026-11-23 09:30:00", "2026-11-24 09:30:00"]),
        ("0 9 * * MON-FRI", ["2026-11-23 09:00:00", "2026-11-24 09:00:00", "2026-11-25 09:00:00"]),
        ("0 9 * * fri-sun", ["2026-11-22 09:00:00", "2026-11-27 09:00:00", "2026-11-28 09:00:00"]),
        ("*/20 * * * * *", ["2026-11-22 00:00:20", "2026-11-22 00:00:40", "2026-11-22 00:01:00"]),
        ("15 0 0 1 JAN,jul *", ["2027-01-01 00:00:15", "2027-07-01 00:00:15", "2028-01-01 00:00:15"]),
        ("0 0 L * *", ["2026-11-30 00:00:00", "2026-12-31 00:00:00", "2027-01-31 00:00:00"]),
        ("0 0 LW * *", ["2026-11-30 00:00:00", "2026-12-31 00:00:00", "2027-01-29 00:00:00"]),
        ("0 0 * * MON#2", ["2026-12-14 00:00:00", "2027-01-11 00:00:00", "2027-02-08 00:00:00"]),
        ("0 0 * * FRIL", ["2026-11-27 00:00:00", "2026-12-25 00:00:00", "2027-01-29 00:00:00"]),
        ("0 0 * * 5L", ["2026-11-27 00:00:00", "2026-12-25 00:00:00", "2027-01-29 00:00:00"]),
        ("0 0 * * 7", ["2026-11-29 00:00:00", "2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        # Both restricted: either of the two will do. One that starts with a star: both have to match.
        ("0 0 13 * FRI", ["2026-11-27 00:00:00", "2026-12-04 00:00:00", "2026-12-11 00:00:00"]),
        ("0 0 */13 * FRI", ["2026-11-27 00:00:00", "2027-01-01 00:00:00", "2027-05-14 00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00", "2032-02-29 00:00:00", "2036-02-29 00:00:00"]),
        ("@hourly", ["2026-11-22 01:00:00", "2026-11-22 02:00:00", "2026-11-22 03:00:00"]),
        ("@daily", ["2026-11-23 00:00:00", "2026-11-24 00:00:00", "2026-11-25 00:00:00"]),
        ("@midnight", ["2026-11-23 00:00:00", "2026-11-24 00:00:00", "2026-11-25 00:00:00"]),
        ("@weekly", ["2026-11-29 00:00:00", "2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        ("@monthly", ["2026-12-01 00:00:00", "2027-01-01 00:00:00", "2027-02-01 00:00:00"]),
        ("@Yearly", ["2027-01-01 00:00:00", "2028-01-01 00:00:00", "2029-01-01 00:00:00"]),
        ("@annually", ["2027-01-01 00:00:00", "2028-01-01 00:00:00", "2029-01-01 00:00:00"]),
    ],
)
def test_a_cron_expression_comes(cron: str, next_three: list[str]) -> None:
    assert comes(cron, 3) == next_three


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("", "this one has 0"),
        ("* * * *", "this one has 4"),
        ("0 0 0 1 1 * 2030", "this one has 7"),
        ("60 * * * *", "minutes go from 0 to 59"),
        ("* 24 * * *", "hours go from 0 to 23"),
        ("61 * * * * *", "seconds go from 0 to 59"),
        ("* * 0 * *", "days of the month go from 1 to 31"),
        ("* * * 13 *", "months go from 1 to 12"),
        ("* * * * 8", "days of the week go from 0 to 7"),
        ("* * * * MON#6", "day of week"),
        ("*/0 * * * *", "minute"),
        ("5-1 * * * *", "minute"),
        ("* * ? * *", "written *"),
        ("@reboot", "@daily"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 30-31 FEB *", "never comes"),
        ("1" * 2_000, "characters"),
    ],
)
def test_a_wrong_expression_is_refused_with_what_to_write(cron: str, says: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        schedule(cron)
    (finding,) = refused.value.findings
    assert finding.pointer == "/schedule/cron"
    assert says in finding.detail


@given(st.text(max_size=40) | CRONS.map(lambda cron: cron.replace(" ", "  ", 1)[:-1]))
def test_whatever_is_written_is_read_or_refused(cron: str) -> None:
    try:
        found = schedule(cron)
    except InvalidTimer:
        return
    never_fires(found, NOW)


def test_the_rarest_cron_is_found_within_the_budget() -> None:
    """A leap day on a Monday: up to 40 years, for 1900 and 2100 have none."""
    (line,) = schedule("0 0 */29 2 MON").lines
    steps = Steps(BUDGET)
    found = list(islice(line.between(int(NOW.timestamp()) * 10**6, 10**17, steps), 40))
    gaps = [timedelta(microseconds=b - a) for a, b in pairwise(found)]
    assert len(found) == 40
    assert max(gaps) > timedelta(days=365)
    assert steps.left > BUDGET // 2


def test_a_cron_keeps_local_time_through_the_year() -> None:
    """croniter computes in the offset of the start: 09:00 becomes 10:00 in summer."""
    found = schedule("0 9 * * *", timezone="Europe/Berlin")
    year = takewhile(lambda at: at < datetime(2027, 11, 22, tzinfo=UTC), following(found, NOW))
    hours = [at.hour for at in year]
    assert len(hours) == 365
    assert set(hours) == {7, 8}
    assert hours.count(7) == 217
