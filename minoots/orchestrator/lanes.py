"""What this process knows of lanes: which have work, when, and from where on. All of it can be had again by a scan."""

import math
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from minoots.orchestrator.capacity import Capacity
from minoots.store.deliveries import Candidate, Quota
from minoots.store.lanes import Front, LaneKey, Rule, Rules

INTERVAL_S = 0.05
INTERVAL_MOST_S = 0.1
# A scan costs what there are lanes: at most a twentieth of the time is spent on it.
SCAN_SHARE = 20
# So far behind what was claimed last may rows yet appear that are due before it: late commits, rolled-back claims. What
# appears even later is found by the next scan.
MARK_LAG = timedelta(seconds=2)
# What a scan has read of the database's clock is no longer believed after this: somebody may have set it back.
CLOCK_KEPT_S = 10.0
# How many lanes one claim asks at most.
LANES_AT_ONCE = 200

_START = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _View:
    """One lane. `due_at` and `held_until` by the monotonic clock: its next delivery, and its own limits.

    `is_full`: it is held only until an attempt ends. `is_open`: it is held by its breaker.
    """

    due_at: float = math.inf
    held_until: float = 0.0
    is_full: bool = False
    is_open: bool = False
    mark: datetime = _START

    def hold(self, now: float, rule: Rule) -> None:
        self.held_until = now + rule.again_in_s
        self.is_full = rule.is_full
        self.is_open = rule.is_open

    def look_at_breaker(self, now: float, probe_in_s: float | None) -> None:
        """Held until its probe when it is open; held no longer when somebody closed it meanwhile."""
        if probe_in_s is not None:
            self.held_until = now + probe_in_s
        elif self.is_open:
            self.held_until = 0.0
        self.is_open = probe_in_s is not None


class Lanes:
    """The lanes that have something to do, and when to look again."""

    def __init__(self, capacity: Capacity, rng: random.Random) -> None:
        self.capacity = capacity
        self.rng = rng
        self.ailing: set[LaneKey] = set()
        self._views: dict[LaneKey, _View] = {}
        self._scan_at = 0.0
        self._interval_s = INTERVAL_S
        # What the database's clock said at the last scan that found something, and when that was.
        self._clock: tuple[datetime, float] | None = None

    def scan_again(self) -> None:
        """Something became due that this process made so."""
        self._scan_at = 0.0

    def is_scan_due(self) -> bool:
        return time.monotonic() >= self._scan_at

    def scanned(self, fronts: Sequence[Front], began: float) -> None:
        """Take over what a scan, begun at this monotonic instant, has found."""
        now = time.monotonic()
        if fronts:
            self._clock = fronts[0].next_at - timedelta(seconds=fronts[0].seconds), now
        found = {front.key for front in fronts}
        for key in self._views.keys() - found:
            del self._views[key]
        for front in fronts:
            view = self._views.setdefault(front.key, _View())
            view.due_at = began + front.seconds
            view.mark = min(view.mark, front.next_at)
            view.look_at_breaker(began, front.probe_in_s)
            if front.is_ailing:
                self.ailing.add(front.key)
        is_busy = any(front.seconds <= 0 for front in fronts)
        self._interval_s = INTERVAL_S if is_busy else min(self._interval_s * 1.15, INTERVAL_MOST_S)
        self._scan_at = now + max(self._interval_s, SCAN_SHARE * (now - began))

    def due(self) -> list[LaneKey]:
        """Lanes that have work and, as far as is known, room: some of them when there are many."""
        now = time.monotonic()
        ready = [key for key, view in self._views.items() if view.due_at <= now and view.held_until <= now]
        if len(ready) > LANES_AT_ONCE:
            ready = self.rng.sample(ready, len(ready))
        return _first((key for key in ready if self.capacity.has_room(key)), LANES_AT_ONCE)

    def has_passed(self, instant: datetime) -> bool:
        """Whether the database's clock was past this at the last scan, so that the scan saw what was due by then."""
        if self._clock is None:
            return False
        read, at = self._clock
        return instant <= read and time.monotonic() - at < CLOCK_KEPT_S

    def seconds_to_look(self) -> float:
        """Until the next scan, or until a lane has work or may go on."""
        now = time.monotonic()
        soonest = self._scan_at
        for key, view in self._views.items():
            if (at := max(view.due_at, view.held_until)) < soonest and (at > now or self.capacity.has_room(key)):
                soonest = at
        return max(0.0, soonest - now)

    def quotas(self, given: Mapping[LaneKey, int]) -> list[Quota]:
        """What to take of each lane, and from where on."""
        return [Quota(key, self._view(key).mark, room) for key, room in given.items()]

    def told(self, rules: Rules) -> None:
        """Lanes whose limits or breakers leave no room wait as long as these say."""
        self.ailing |= rules.ailing
        now = time.monotonic()
        for key, rule in rules.by_lane.items():
            if rule.room <= 0:
                self._view(key).hold(now, rule)

    def claimed(self, given: Mapping[LaneKey, int], found: Sequence[Candidate], rules: Rules) -> None:
        """After the commit: marks move on, and lanes that had less than they had room for have nothing more."""
        now = time.monotonic()
        got = Counter(candidate.lane for candidate in found)
        for candidate in found:
            view = self._view(candidate.lane)
            view.mark = max(view.mark, candidate.next_at - MARK_LAG)
        for key, room in given.items():
            view = self._view(key)
            if got[key] < room:
                view.due_at = math.inf
            elif (rule := rules.by_lane.get(key)) is not None and rule.room <= got[key]:
                view.hold(now, rule)

    def freed(self, keys: Collection[LaneKey]) -> bool:
        """Attempts of these lanes have ended; whether others wait for that."""
        now = time.monotonic()
        views = [view for key in keys if (view := self._views.get(key)) is not None and view.due_at <= now]
        for view in views:
            if view.is_full:
                view.held_until = 0.0
        return bool(views)

    def waiting(self, keys: Iterable[LaneKey]) -> None:
        """What a message told of found no room: it is due now."""
        now = time.monotonic()
        for key in keys:
            self._view(key).due_at = now

    def _view(self, key: LaneKey) -> _View:
        return self._views.setdefault(key, _View())


def _first(keys: Iterable[LaneKey], many: int) -> list[LaneKey]:
    return [key for key, _ in zip(keys, range(many), strict=False)]
