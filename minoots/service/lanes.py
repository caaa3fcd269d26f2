"""The rules around lanes: what a tenant has waiting where, and the limits that it sets."""

from minoots.domain.lane import DEFAULT_LANE, Lane, LimitsRequest
from minoots.errors import InvalidTimer
from minoots.service.timers import Page
from minoots.store import lane_limits
from minoots.store.database import Database


class LaneLimits:
    """What can be seen and set of lanes. Every call is of one tenant."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def list_lanes(self, tenant_id: str, after: str | None, limit: int) -> Page[Lane]:
        """Lanes with limits, failures or deliveries to come, by name."""
        async with self._db.connection() as connection:
            found = await lane_limits.list_lanes(self._db, connection, tenant_id, after or "", limit + 1)
        items = found[:limit]
        return Page(items, items[-1].lane if len(found) > limit else None)

    async def set_limits(self, tenant_id: str, asked: LimitsRequest) -> Lane:
        """Both limits as they are asked for: what is left out is taken away. InvalidTimer for text with NUL."""
        lane = DEFAULT_LANE if asked.lane is None else asked.lane
        for name, text in (("lane", lane), ("requestedBy", asked.requested_by or "")):
            if "\0" in text:
                raise InvalidTimer.at(f"/{name}", "text may not hold the character NUL")
        async with self._db.connection() as connection:
            await lane_limits.set_limits(
                self._db, connection, tenant_id, lane, asked.concurrency, asked.rate_per_s, asked.requested_by
            )
            return await lane_limits.get_lane(self._db, connection, tenant_id, lane)
