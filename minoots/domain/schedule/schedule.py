"""A schedule as its rules leave it: where its instants come from, and what bounds them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from minoots.domain.schedule.lines import Line
from minoots.domain.schedule.local_line import Gap, Overlap

CatchUpPolicy = Literal["latest", "all", "none"]
WhileRunning = Literal["allow", "skip", "queue"]


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What becomes of occurrences that are late: those within `window`, and at most `max` of them for `all`."""

    policy: CatchUpPolicy
    window: timedelta
    max: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """`lines` are united, `excluded` taken away; `gap` and `overlap` are None where nothing was said.

    `text` is the canonical JSON, `catch_up` and the rest have their defaults.
    """

    text: str
    lines: tuple[Line, ...]
    catch_up: CatchUp
    excluded: tuple[Line, ...] = ()
    gap: Gap | None = None
    overlap: Overlap | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_occurrences: int | None = None
    jitter_ms: int = 0
    while_running: WhileRunning = "allow"
    pause_after_failures: int | None = None


def schedule_text(schedule: Schedule) -> str:
    """The JSON that is stored: always with `specs`, only what was given, texts as they were given."""
    return schedule.text
