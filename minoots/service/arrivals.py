"""New timers that arrive one by one, and go to the database together with those that arrived meanwhile.

A statement of one timer costs Postgres five times what a further timer in it costs (300 µs and 60 µs, measured), and a
commit waits for the disk once. Nobody waits for others to come: a timer goes at once while fewer than AT_ONCE
statements of its tenant are under way, and with the next of them otherwise.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from minoots.domain.timer import NewTimer, Timer
from minoots.errors import StoreUnavailable
from minoots.store import timers
from minoots.store.database import ROW_ERRORS, Database

# Statements of one tenant at once.
AT_ONCE: Final = 2
# What goes together at most: so many timers, or so much text beyond the first.
_TIMERS: Final = 100
_CHARACTERS: Final = 256 * 1024

# The timer that was made; None when its instant is too far past.
_Answer: TypeAlias = "asyncio.Future[Timer | None]"


@dataclass(slots=True)
class _Line:
    """One tenant's timers that wait, and how many statements are under way."""

    waiting: list[tuple[NewTimer, _Answer]] = field(default_factory=list)
    under_way: int = 0


class Arrivals:
    """The inserts of one process. A statement has timers of one tenant only; each is made or refused by itself."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._lines: dict[str, _Line] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def insert(self, tenant_id: str, new: NewTimer) -> Timer | None:
        """Create a timer that fires once; None when its instant is too far past. A caller that leaves may have it."""
        line = self._lines.setdefault(tenant_id, _Line())
        answer: _Answer = asyncio.get_running_loop().create_future()
        line.waiting.append((new, answer))
        if line.under_way < AT_ONCE:
            line.under_way += 1
            # It begins after everybody who is ready now had a turn, so that they are in it.
            sending = asyncio.create_task(self._send(tenant_id, line))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        return await answer

    async def _send(self, tenant_id: str, line: _Line) -> None:
        """Statement after statement, until nobody waits."""
        try:
            while together := _take(line.waiting):
                await self._answer(tenant_id, together)
        finally:
            line.under_way -= 1
            if not line.under_way and not line.waiting:
                self._lines.pop(tenant_id, None)

    async def _answer(self, tenant_id: str, together: Sequence[tuple[NewTimer, _Answer]]) -> None:
        try:
            async with self._db.connection() as connection:
                made = await timers.insert_timers(self._db, connection, tenant_id, [new for new, _ in together])
            for (_, answer), timer in zip(together, made, strict=True):
                if not answer.done():
                    answer.set_result(timer)
        except ROW_ERRORS as refused:
            # The database refused one row and with it made none: which one, each finds out by itself.
            if len(together) == 1:
                _fail(together, refused)
            for one in together if len(together) > 1 else ():
                await self._answer(tenant_id, [one])
        except Exception as error:
            _fail(together, error)
        except BaseException:
            for _, answer in together:
                answer.cancel()
            raise


def _take(waiting: list[tuple[NewTimer, _Answer]]) -> list[tuple[NewTimer, _Answer]]:
    """The next that go together, without those whose callers have left."""
    together: list[tuple[NewTimer, _Answer]] = []
    characters = taken = 0
    for new, answer in waiting:
        characters += sum(
            len(text) for text in (new.metadata, new.labels, new.action_bundle, new.agent_binding) if text
        )
        if together and (len(together) == _TIMERS or characters > _CHARACTERS):
            break
        taken += 1
        if not answer.done():
            together.append((new, answer))
    del waiting[:taken]
    return together


def _fail(together: Sequence[tuple[NewTimer, _Answer]], error: Exception) -> None:
    for _, answer in together:
        if not answer.done():
            # Each its own: an error that is raised collects the frames it passes.
            mine = StoreUnavailable(error.detail) if isinstance(error, StoreUnavailable) else error
            answer.set_exception(mine)
