"""Waiting for timers to end: many callers, one look at the database a second for all of them.

An event wakes it at once; the look each second is for when there are no events, NATS is away, or one got lost.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias
from uuid import UUID

from minoots.domain.places import Places
from minoots.domain.timer import Timer
from minoots.errors import TimerNotFound
from minoots.store.database import Database
from minoots.store.timers import get_timer
from minoots.store.waits import find_ended

WAIT_DEFAULT_S: Final = 30.0
WAIT_MOST_S: Final = 300.0
_EVERY_S: Final = 1.0

How: TypeAlias = Literal["ended", "timeout", "interrupted"]
_Timer: TypeAlias = tuple[str, UUID]


class Endings(Protocol):
    """Tells when a timer may have ended."""

    def expecting(self, timer_id: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Inside of the block `wake` is called then."""
        ...


@dataclass(frozen=True, slots=True)
class Waited:
    """The timer, and why the wait was over: `interrupted` when the server goes away."""

    timer: Timer
    how: How


class Waits:
    """Who waits in this process. `tick` is the body of its loop, `wake` of that loop is given by `on_news`."""

    def __init__(
        self, database: Database, endings: Endings | None, places: Places, most_s: float = WAIT_MOST_S
    ) -> None:
        self._db = database
        self._endings = endings
        self._places = places
        self._most_s = most_s
        self._waiting: dict[_Timer, set[asyncio.Future[Timer | None]]] = {}
        # Those of whom an event told since the last look.
        self._told: set[_Timer] = set()
        self._looked_at = 0.0
        self._is_closing = False
        self.on_news: Callable[[], None] = lambda: None

    async def wait(self, tenant_id: str, timer_id: UUID, seconds: float) -> Waited:
        """Until the timer has ended, or the time is up; TimerNotFound, also when it is removed meanwhile."""
        key = (tenant_id, timer_id)
        deadline = time.monotonic() + min(seconds, self._most_s)
        ended: asyncio.Future[Timer | None] = asyncio.get_running_loop().create_future()

        def tell() -> None:
            self._told.add(key)
            self.on_news()

        expecting = nullcontext() if self._endings is None else self._endings.expecting(str(timer_id), tell)
        with self._places.one(tenant_id), expecting:
            self._waiting.setdefault(key, set()).add(ended)
            try:
                # After it is expected: an end from now on is told, one before is seen.
                if found := await self._look([key]):
                    return Waited(_found(found[0][1]), "ended")
                return await self._await(ended, key, deadline)
            finally:
                self._forget(key, ended)

    def end(self) -> None:
        """The server goes away: everybody is answered with what there is."""
        self._is_closing = True
        for waiters in self._waiting.values():
            for ended in waiters:
                ended.cancel()

    async def tick(self) -> float:
        """One look at those who were told of, or at all when a second has passed; seconds until the next."""
        due_s = self._looked_at + _EVERY_S - time.monotonic()
        if due_s <= 0:
            asked, self._looked_at, due_s = list(self._waiting), time.monotonic(), _EVERY_S
        else:
            asked = [key for key in self._told if key in self._waiting]
        self._told.clear()
        for key, timer in await self._look(asked):
            for ended in self._waiting.get(key, ()):
                if not ended.done():
                    ended.set_result(timer)
        return due_s

    async def _await(self, ended: "asyncio.Future[Timer | None]", key: _Timer, deadline: float) -> Waited:
        how: How = "timeout"
        if self._is_closing:
            how = "interrupted"
        else:
            await asyncio.wait([ended], timeout=max(deadline - time.monotonic(), 0))
            if ended.cancelled():
                how = "interrupted"
            elif ended.done():
                return Waited(_found(ended.result()), "ended")
        if found := await self._look([key]):
            return Waited(_found(found[0][1]), "ended")
        async with self._db.connection() as connection:
            return Waited(_found(await get_timer(self._db, connection, *key)), how)

    async def _look(self, asked: list[_Timer]) -> list[tuple[_Timer, Timer | None]]:
        if not asked:
            return []
        async with self._db.connection() as connection:
            return await find_ended(self._db, connection, asked)

    def _forget(self, key: _Timer, ended: "asyncio.Future[Timer | None]") -> None:
        waiters = self._waiting[key]
        waiters.discard(ended)
        if not waiters:
            del self._waiting[key]


def _found(timer: Timer | None) -> Timer:
    if timer is None:
        raise TimerNotFound
    return timer
