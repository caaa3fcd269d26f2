"""Places of one process: shared out fairly, none lost, room for whoever comes next."""

import random

from hypothesis import given
from hypothesis import strategies as st

from minoots.orchestrator.capacity import AHEAD, Capacity
from minoots.store.lanes import LaneKey

keys = st.lists(
    st.builds(LaneKey, st.sampled_from("abcde"), st.sampled_from(["http://1", "http://2", "http://3", "http://4"])),
    unique=True,
    min_size=1,
)


def rng() -> random.Random:
    return random.Random(3)


def test_a_tenant_alone_finds_all_the_places() -> None:
    capacity = Capacity(100, 1_000)
    given_out = capacity.allot(1_000).share([LaneKey("a", "x")], rng())
    assert given_out == {LaneKey("a", "x"): 100}


def test_who_comes_next_finds_as_many_as_are_still_free() -> None:
    capacity = Capacity(90, 1_000)
    capacity.take([LaneKey("a", "x")] * 90)
    assert capacity.allot(1_000).share([LaneKey("b", "x")], rng()) == {LaneKey("b", "x"): 45}
    capacity.take([LaneKey("b", "x")] * 45)
    assert capacity.has_room(LaneKey("c", "x"))
    assert not capacity.has_room(LaneKey("a", "x"))


def test_fifty_destinations_that_hang_leave_another_tenant_its_share() -> None:
    capacity = Capacity(256, 64)
    hanging = [LaneKey("a", f"http://{n}") for n in range(50)]
    while taken := capacity.allot(200).share(hanging, rng()):
        capacity.take(key for key, many in taken.items() for _ in range(many))
    assert capacity.by_tenant["a"] == 256
    assert max(capacity.under_way.values()) - min(capacity.under_way.values()) <= 1, "in turns"
    assert sum(capacity.allot(64).share([LaneKey("b", "http://b")], rng()).values()) == 64


def test_one_lane_gets_no_more_than_its_places() -> None:
    capacity = Capacity(256, 64)
    shared = capacity.allot(200).share([LaneKey("a", "x")], rng())
    capacity.take(key for key, many in shared.items() for _ in range(many))
    assert shared == {LaneKey("a", "x"): 64}
    assert not capacity.has_room(LaneKey("a", "x"))
    capacity.give_back([LaneKey("a", "x")])
    assert capacity.allot(200).share([LaneKey("a", "x")], rng()) == {LaneKey("a", "x"): 1}


def test_limits_that_were_set_stand_in_the_place_of_the_default() -> None:
    capacity = Capacity(256, 64)
    allotment = capacity.allot(200)
    allotment.cap({LaneKey("a", "wide"): 100, LaneKey("a", "closed"): 0})
    shared = allotment.share([LaneKey("a", "wide"), LaneKey("a", "closed"), LaneKey("a", "other")], rng())
    assert shared == {LaneKey("a", "wide"): 100, LaneKey("a", "other"): 64}


@given(keys, st.integers(1, 60), st.integers(1, 30), st.integers(1, 200), st.randoms())
def test_nothing_is_given_twice_and_nothing_is_kept_back(
    lanes: list[LaneKey], places: int, lane_places: int, limit: int, chance: random.Random
) -> None:
    capacity = Capacity(places, lane_places)
    shared = capacity.allot(limit).share(lanes, chance)
    total = sum(shared.values())
    assert total <= min(limit, capacity.places)
    assert all(many <= lane_places for many in shared.values())
    capacity.take(key for key, many in shared.items() for _ in range(many))
    if total < limit:
        assert not any(capacity.has_room(key) for key in lanes), "as much as there was room for"
    by_tenant = {tenant: capacity.by_tenant[tenant] for tenant, _ in lanes}
    wide = {t: n for t, n in by_tenant.items() if n < sum(key.tenant_id == t for key in lanes) * lane_places}
    assert not wide or max(wide.values()) - min(wide.values()) <= 1, "tenants that want more have equal parts"
    capacity.give_back(key for key, many in shared.items() for _ in range(many))
    assert (capacity.taken, len(capacity.under_way), len(capacity.by_tenant)) == (0, 0, 0)


def test_so_many_run_ahead_of_what_is_written_and_no_more() -> None:
    capacity = Capacity(8, 2)
    lane, other = LaneKey("a", "x"), LaneKey("b", "x")
    for _ in range(AHEAD * 2):
        capacity.take([lane])
        assert capacity.run_ahead(lane)
    capacity.take([lane])
    assert not capacity.run_ahead(lane), "as many as four times the lane's places are not written yet"
    capacity.take([other])
    assert capacity.run_ahead(other)
    assert capacity.taken == 1, "only that one has its place still"
    capacity.catch_up(lane)
    assert capacity.run_ahead(lane)
    assert capacity.taken == 0


def test_all_lanes_together_run_ahead_by_as_much_as_there_are_places() -> None:
    capacity = Capacity(4, 100)
    lanes = [LaneKey("a", str(n)) for n in range(9)]
    for lane in lanes[:8]:
        capacity.take([lane])
        assert capacity.run_ahead(lane)
    capacity.take([lanes[8]])
    assert not capacity.run_ahead(lanes[8])
