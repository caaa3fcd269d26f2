"""The mark of batches that run side by side passes no row that may still wait."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minoots.kernel.low_water import Batch, LowWater
from minoots.store.firings import START, Mark


def at(second: int) -> Mark:
    return Mark(datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=second), UUID(int=0))


def test_a_batch_alone_moves_it_to_its_last_row() -> None:
    water = LowWater()
    water.commit(water.begin(), at(5))
    assert water.mark == at(5)


def test_a_batch_that_claimed_nothing_leaves_it() -> None:
    water = LowWater(at(3))
    water.commit(water.begin(), None)
    assert water.mark == at(3)


@pytest.mark.parametrize("is_first_later", [True, False])
def test_the_faster_of_two_waits_for_the_slower(is_first_later: bool) -> None:
    water = LowWater()
    slow, fast = water.begin(), water.begin()
    ends = (at(9), at(5)) if is_first_later else (at(5), at(9))
    water.commit(fast, ends[1])
    assert water.mark == START
    water.commit(slow, ends[0])
    assert water.mark == at(9)


def test_it_goes_on_while_there_is_always_a_batch_under_way() -> None:
    water = LowWater()
    one = water.begin()
    for second in range(1, 9):
        other = water.begin()
        water.commit(one, at(second))
        one = other
    assert water.mark == at(7), "all but the last, which ran beside the one that is under way"


def test_a_lost_batch_keeps_it_where_it_was_for_all_that_ran_beside_it() -> None:
    water = LowWater(at(1))
    ended, lost, beside = water.begin(), water.begin(), water.begin()
    water.commit(ended, at(4))
    water.lose(lost)
    water.commit(beside, at(6))
    assert water.mark == at(1)
    water.commit(water.begin(), at(8))
    assert water.mark == at(8)


def test_lowered_it_is_not_moved_by_what_was_under_way() -> None:
    water = LowWater(at(5))
    batch = water.begin()
    water.lower(at(2))
    water.commit(batch, at(9))
    assert water.mark == at(2)


@pytest.mark.parametrize("ends_later", [False, True])
def test_what_began_after_a_lowering_waits_for_an_earlier_batch_only_while_that_is_under_way(ends_later: bool) -> None:
    water = LowWater(at(5))
    earlier = water.begin()
    water.lower(at(2))
    later = water.begin()
    if ends_later:
        water.commit(earlier, at(9))
        assert water.mark == at(2)
        water.commit(later, at(7))
    else:
        water.commit(later, at(7))
        assert water.mark == at(2)
        water.commit(earlier, at(9))
    assert water.mark == at(7)
    assert not water._ended, "nothing is kept of what has ended"


def test_a_clock_that_stepped_back_begins_it_anew() -> None:
    water = LowWater(at(5))
    for second in (9, 5):
        water.keep_up_with(at(second).due_at)
        assert water.mark == at(5)
    batch = water.begin()
    water.keep_up_with(at(4).due_at)
    water.commit(batch, at(6))
    assert water.mark == START
    water.commit(water.begin(), at(3))
    assert water.mark == at(3)


@given(st.lists(st.sampled_from(["begin", "commit", "lose"]), max_size=60), st.data())
def test_it_never_passes_a_row_of_a_batch_that_has_not_committed(steps: list[str], data: st.DataObject) -> None:
    """Rows are numbered in the order of claiming; each batch takes the next two, or what a lost one gave back."""
    water, under_way, waiting = LowWater(), list[tuple[Batch, list[int]]](), list(range(1, 200))
    for step in steps:
        if step == "begin":
            rows = [row for row in waiting if at(row) > water.mark][:2]
            waiting = [row for row in waiting if row not in rows]
            under_way.append((water.begin(), rows))
        elif under_way:
            batch, rows = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
            if step == "commit":
                water.commit(batch, at(rows[-1]))
            else:
                water.lose(batch)
                waiting = sorted(waiting + rows)
        left = [*waiting, *(row for _, rows in under_way for row in rows)]
        assert water.mark < at(min(left))
