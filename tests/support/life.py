"""A timer's life without its loops: each step of the production code, once."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from minoots.clock import SystemClock
from minoots.domain.outcome import Outcome, Verdict
from minoots.kernel.firing import Kernel, Round
from minoots.kernel.planning import Planner
from minoots.orchestrator.intake import Intake
from minoots.store.database import Database
from minoots.store.results import Result, record_results
from tests.support.timers import Sql, insert_timers, switch_events_off


async def fire(database: Database) -> Round:
    """One batch of a kernel that has just started."""
    return await Kernel(database, SystemClock(), 500).run_once()


async def settle(database: Database) -> None:
    """Kernel and planner, until nothing is left to do at this instant."""
    planner = Planner(database)
    kernel = Kernel(database, SystemClock(), 500, on_recurring=planner.ask)
    while True:
        scanned, planned = await kernel.scan_once(), await planner.run_once()
        if not (scanned.claimed or planned.moved or planned.ended or planned.failed):
            return


async def make_deliveries_due(sql: Sql) -> None:
    """What would wait two seconds for a message, or longer for its retry, waits no more."""
    await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() where next_attempt_at is not null")


async def attempt(database: Database, outcome: Outcome, verdict: Verdict) -> int:
    """Lease what is due, and record that each attempt ended like this; how many."""
    leases = await Intake(database, "here", 5_000).take_due(100)
    async with database.transaction() as connection:
        written, _ = await record_results(database, connection, [Result(lease, outcome, verdict) for lease in leases])
    return written


DELIVERED = Verdict("delivered")
DEAD = Verdict("dead", reason="gave up after 1 attempt: HTTP 500")
LATER = Verdict("pending", wait=timedelta(hours=1))


async def fire_timers(
    database: Database, sql: Sql, actions: dict[str, Any], many: int = 1, *, events: bool = False
) -> list[UUID]:
    """Timers that have just fired; without events their deliveries are due at once."""
    if not events:
        await switch_events_off(sql)
    timers = await insert_timers(sql, many, actions=actions)
    while (await fire(database)).claimed:
        pass
    return timers
