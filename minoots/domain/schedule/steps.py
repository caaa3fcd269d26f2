"""The budget of a search: how many steps it may take before it has to have found an instant."""

from minoots.errors import MinootsError

# One step is about what passing over one excluded instant costs. The longest wait of a rule without INTERVAL, 400 years
# (a whole cycle of the Gregorian calendar), comes to 96,000 steps, three days of excluded seconds to 259,200.
BUDGET = 300_000
MONTH_STEPS = 20
DAY_STEPS = 3


class ScheduleTooSparse(MinootsError):
    """The schedule's next instant cannot be found within reasonable work; say it with fewer conditions."""


class Steps:
    """Counts down while nothing is found; whoever finds an instant calls `refill`."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._left = budget

    def spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise ScheduleTooSparse

    def refill(self) -> None:
        self._left = self._budget

    @property
    def left(self) -> int:
        return self._left
