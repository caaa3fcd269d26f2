"""What gave up: a dead letter as every door shows it, which of them are meant, and where a list of them goes on."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from minoots.domain.duration import parse_instant
from minoots.domain.firing import Attempt
from minoots.domain.limits import REDRIVEN_AT_ONCE, REDRIVES_PER_SECOND
from minoots.domain.timer import Name
from minoots.errors import Finding, InvalidTimer

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CURSOR = re.compile(
    r"(?P<micros>[0-9]{1,18})\.(?P<timer>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?P<occurrence>[1-9][0-9]{0,9})"
    r"\.(?P<action>[A-Za-z0-9_~-]{1,80})"
)
_INT_MOST = 2**31 - 1

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
ActionId = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]


class DeadLetter(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A delivery that gave up. `lastAttempt` is null when none was ever recorded."""

    tenant_id: str
    timer_id: UUID
    occurrence: int
    action_id: str
    kind: str
    lane: str
    dead_reason: str
    dead_at: str
    attempt_count: int
    last_attempt: Attempt | None


class RedriveKey(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Which delivery is to be opened again."""

    timer_id: UUID
    occurrence: Annotated[int, msgspec.Meta(ge=1, le=_INT_MOST)]
    action_id: ActionId


class RedriveFilter(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Which dead letters are to be opened again: all of them, where nothing is said."""

    timer_id: UUID | None = None
    kind: Text | None = None
    lane: Text | None = None
    reason: Text | None = None
    since: str | None = None
    until: str | None = None


class RedriveRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Open dead deliveries again: one of `deliveries` and `filter`."""

    tenant_id: str | None = None
    requested_by: Name | None = None
    deliveries: Annotated[list[RedriveKey], msgspec.Meta(min_length=1, max_length=REDRIVEN_AT_ONCE)] | None = None
    filter: RedriveFilter | None = None
    dry_run: bool | None = None
    per_second: Annotated[float, msgspec.Meta(gt=0, le=REDRIVES_PER_SECOND)] | None = None


class Redriven(msgspec.Struct, kw_only=True, frozen=True):
    """How many dead letters were meant, and how many were opened again."""

    matched: int
    redriven: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters: `reason` is a part of why they gave up; `since` counts and `until` does not."""

    timer_id: UUID | None = None
    kind: str | None = None
    lane: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list of dead letters, the newest first, has come to."""

    dead_at: datetime
    timer_id: UUID
    occurrence: int
    action_id: str


def admit_filter(asked: RedriveFilter) -> Wanted:
    """The filter with its instants read; raises InvalidTimer."""
    findings: list[Finding] = []

    def read(field: str, text: str | None) -> datetime | None:
        try:
            return None if text is None else parse_instant(text)
        except ValueError as wrong:
            findings.append(Finding(f"/filter/{field}", str(wrong)))
            return None

    since, until = read("since", asked.since), read("until", asked.until)
    for field, text in (("kind", asked.kind), ("lane", asked.lane), ("reason", asked.reason)):
        if text is not None and "\0" in text:
            findings.append(Finding(f"/filter/{field}", "text may not hold the character NUL"))
    if findings:
        raise InvalidTimer(findings)
    return Wanted(asked.timer_id, asked.kind, asked.lane, asked.reason, since, until)


def admit_redrive(asked: RedriveRequest) -> tuple[list[RedriveKey] | None, Wanted | None]:
    """The deliveries that are named, else which dead letters are meant; raises InvalidTimer."""
    if (asked.deliveries is None) == (asked.filter is None):
        raise InvalidTimer.at("", 'say which: give one of deliveries and filter; {"filter": {}} is every dead letter')
    if asked.filter is not None:
        return None, admit_filter(asked.filter)
    for index, key in enumerate(asked.deliveries or ()):
        if "\0" in key.action_id:
            raise InvalidTimer.at(f"/deliveries/{index}/actionId", "text may not hold the character NUL")
    return asked.deliveries, None


def write_cursor(place: Place) -> str:
    """The place as text that needs no escaping in a URL."""
    micros = (place.dead_at - _EPOCH) // timedelta(microseconds=1)
    return f"{micros}.{place.timer_id}.{place.occurrence}.{place.action_id}"


def read_cursor(text: str) -> Place:
    """ValueError when it is none."""
    found = _CURSOR.fullmatch(text)
    if not found or int(found["occurrence"]) > _INT_MOST or int(found["micros"]) >= 221_845_392 * 10**9:
        raise ValueError("this is no cursor; take nextCursor of the page before")
    dead_at = _EPOCH + timedelta(microseconds=int(found["micros"]))
    return Place(dead_at, UUID(found["timer"]), int(found["occurrence"]), found["action"])
