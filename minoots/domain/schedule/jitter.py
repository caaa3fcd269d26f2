"""Jitter: a delay of a timer's own, so that what is written for the same instant does not come due at once."""

from datetime import datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from minoots.domain.schedule.schedule import Schedule


def jitter_of(schedule: Schedule, timer_id: UUID, nominal: datetime | None = None) -> timedelta:
    """Whole milliseconds from 0 to the schedule's window, inclusive; the same for all occurrences of a timer.

    `nominal` plays no part: occurrences of one timer stay as far apart as their schedule has them.
    """
    if not schedule.jitter_ms:
        return timedelta()
    drawn = int.from_bytes(blake2b(timer_id.bytes, digest_size=8, person=b"jitter").digest(), "big")
    return timedelta(milliseconds=drawn % (schedule.jitter_ms + 1))
