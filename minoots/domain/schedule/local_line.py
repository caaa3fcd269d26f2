"""A local recurrence on the UTC line: what a zone's changes skip and repeat follows the schedule's `gap` and `overlap`.

Time is walked in spans of one offset. Within a span walls and instants go one to one, so the outcome is ascending and
unique by construction; the policies only decide which walls at a span's two ends belong to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from minoots.domain.schedule.lines import LATEST, SECOND
from minoots.domain.schedule.steps import Steps
from minoots.domain.schedule.wall import DAY, Rule, count_walls, first_wall, walls
from minoots.domain.schedule.zones import Change, Span, Zone

Gap = Literal["shift", "skip"]
Overlap = Literal["first", "last", "both"]

# How far spans are looked at in one go. A year's changes of a zone are kept, so this is about how often a sparse rule
# looks for its next wall.
_STRETCH = 200 * DAY


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do with walls that do not exist, and with those that come twice."""

    gap: Gap
    overlap: Overlap


def choose_policy(gap: Gap | None, overlap: Overlap | None, is_hourly: bool) -> Policy:
    """What was said, else what a careful cron does: nothing is lost, and a time of day comes once.

    Times that a change skips come once, right after the gap. Times that it repeats come the first time only, but for a
    recurrence that means elapsed time (each hour, or each so many minutes), which goes on through the repeated hour.
    """
    return Policy(gap or "shift", overlap or ("both" if is_hourly else "first"))


class LocalLine:
    """A rule in a zone, up to a last wall and a last instant (microseconds), both inclusive."""

    def __init__(
        self, rule: Rule, zone: Zone, policy: Policy, last_wall: int | None = None, last: int | None = None
    ) -> None:
        self.rule, self.zone, self.policy = rule, zone, policy
        self._last_wall, self._last = last_wall, LATEST if last is None else last

    def between(self, after: int, until: int, steps: Steps) -> Iterator[int]:
        # Whole seconds s with after < s <= until.
        start, end = after // SECOND + 1, min(until, self._last) // SECOND + 1
        while start < end:
            # The next wall may be years away: nothing of the zone is looked at until then.
            wall = first_wall(self.rule, start - 2 * DAY, self._bound(end + 2 * DAY), steps)
            if wall is None:
                return
            start = max(start, wall - 2 * DAY)
            stretch = min(start + _STRETCH, end)
            for span in self.zone.spans(start, stretch):
                yield from (utc * SECOND for utc in self._within(span, start, stretch, steps))
            start = stretch

    def count(self, after: int, until: int, steps: Steps) -> int:
        start, end = after // SECOND + 1, min(until, self._last) // SECOND + 1
        total = 0
        for span in self.zone.spans(start, end) if start < end else ():
            low, high = self._walls(span, start, end)
            total += self._is_made_up(span, start, end, steps)
            total += count_walls(self.rule, low, self._bound(high), steps) if low < high else 0
        return total

    def skipped(self, change: Change, steps: Steps) -> int | None:
        """The first wall of the rule that a change skips."""
        if change.after <= change.before:
            return None
        return first_wall(self.rule, change.utc + change.before, self._bound(change.utc + change.after), steps)

    def names(self, wall: int, steps: Steps) -> bool:
        """Whether the rule comes at this wall."""
        return first_wall(self.rule, wall, self._bound(wall + 1), steps) is not None

    def _within(self, span: Span, start: int, end: int, steps: Steps) -> Iterator[int]:
        if self._is_made_up(span, start, end, steps):
            yield span.start
        low, high = self._walls(span, start, end)
        if low < high:
            yield from (wall - span.offset for wall in walls(self.rule, low, self._bound(high), steps))

    def _walls(self, span: Span, start: int, end: int) -> tuple[int, int]:
        """The walls [low, high) that are this span's, cut to the instants [start, end)."""
        low, high = max(span.start, start) + span.offset, min(span.end, end) + span.offset
        opening, closing = span.opening, span.closing
        if self.policy.overlap == "first" and opening and opening.after < opening.before:
            low = max(low, opening.utc + opening.before)
        if self.policy.overlap == "last" and closing and closing.after < closing.before:
            high = min(high, closing.utc + closing.after)
        return low, high

    def _is_made_up(self, span: Span, start: int, end: int, steps: Steps) -> bool:
        """Whether skipped walls come at the span's first instant, where no wall of its own comes anyway."""
        opening = span.opening
        if self.policy.gap == "skip" or opening is None or not start <= opening.utc < end:
            return False
        return self.skipped(opening, steps) is not None and not self.names(opening.utc + opening.after, steps)

    def _bound(self, wall: int) -> int:
        return wall if self._last_wall is None else min(wall, self._last_wall + 1)
