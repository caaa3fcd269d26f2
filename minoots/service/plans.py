"""The plans of new timers that recur: computed beside the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import ParamSpec, TypeVar
from uuid import UUID

import uuid_utils

from minoots.domain.change import Timing, first_timing, own_jitter
from minoots.domain.schedule import schedule_text
from minoots.domain.timer import NewTimer
from minoots.errors import InvalidTimer
from minoots.store import installation
from minoots.store.database import Connection, Database

# The transaction waits for it, and must not idle for longer than it may (10 s); it holds no snapshot meanwhile.
PLAN_S = 8

P = ParamSpec("P")
T = TypeVar("T")


async def beside(is_costly: bool, read: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Read what was asked. To read a schedule may take a while, for its rules are counted: then in a thread."""
    return await asyncio.to_thread(read, *given, **named) if is_costly else read(*given, **named)


async def plan_new(
    db: Database, connection: Connection, new: Sequence[NewTimer], *, batch: bool
) -> list[tuple[UUID, NewTimer, Timing | None]]:
    """Ids, and plans for those that recur; raises InvalidTimer for one that never fires, of a batch below /items/N."""
    now = await installation.current_instant(db, connection)
    try:
        async with asyncio.timeout(PLAN_S):
            return await asyncio.to_thread(_plan_all, new, now, batch)
    except TimeoutError:
        raise InvalidTimer.at(
            "/items" if batch else "/schedule", "the schedules take too long to compute; make them simpler, or fewer"
        ) from None


def _plan_all(new: Sequence[NewTimer], now: datetime, batch: bool) -> list[tuple[UUID, NewTimer, Timing | None]]:
    """Timers of one schedule have one plan; only their jitter is their own."""
    plans: dict[str, Timing] = {}
    planned: list[tuple[UUID, NewTimer, Timing | None]] = []
    for index, asked in enumerate(new):
        timer_id = UUID(int=uuid_utils.uuid7().int)
        timing = None
        if asked.schedule is not None:
            text = schedule_text(asked.schedule)
            try:
                if text not in plans:
                    plans[text] = first_timing(timer_id, asked.schedule, now, asked.schedule_pointer)
            except InvalidTimer as refused:
                raise (refused.below(f"/items/{index}") if batch else refused) from None
            timing = own_jitter(plans[text], asked.schedule, timer_id)
        planned.append((timer_id, asked, timing))
    return planned
