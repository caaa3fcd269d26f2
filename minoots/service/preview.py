"""What a schedule comes to, before anybody makes a timer of it."""

import asyncio
from datetime import datetime

from minoots.domain.limits import PREVIEW_DEFAULT, PREVIEW_MOST
from minoots.domain.moment import Moved
from minoots.domain.schedule import Instant, Schedule, ScheduleTooSparse, never_fires, preview
from minoots.errors import InvalidTimer
from minoots.store import installation
from minoots.store.database import Database

_DEADLINE_S = 5


async def preview_schedule(
    database: Database, moved: Moved, after: datetime | None = None, count: int = PREVIEW_DEFAULT
) -> list[Instant]:
    """The next `count` instants after `after`, else after the database's now; `moved.schedule` is set.

    Raises InvalidTimer when it can never fire, or takes too long to compute.
    """
    if not 1 <= count <= PREVIEW_MOST:
        raise InvalidTimer.at("/count", f"count is a whole number from 1 to {PREVIEW_MOST}")
    if moved.schedule is None:
        raise InvalidTimer.at("/schedule", "only a schedule has a preview: give schedule, cron or every")
    if after is None:
        async with database.connection() as connection:
            after = await installation.current_instant(database, connection)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            return await asyncio.to_thread(_preview, moved.schedule, moved.pointer, after, count)
    except TimeoutError:
        raise InvalidTimer.at(moved.pointer, "the schedule takes too long to compute; make it simpler") from None


def _preview(schedule: Schedule, pointer: str, after: datetime, count: int) -> list[Instant]:
    if reason := never_fires(schedule, after):
        raise InvalidTimer.at(pointer, reason)
    try:
        return preview(schedule, after, count)
    except ScheduleTooSparse as sparse:
        raise InvalidTimer.at(pointer, str(sparse)) from None
