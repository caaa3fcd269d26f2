"""Durations and instants as people write them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.duration import format_instant, parse_duration, parse_instant
from minoots.domain.limits import DURATION_MS

MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
# As PostgreSQL's timestamptz and ours: whole microseconds.
INSTANTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - bounds
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("PT30S", 30_000),
        ("PT1H30M", 5_400_000),
        ("P1DT1S", 86_401_000),
        ("P2W", 1_209_600_000),
        ("pt0.5s", 500),
        (" 1.5h ", 5_400_000),
        ("250ms", 250),
        ("1w2d3h4m5s6ms", 788_645_006),
        (30_000, 30_000),
        (30_000.0, 30_000),
        (1, 1),
    ],
)
def test_every_form_of_a_duration_is_read(written: str | float, ms: int) -> None:
    assert parse_duration(written) == ms


@given(st.dictionaries(st.sampled_from(list(MS)), st.integers(0, 10_000), min_size=1))
def test_a_duration_is_the_sum_of_its_parts(parts: dict[str, int]) -> None:
    total = sum(number * MS[unit] for unit, number in parts.items())
    written = "".join(f"{number}{unit}" for unit, number in parts.items())
    if total == 0:
        with pytest.raises(ValueError, match="longer than 0"):
            parse_duration(written)
    else:
        assert parse_duration(written) == total


@given(st.integers(1, DURATION_MS))
def test_a_number_is_milliseconds(ms: int) -> None:
    assert parse_duration(ms) == ms
    assert parse_duration(f"{ms}ms") == ms


@given(st.integers(1, 10**9), st.integers(0, 3))
def test_a_fraction_is_rounded_up_to_the_millisecond(thousandths: int, unit: int) -> None:
    name = ("s", "m", "h", "d")[unit]
    written = f"{thousandths // 1000}.{thousandths % 1000:03}{name}"
    exact = Fraction(thousandths, 1000) * MS[name]
    assert parse_duration(written) == -(-exact // 1)


def test_what_is_finer_than_a_millisecond_is_not_nothing() -> None:
    assert parse_duration("0.1ms") == 1
    assert parse_duration("PT0.0001S") == 1


@pytest.mark.parametrize("written", ["0s", "PT0S", "0ms", 0, -1, "0.0h"])
def test_a_duration_of_nothing_is_refused(written: str | float) -> None:
    with pytest.raises(ValueError, match="longer than 0"):
        parse_duration(written)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "s",
        "1",
        "30",
        "1x",
        "1s1s",
        "-1s",
        "+1s",
        "1e3s",
        "P",
        "PT",
        "P1DT",
        "P1Y",
        "P1M",
        "PT1S1H",
        "1 h",
        "١s",
        "½h",
        "1,5h",
        "1s\n2s",
        "9" * 101 + "s",
        "1h-30m",
        "infinity",
    ],
)
def test_what_is_no_duration_says_how_to_write_one(written: str) -> None:
    with pytest.raises(ValueError, match=r'write|written as "30s"'):
        parse_duration(written)


@pytest.mark.parametrize("written", [1.5, float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_whole_is_refused(written: float) -> None:
    with pytest.raises(ValueError, match="whole number"):
        parse_duration(written)


@pytest.mark.parametrize("written", [DURATION_MS + 1, 10**30, 1e300, "9999999w", "9" * 99 + "w", "P99999999W"])
def test_a_duration_past_the_year_9000_is_refused(written: str | float) -> None:
    with pytest.raises(ValueError, match="year 9000"):
        parse_duration(written)


@given(st.text(max_size=120))
def test_no_text_breaks_the_reading_of_a_duration(text: str) -> None:
    with suppress(ValueError):
        assert 0 < parse_duration(text) <= DURATION_MS


@given(st.floats() | st.integers())
def test_no_number_breaks_the_reading_of_a_duration(number: float) -> None:
    with suppress(ValueError):
        assert parse_duration(number) == number


@given(INSTANTS)
def test_an_instant_comes_back_as_it_was_written(instant: datetime) -> None:
    assert parse_instant(format_instant(instant)) == instant


@given(INSTANTS, OFFSETS)
def test_an_instant_may_be_written_with_any_offset(instant: datetime, offset: timezone) -> None:
    assert parse_instant(instant.astimezone(offset).isoformat()) == instant


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2030-01-31T09:00:00Z", "2030-01-31T09:00:00.000000Z"),
        ("2030-01-31t09:00:00z", "2030-01-31T09:00:00.000000Z"),
        ("2030-01-31 09:00:00+01:00", "2030-01-31T08:00:00.000000Z"),
        ("2030-01-31T09:00:00.5-05:45", "2030-01-31T14:45:00.500000Z"),
        ("2030-01-31T09:00:00.123456789Z", "2030-01-31T09:00:00.123456Z"),
        ("0999-01-31T09:00:00Z", "0999-01-31T09:00:00.000000Z"),
    ],
)
def test_instants_are_shown_in_utc_with_microseconds(written: str, shown: str) -> None:
    assert format_instant(parse_instant(written)) == shown


@pytest.mark.parametrize(
    "written",
    ["", "2030-01-31", "2030-01-31T09:00:00", "2030-01-31T09:00Z", "20300131T090000Z", "2030-01-31T09:00:00+0100",
     "2030-02-30T09:00:00Z", "2030-13-01T09:00:00Z", "2030-01-31T24:00:00Z", "2030-01-31T09:60:00Z", "now",
     "2030-01-31T09:00:00+24:00", "2030-01-31T09:00:00+01:60", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00",
     "9999-12-31T23:59:59-01:00", "٢٠٣٠-01-31T09:00:00Z", "10000-01-01T00:00:00Z", "2030-01-31T09:00:00.Z"],
)  # fmt: skip
def test_what_names_no_instant_is_refused_with_how_to_write_one(written: str) -> None:
    with pytest.raises(ValueError, match=r"an instant is written|names no instant"):
        parse_instant(written)
