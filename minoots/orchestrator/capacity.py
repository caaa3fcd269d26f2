"""How many deliveries this process may have under way, and whose: one bound for both ways of taking work.

A tenant alone finds `places`; as many again are kept for the others. Each may hold as much as is still free (dynamic
thresholds: Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998), so that
nobody has to know how many there are, nothing is kept from one who is alone, and whoever comes next finds room.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from minoots.store.lanes import LaneKey

# Of one lane, so many times its places may have been delivered and wait to be written.
AHEAD = 4


class Allotment:
    """Places as they are given out, one by one, before they are taken. `caps` bounds lanes that have limits set."""

    def __init__(self, capacity: "Capacity", limit: int) -> None:
        self._capacity = capacity
        self._left = max(0, min(limit, capacity.free))
        self._free = capacity.free
        self._by_lane: Counter[LaneKey] = Counter()
        self._by_tenant: Counter[str] = Counter()
        self._caps: dict[LaneKey, int] = {}

    def cap(self, caps: Mapping[LaneKey, int]) -> None:
        """What the lane's own limits leave; they stand in the place of the default."""
        self._caps.update(caps)

    def admit(self, key: LaneKey) -> bool:
        """Give this lane one more place; False when it, its tenant or this process has no room."""
        given = self._by_lane[key]
        most = self._caps.get(key)
        if most is None:
            most = self._capacity.lane_places - self._capacity.under_way[key]
        held = self._capacity.by_tenant[key.tenant_id] + self._by_tenant[key.tenant_id]
        if self._left <= 0 or given >= most or held >= self._free:
            return False
        self._left -= 1
        self._free -= 1
        self._by_lane[key] = given + 1
        self._by_tenant[key.tenant_id] += 1
        return True

    def share(self, keys: Collection[LaneKey], rng: random.Random) -> dict[LaneKey, int]:
        """Places for lanes that have work: in turns by tenant, and by lane within each, from a random one on."""
        by_tenant: dict[str, list[LaneKey]] = {}
        for key in rng.sample(list(keys), len(keys)):
            by_tenant.setdefault(key.tenant_id, []).append(key)
        given: dict[LaneKey, int] = {}
        turns = list(by_tenant.values())
        while turns:
            turns = [lanes for lanes in turns if self._turn(lanes, given)]
        return given

    def _turn(self, lanes: list[LaneKey], given: dict[LaneKey, int]) -> bool:
        """One place to the tenant's next lane that has room; lanes without are dropped. Whether one was given."""
        while lanes:
            key = lanes.pop(0)
            if self.admit(key):
                given[key] = given.get(key, 0) + 1
                lanes.append(key)
                return True
        return False


class Capacity:
    """A bounded number of places. Taking never waits; `wait_free` does."""

    def __init__(self, places: int, lane_places: int = 64) -> None:
        self.places = 2 * places
        self.lane_places = lane_places
        self.taken = 0
        self.under_way: Counter[LaneKey] = Counter()
        self.by_tenant: Counter[str] = Counter()
        self._ahead = 0
        self._ahead_of: Counter[LaneKey] = Counter()
        self._free = asyncio.Event()
        self._free.set()

    @property
    def free(self) -> int:
        return self.places - self.taken

    def allot(self, limit: int) -> Allotment:
        """Places to give out, at most so many."""
        return Allotment(self, limit)

    def has_room(self, key: LaneKey) -> bool:
        """Whether this process could take one more of this lane, as far as it knows without asking."""
        return Allotment(self, 1).admit(key)

    def take(self, keys: Iterable[LaneKey]) -> None:
        for key in keys:
            self.taken += 1
            self.under_way[key] += 1
            self.by_tenant[key.tenant_id] += 1
        if self.free <= 0:
            self._free.clear()

    def give_back(self, keys: Iterable[LaneKey]) -> None:
        for key in keys:
            self.taken -= 1
            _less(self.under_way, key)
            _less(self.by_tenant, key.tenant_id)
        if self.free > 0:
            self._free.set()

    def run_ahead(self, key: LaneKey) -> bool:
        """Give one place back before its result is written, until `catch_up`; False when too many are unwritten.

        So many at most that a lane whose results cannot be written, for somebody has locked its rows, comes to a stop.
        """
        if self._ahead >= self.places or self._ahead_of[key] >= AHEAD * self.lane_places:
            return False
        self._ahead += 1
        self._ahead_of[key] += 1
        self.give_back([key])
        return True

    def catch_up(self, key: LaneKey) -> None:
        """A result is written whose place was given back before."""
        self._ahead -= 1
        _less(self._ahead_of, key)

    async def wait_free(self, seconds: float) -> bool:
        """Wait for a place, at most so long; whether there is one."""
        try:
            async with asyncio.timeout(seconds):
                await self._free.wait()
        except TimeoutError:
            return False
        return True


def _less(counter: Counter[LaneKey] | Counter[str], key: LaneKey | str) -> None:
    """One less; what is at zero is forgotten, for lanes come and go."""
    left = counter[key] - 1  # type: ignore[index]
    if left > 0:
        counter[key] = left  # type: ignore[index]
    else:
        del counter[key]
