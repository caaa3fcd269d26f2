"""Events as readers see them: what they may ask for, where they may begin, and what they are told of the stream."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from nats.js.api import StreamInfo

from minoots.domain.event import KINDS
from minoots.errors import MalformedRequest

Reason = Literal["stream_replaced", "expired", "too_slow"]

FAMILIES: Final = tuple(dict.fromkeys(f"{kind.partition('.')[0]}.*" for kind in KINDS))

_TOKEN = re.compile(r"([0-9a-z]{1,16})-(\d{1,19})", re.ASCII)


class Envelope(msgspec.Struct, frozen=True):
    """A CloudEvents 1.0 envelope as the relay publishes it; `data` is `{timer, firing?, delivery?, reason?}`."""

    id: str
    type: str
    source: str
    time: str
    data: dict[str, Any]
    subject: str | None = None
    traceparent: str | None = None


class _TimerMarks(msgspec.Struct):
    labels: dict[str, str] | None = None


class _DataMarks(msgspec.Struct):
    timer: _TimerMarks | None = None
    truncated: bool = False


class Marks(msgspec.Struct):
    """What of an envelope decides who gets it. All else is passed by unread, whatever numbers are in it."""

    id: str
    type: str
    source: str
    time: str
    data: _DataMarks
    subject: str | None = None


read_marks = msgspec.json.Decoder(Marks).decode


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message of the stream. `marks` is None for what somebody else published and nobody can read."""

    incarnation: str
    sequence: int
    subject: str
    body: bytes
    at: datetime
    marks: Marks | None


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `body` is the envelope as it was published, `kind` as in `timer.fired`."""

    kind: str
    resume_token: str
    body: bytes

    @property
    def envelope(self) -> Envelope:
        """The envelope, read anew each time."""
        # json, not msgspec: it reads numbers beyond the doubles, which plain SQL can write into a timer.
        return msgspec.convert(json.loads(self.body), Envelope)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the stream itself, or the reader; reading goes on after `resume_token`.

    `stream_replaced`: NATS lost its data and the stream is another one. `expired`: events were dropped from the stream
    before this reader came to them. `too_slow`: events came faster than this reader took them, and its stream ends;
    none is lost to one that begins again at the token.
    """

    reason: Reason
    resume_token: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which of a tenant's events a reader gets: of these kinds (all when there are none), timer and labels."""

    topics: Sequence[str] = ()
    timer_id: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def takes(self, kind: str, marks: Marks) -> bool:
        """Whether this event is among them. One that was cut so far that it has no labels may be anybody's."""
        if self.topics and kind not in self.topics and f"{kind.partition('.')[0]}.*" not in self.topics:
            return False
        if self.timer_id is not None and marks.subject != self.timer_id:
            return False
        if not self.labels:
            return True
        timer = marks.data.timer
        if timer is None or timer.labels is None:
            return timer is not None and marks.data.truncated
        return self.labels.items() <= timer.labels.items()


def choose_topics(topics: Sequence[str], word: str = "topic") -> list[str]:
    """Those asked for, without overlaps, which NATS refuses; none for all. Raises MalformedRequest."""
    unknown = [topic for topic in topics if topic not in KINDS and topic not in FAMILIES]
    if unknown:
        raise MalformedRequest(f"there is no {word} {unknown[0][:64]!r}; there are {', '.join((*FAMILIES, *KINDS))}")
    wanted = dict.fromkeys(topics)
    return [t for t in wanted if t in FAMILIES or f"{t.partition('.')[0]}.*" not in wanted]


def parse_token(text: str) -> tuple[str, int]:
    """The incarnation and the next sequence; raises MalformedRequest for what is no token of ours."""
    found = _TOKEN.fullmatch(text)
    if found is None or int(found[2]) >= 2**63:
        raise MalformedRequest("this is no resume token; use one that an event carried, as it was")
    return found[1], int(found[2]) + 1


def settle_place(
    info: StreamInfo, incarnation: str | None, place: int | datetime | None
) -> tuple[str, int | datetime, Reason | None]:
    """Where to go on in this stream: its incarnation, the place, and why that is not where we would have gone on.

    `incarnation` and `place` (the next sequence, or an instant) are what the reader knows; None for what it does not.
    """
    current = incarnation_of(info)
    first, last = max(info.state.first_seq, 1), info.state.last_seq
    if place is None:
        place = last + 1
    # A place past the end is of a stream that has lost its end: a power cut can do that to NATS.
    if incarnation not in (None, current) or (isinstance(place, int) and place > last + 1):
        return current, first, "stream_replaced"
    if isinstance(place, int) and place < first:
        return current, first, "expired"
    return current, place, None


def incarnation_of(info: StreamInfo) -> str:
    """The stream by the instant it was made, in microseconds since 1970 to the base of 36."""
    assert info.created is not None, "NATS did not say when the stream was made"
    number = round(info.created.timestamp() * 1_000_000)
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
