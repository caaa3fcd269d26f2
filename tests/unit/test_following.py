"""What following events is made of: a tenant's channel, what a reader wants, the frames it gets, and places."""

from datetime import UTC, datetime

import pytest

from minoots.broker.channel import Channel, Entry
from minoots.broker.events import Arrived, Event, Notice, Wanted, parse_token, read_marks
from minoots.broker.reading import Break
from minoots.domain.places import Places
from minoots.errors import MalformedRequest, TooManyFollow
from minoots.rest.streams import pieces


def entry(sequence: int, incarnation: str = "a") -> Entry:
    body = b'{"id":"x","type":"minoots.timer.fired","source":"/","time":"t","data":{}}'
    at = datetime.now(UTC)
    return Entry("timer.fired", Arrived(incarnation, sequence, "s.acme.timer.fired", body, at, read_marks(body)))


def test_a_channel_knows_where_a_reader_goes_on_and_when_it_cannot() -> None:
    channel = Channel("a", 10)
    for sequence in (12, 13, 17):
        channel.append(entry(sequence))
    assert [channel.number_after("a", sequence) for sequence in (9, 10, 11, 12, 13, 16, 17, 99)] == [
        *(None, 0, 0, 1, 2, 2, 3, 3)
    ]
    assert channel.number_after("b", 12) is None
    freed = channel.drop_oldest()
    assert freed > len(entry(12).what.body)  # type: ignore[union-attr]
    assert (channel.floor, channel.first) == (12, 1)
    assert [channel.number_after("a", sequence) for sequence in (11, 12, 13)] == [None, 1, 2]


def test_after_a_break_only_what_follows_it_is_gone_on_from() -> None:
    channel = Channel("a", 0)
    channel.append(entry(5))
    channel.append(Entry("", Break("stream_replaced", "b", 0)))
    channel.begin_anew("b", 0)
    channel.append(entry(1, "b"))
    assert channel.number_after("a", 5) is None
    assert [channel.number_after("b", sequence) for sequence in (0, 1)] == [2, 3]
    for _ in range(2):
        channel.drop_oldest()
    assert (channel.floor, channel.number_after("b", 0)) == (0, 2)
    channel.drop_oldest()
    assert channel.number_after("b", 0) is None


def test_what_is_wanted_is_decided_without_reading_the_rest() -> None:
    whole = (
        b'{"id":"x","type":"t","source":"/","time":"t","subject":"one",'
        b'"data":{"timer":{"labels":{"a":"b"},"metadata":{"n":1e999,"m":123456789012345678901234567890}}}}'
    )
    marks = read_marks(whole)
    assert Wanted().takes("timer.fired", marks)
    assert Wanted(["timer.*"]).takes("timer.fired", marks)
    assert not Wanted(["delivery.*", "timer.settled"]).takes("timer.fired", marks)
    assert Wanted((), "one", {"a": "b"}).takes("timer.fired", marks)
    assert not Wanted((), "two").takes("timer.fired", marks)
    assert not Wanted((), None, {"a": "b", "c": "d"}).takes("timer.fired", marks)
    lane = read_marks(b'{"id":"x","type":"t","source":"/","time":"t","data":{"lane":{}}}')
    assert Wanted().takes("lane.opened", lane)
    assert not Wanted((), None, {"a": "b"}).takes("lane.opened", lane)


def test_frames_are_cut_into_small_pieces_and_keep_lines_apart() -> None:
    large = Event("timer.fired", "a-2", b'{"x": "' + b"y" * 50_000 + b'"}')
    found = [Event("timer.fired", "a-1", b"{}"), large, Event("delivery.dead", "a-3", b'{\r\n"a":\n1}')]
    made = list(pieces([*found, Notice("too_slow", "a-3")]))
    assert max(map(len, made)) == 8192
    assert b"".join(made) == (
        b"id: a-1\nevent: timer.fired\ndata: {}\n\n"
        b"id: a-2\nevent: timer.fired\ndata: " + large.body + b"\n\n"
        b'id: a-3\nevent: delivery.dead\ndata: {\ndata: "a":\ndata: 1}\n\n'
        b'id: a-3\nevent: notice\ndata: {"reason": "too_slow", "resume": "a-3"}\n\n'
    )


def test_a_token_is_read_as_it_was_written() -> None:
    assert parse_token("3gk2m9-41") == ("3gk2m9", 42)
    for text in ("", "a", "a-", "-1", "A-1", "a-1-1", "a-99999999999999999999", "a-\u0663"):
        with pytest.raises(MalformedRequest):
            parse_token(text)


def test_no_tenant_takes_the_places_of_all() -> None:
    places = Places(most=3, tenant_most=2)
    with places.one("a"), places.one("a"):
        with pytest.raises(TooManyFollow):
            places.take("a")
        with places.one("b"), pytest.raises(TooManyFollow):
            places.take("c")
    assert places.taken == 0
    with places.one("a"):
        assert places.taken == 1
