"""What a receiver answered, made fit to be stored and shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.orchestrator.actions.answer import printable


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
