"""Drain, then wait: the one loop that every role runs, and the one place where a loop's errors end."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from minoots.clock import Clock
from minoots.errors import ConfigError, Unavailable

log = structlog.get_logger("minoots.loop")

BACKOFF_S = (0.1, 5.0)


class Loop:
    """Repeats `tick` until told to stop.

    `tick` does one round and returns how many seconds to wait before the next (0: at once). `wake()` ends a wait.
    A round that takes longer than `deadline_s` is cut off. `last_good_s` is the monotonic reading after the last good
    round: what readiness looks at.
    """

    def __init__(self, name: str, tick: Callable[[], Awaitable[float]], clock: Clock, deadline_s: float = 60) -> None:
        self.name = name
        self._tick = tick
        self._clock = clock
        self._deadline_s = deadline_s
        self._wake = asyncio.Event()
        self.last_good_s = clock.monotonic()

    def wake(self) -> None:
        """End the wait: there is something to do."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises ConfigError only: that no waiting can mend."""
        backoff = BACKOFF_S[0]
        failing = False
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    async with asyncio.timeout(self._deadline_s):
                        rest = await self._tick()
                except ConfigError:
                    raise
                except Exception as error:
                    # Away is normal and said once; anything else is told with its trace each time.
                    if not isinstance(error, Unavailable | TimeoutError):
                        log.exception("loop.failed", loop=self.name)
                    elif not failing:
                        log.warning("loop.waiting", loop=self.name, reason=str(error) or "the round took too long")
                    failing, rest = True, backoff
                    backoff = min(backoff * 2, BACKOFF_S[1])
                    await self._wait(rest, stopping, wakeable=False)
                    continue
                if failing:
                    log.info("loop.recovered", loop=self.name)
                failing, backoff = False, BACKOFF_S[0]
                self.last_good_s = self._clock.monotonic()
                if rest > 0:
                    await self._wait(rest, stopping, wakeable=True)
                else:
                    await asyncio.sleep(0)
        finally:
            stopping.cancel()

    async def _wait(self, seconds: float, stopping: "asyncio.Task[bool]", wakeable: bool) -> None:
        # Woken already, as a loop is that has much to do: neither a timer nor a task for it.
        if wakeable and self._wake.is_set():
            await asyncio.sleep(0)
            return
        waits: list[asyncio.Task[object]] = [asyncio.ensure_future(self._clock.sleep(seconds))]
        if wakeable:
            waits.append(asyncio.ensure_future(self._wake.wait()))
        try:
            await asyncio.wait([*waits, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
