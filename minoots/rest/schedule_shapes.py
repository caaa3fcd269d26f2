"""The shape of a schedule, for the document alone: it is read by `domain/schedule`, with findings of its own."""

from typing import Annotated, Literal, TypeAlias

import msgspec

Duration: TypeAlias = str | int | float


class Spec(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A rule of a schedule: exactly one of `cron`, `every`, `rrule` and `at`."""

    cron: str | None = None
    every: Duration | None = None
    phase: Duration | None = None
    rrule: str | None = None
    dtstart: str | None = None
    at: list[str] | None = None
    timezone: str | None = None


class CatchUp(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What becomes of occurrences that came due while nobody could fire them."""

    policy: Literal["latest", "all", "none"] | None = None
    window: Duration | None = None
    max: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Schedule(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A recurring schedule: `specs`, which are united, or in short the fields of a single spec."""

    specs: list[Spec] | None = None
    cron: str | None = None
    every: Duration | None = None
    phase: Duration | None = None
    rrule: str | None = None
    dtstart: str | None = None
    at: list[str] | None = None
    timezone: str | None = None
    exclude: list[str | Spec] | None = None
    gap: Literal["shift", "skip"] | None = None
    overlap: Literal["first", "last", "both"] | None = None
    start_at: str | None = None
    end_at: str | None = None
    max_occurrences: Annotated[int, msgspec.Meta(ge=1)] | None = None
    jitter: Duration | None = None
    catch_up: CatchUp | None = None
    while_running: Literal["allow", "skip", "queue"] | None = None
    pause_after_failures: Annotated[int, msgspec.Meta(ge=1)] | None = None


# What a reader has to know of each field.
WORDS = {
    "specs": "The rules; they are united, and an instant that several have comes once.",
    "cron": "Five fields, or six with seconds first; names, L, # and @daily. In `timezone`.",
    "every": 'A span, as "15m": counted on the UTC line from the epoch (and `phase`), or from startAt.',
    "phase": "How far after each multiple of `every` it comes.",
    "rrule": "A rule of RFC 5545, from `dtstart` on.",
    "dtstart": "Local time in `timezone`, or an instant.",
    "at": "Single instants.",
    "timezone": "An IANA zone, as Europe/Berlin; UTC unless given.",
    "exclude": 'What is taken away: dates ("2030-12-25"), instants, or specs.',
    "gap": "A local time that the zone leaves out: shift to right after the gap, or skip it.",
    "overlap": "A local time that the zone has twice: fire at the first, the last, or both.",
    "startAt": "Nothing before this instant.",
    "endAt": "Nothing after this instant; then the timer ends.",
    "maxOccurrences": "The timer ends after so many.",
    "jitter": "Each timer fires within this span after the instant, always as much.",
    "catchUp": "For what came due while nobody could fire it: `latest` fires one, `all` up to `max`, `none` nothing; "
    "not older than `window`.",
    "whileRunning": "When a firing before is not finished: allow another, skip it, or queue it.",
    "pauseAfterFailures": "The timer is paused when so many firings in a row have failed.",
}
