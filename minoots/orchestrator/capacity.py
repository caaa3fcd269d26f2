"""How many deliveries this process may have under way: one bound for both ways of taking work."""

import asyncio


class Capacity:
    """A bounded number of places. Taking never waits; `wait_free` does."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self._free = asyncio.Event()
        self._free.set()

    @property
    def free(self) -> int:
        return self.places - self.taken

    def take(self, many: int) -> None:
        self.taken += many
        if self.free <= 0:
            self._free.clear()

    def give_back(self, many: int) -> None:
        self.taken -= many
        if self.free > 0:
            self._free.set()

    async def wait_free(self, seconds: float) -> bool:
        """Wait for a place, at most so long; whether there is one."""
        try:
            async with asyncio.timeout(seconds):
                await self._free.wait()
        except TimeoutError:
            return False
        return True
