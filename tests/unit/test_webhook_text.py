"""What a receiver answered, made fit to be stored and shown."""

import errno

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given
from hypothesis import strategies as st

from minoots.orchestrator.actions.answer import printable
from minoots.orchestrator.actions.webhook import _has_no_file_left


@given(st.binary(max_size=200))
def test_whatever_was_answered_can_be_stored_and_shown(answer: bytes) -> None:
    shown = printable(answer)
    shown.encode()  # no half of a surrogate pair, which Postgres would refuse
    assert "\0" not in shown
    assert all(character.isprintable() or character in "\n\t" for character in shown)


@given(st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]) | st.sampled_from(" \n\t")))
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text.encode()) == text


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b"", ""),
        (b"ok\r\n", "ok\\x0d\n"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"a\0b", "a\\x00b"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("é".encode()[:1], "\\xc3"),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
        ("\u202etxt.exe".encode(), "\\x202etxt.exe"),
        ("\u2028".encode(), "\\x2028"),
    ],
)
def test_control_characters_are_escaped(answer: bytes, shown: str) -> None:
    assert printable(answer) == shown


def test_only_a_want_of_files_is_this_sides_own_failure() -> None:
    """It says nothing of the destination, whose breaker must not open by it."""
    key = ConnectionKey("h", 80, False, True, None, None, None)
    for number, is_ours in ((errno.EMFILE, True), (errno.ENFILE, True), (errno.ECONNREFUSED, False)):
        assert _has_no_file_left(OSError(number, "x")) is is_ours
        assert _has_no_file_left(aiohttp.ClientConnectorError(key, OSError(number, "x"))) is is_ours
    assert not _has_no_file_left(aiohttp.ServerDisconnectedError())
