"""How many may follow events or wait at once in a process."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from minoots.errors import TooManyFollow

# The connections that a server has beyond them answer everybody else; and no tenant takes the places of all.
PLACES: Final = 6_000
TENANT_PLACES: Final = 3_000


class Places:
    """Those that are taken, in all and by tenant."""

    def __init__(self, most: int = PLACES, tenant_most: int = TENANT_PLACES) -> None:
        self._most = most
        self._tenant_most = tenant_most
        self._of: Counter[str] = Counter()
        self.taken = 0

    def take(self, tenant_id: str) -> None:
        """One place, to be given back; raises TooManyFollow."""
        if self.taken >= self._most or self._of[tenant_id] >= self._tenant_most:
            raise TooManyFollow
        self.taken += 1
        self._of[tenant_id] += 1

    def give_back(self, tenant_id: str) -> None:
        """Somebody else may have it."""
        self.taken -= 1
        self._of[tenant_id] -= 1
        if not self._of[tenant_id]:
            del self._of[tenant_id]

    @contextmanager
    def one(self, tenant_id: str) -> Iterator[None]:
        """A place inside of the block."""
        self.take(tenant_id)
        try:
            yield
        finally:
            self.give_back(tenant_id)
