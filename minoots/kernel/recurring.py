"""Recurring timers in the claim: they fire and move on to the next instant, which was computed long before."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from minoots.domain.recurrence import PLAN_LOW, come_due
from minoots.store import recurring
from minoots.store.database import Connection, Database


@dataclass(frozen=True, slots=True)
class RecurringRound:
    """How many were moved on; and which need the planner: they are held, or few instants are planned for them."""

    moved: int
    for_planner: frozenset[UUID]


async def fire_recurring(db: Database, connection: Connection, timer_ids: Sequence[UUID]) -> RecurringRound:
    """Fire what this transaction has claimed of recurring timers. Computes no instant and reads no schedule."""
    claimed = await recurring.read_claimed(db, connection, timer_ids)
    moved = await recurring.move(db, connection, [(timer, come_due(timer)) for timer in claimed])
    return RecurringRound(
        len(moved), frozenset(m.id for m in moved if m.is_held or (m.ahead < PLAN_LOW and not m.plan_ends))
    )
