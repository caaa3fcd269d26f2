"""Cursors of dead letters, and what a redrive may ask for."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.domain.dead_letter import Place, RedriveRequest, admit_redrive, read_cursor, write_cursor
from minoots.domain.json_text import read_json
from minoots.errors import InvalidTimer

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ID = "0199f5a2-6d6e-7c40-8a51-3c1f2b9a7e10"


@given(
    at=st.integers(0, 7_029 * 365 * 86_400 * 10**6).map(lambda us: EPOCH + timedelta(microseconds=us)),
    timer_id=st.uuids(),
    occurrence=st.integers(1, 2**31 - 1),
    action_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}(~[1-4])?", fullmatch=True),
)
def test_a_cursor_is_read_as_it_was_written(at: datetime, timer_id: UUID, occurrence: int, action_id: str) -> None:
    place = Place(at, timer_id, occurrence, action_id)
    assert read_cursor(write_cursor(place)) == place


@pytest.mark.parametrize(
    "text", ["", "x", f"1.{ID}.1", f"-1.{ID}.1.a", f"1.{ID}.0.a", f"1.{ID}.9999999999.a", f"{'9' * 18}.{ID}.1.a"]
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nextCursor"):
        read_cursor(text)


def test_a_redrive_names_deliveries_or_filters() -> None:
    named, wanted = admit_redrive(
        read_json(
            f'{{"deliveries": [{{"timerId": "{ID}", "occurrence": 1, "actionId": "a~1"}}]}}'.encode(), RedriveRequest
        )
    )
    assert named is not None
    assert (wanted, named[0].action_id) == (None, "a~1")
    body = b'{"filter": {"since": "2030-01-31T09:00:00+01:00", "reason": "HTTP"}, "perSecond": 10, "dryRun": true}'
    named, wanted = admit_redrive(read_json(body, RedriveRequest))
    assert named is None
    assert wanted is not None
    assert (wanted.since, wanted.reason) == (datetime(2030, 1, 31, 8, tzinfo=UTC), "HTTP")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"{}", ""),
        (b'{"filter": {"since": "yesterday"}}', "/filter/since"),
        (b'{"filter": {"lane": "a\\u0000"}}', "/filter/lane"),
        (b'{"filter": {"label": "x"}}', "/filter/label"),
        (b'{"filter": {}, "perSecond": 100001}', "/perSecond"),
    ],
)
def test_what_a_redrive_cannot_ask_is_told_with_its_place(body: bytes, pointer: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        admit_redrive(read_json(body, RedriveRequest))
    findings: list[Any] = list(refused.value.findings)
    assert [finding.pointer for finding in findings] == [pointer]
