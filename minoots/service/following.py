"""What the doors of one process share for those who follow events or wait for a timer's end."""

import asyncio
from collections.abc import Callable

from minoots.broker.jetstream import Broker
from minoots.broker.tail import Tail
from minoots.domain.places import Places
from minoots.service.waits import Waits
from minoots.store import installation
from minoots.store.database import Database


class Following:
    """Without a broker there are no events to follow, and waits look at the database alone.

    `places` bounds how many follow or wait. `ends` are called when the server goes away, for what else is to end then.
    """

    def __init__(self, database: Database, broker: Broker | None) -> None:
        self._db = database
        self.places = Places()
        self.tail = None if broker is None else Tail(broker, self.places)
        self.waits = Waits(database, self.tail, self.places)
        self.ends: set[Callable[[], None]] = set()

    async def are_events_on(self) -> bool:
        """Whether this installation writes lifecycle events at all."""
        async with self._db.connection() as connection:
            return await installation.are_events_on(self._db, connection)

    async def end_at(self, stop: asyncio.Event) -> None:
        """Until `stop`; then everybody is answered with what there is, and told where to resume."""
        await stop.wait()
        self.waits.end()
        if self.tail is not None:
            self.tail.end()
        for end in tuple(self.ends):
            end()

    async def close(self) -> None:
        """Read no more."""
        if self.tail is not None:
            await self.tail.close()
