"""The clock for sleeping and for deadlines; whether a timer is due is the database's to say."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a loop needs of time: a monotonic reading in seconds, and waiting."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own."""

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
