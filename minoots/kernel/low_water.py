"""The low-water mark of a kernel whose batches run side by side."""

from dataclasses import dataclass, field
from datetime import datetime

from minoots.store.firings import START, Mark


@dataclass(eq=False, slots=True)
class Batch:
    """A claim that is under way, from the mark as it was when it began."""

    mark: Mark
    era: int


@dataclass(slots=True)
class _Ended:
    last: Mark
    waits_for: set[Batch]


@dataclass(slots=True)
class LowWater:
    """Everything up to `mark` was claimed and committed by this kernel.

    A batch that ends moves it to its last row only when the batches that ran beside it have ended too, for the rows
    they hold lie below. When one of them is lost, none that ran beside it moves the mark.
    """

    mark: Mark = START
    _era: int = 0
    _under_way: set[Batch] = field(default_factory=set)
    _ended: list[_Ended] = field(default_factory=list)

    def begin(self) -> Batch:
        """A batch that claims from the mark on; ends with `commit` or `lose`."""
        batch = Batch(self.mark, self._era)
        self._under_way.add(batch)
        return batch

    def commit(self, batch: Batch, last: Mark | None) -> None:
        """It has committed; `last` is the last row that it claimed, None when it claimed none."""
        self._under_way.discard(batch)
        # Also one of an earlier era: what ended since then waits for it.
        for ended in self._ended:
            ended.waits_for.discard(batch)
        if last is not None and batch.era == self._era:
            self._ended.append(_Ended(last, set(self._under_way)))
        self.mark = max([self.mark, *(e.last for e in self._ended if not e.waits_for)])
        self._ended = [e for e in self._ended if e.waits_for]

    def lose(self, batch: Batch) -> None:
        """It was rolled back, or nobody knows: its rows may still wait."""
        self._under_way.discard(batch)
        self._begin_era()

    def lower(self, mark: Mark) -> None:
        """Go back to `mark`: there is more below than was thought."""
        self.mark = mark
        self._begin_era()

    def keep_up_with(self, now: datetime) -> None:
        """The database's clock showed `now` while no batch was under way: back to the start when the mark is later.

        It has stepped back, or another server has taken over. What has come due since then lies below the mark, and
        nobody knows how far.
        """
        if now < self.mark.due_at:
            self.lower(START)

    def _begin_era(self) -> None:
        self._era += 1
        self._ended.clear()
