"""Waiting for what must come, with a deadline instead of hope."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(condition: Callable[[], Awaitable[T]], seconds: float = 10, every: float = 0.02) -> T:
    """The first true value of `condition`; fails when none came in time, with the last one."""
    deadline = time.monotonic() + seconds
    while True:
        value = await condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s; the last was {value!r}")
        await asyncio.sleep(every)
