"""When a failed delivery is tried again: exponential back-off with full jitter.

The default is 8 attempts within about 28 hours: waits of up to 5 s, 25 s, 2 min, 10 min, 52 min, 4.3 h and 21.7 h.
Full jitter draws each wait evenly from zero to its bound, so that what failed together does not come back together
(Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
"""

import math
import random
from datetime import timedelta
from typing import Annotated

import msgspec

from minoots.domain.limits import YEAR_MS

_Ms = Annotated[int, msgspec.Meta(ge=0, le=YEAR_MS)]
_AgeMs = Annotated[int, msgspec.Meta(ge=1, le=YEAR_MS)]


class RetryPolicy(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a bundle may say about trying again; what it leaves out has the default."""

    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    max_age_ms: _AgeMs | None = None
    backoff_initial_ms: _Ms | None = None
    backoff_multiplier: Annotated[float, msgspec.Meta(ge=1, le=1000)] | None = None
    backoff_max_ms: _Ms | None = None

    def attempts(self) -> int:
        return 8 if self.max_attempts is None else self.max_attempts

    def longest_wait(self, failures: int) -> timedelta:
        """The bound of the wait after so many failed attempts (1, 2, …); no overflow at any number."""
        initial = 5_000 if self.backoff_initial_ms is None else self.backoff_initial_ms
        most = 24 * 3_600_000 if self.backoff_max_ms is None else self.backoff_max_ms
        multiplier = 5.0 if self.backoff_multiplier is None else self.backoff_multiplier
        if initial == 0:
            return timedelta()
        # Compared as logarithms: multiplier ** failures would leave the floats long before attempt 1,000.
        grown = math.log(initial) + (failures - 1) * math.log(multiplier)
        if most == 0 or grown >= math.log(most):
            return timedelta(milliseconds=most)
        return timedelta(milliseconds=math.exp(grown))

    def draw_wait(self, failures: int, rng: random.Random) -> timedelta:
        """One wait, drawn once and then stored."""
        return self.longest_wait(failures) * rng.random()

    def is_too_old(self, age: timedelta) -> bool:
        """Whether a delivery of this age is past `maxAgeMs`."""
        return self.max_age_ms is not None and age > timedelta(milliseconds=self.max_age_ms)
