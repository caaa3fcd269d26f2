"""Recurring schedules: read, computed, shown. Pure: instants in, instants out.

- `read.py` and `specs.py` turn JSON into a `Schedule`; `cron.py` and `recurrence.py` are its local rules (`wall.py`),
  `local_line.py` puts them on the UTC line by a zone's changes (`zones.py`), `lines.py` has the rest.
- `occurrences.py` unites, excludes and counts; `previewing.py` says it to people.
"""

from minoots.domain.schedule.jitter import jitter_of
from minoots.domain.schedule.occurrences import Run, following, never_fires, run_between
from minoots.domain.schedule.previewing import Instant, preview
from minoots.domain.schedule.read import read_schedule
from minoots.domain.schedule.schedule import CatchUp, Schedule, schedule_text
from minoots.domain.schedule.steps import ScheduleTooSparse

__all__ = [
    "CatchUp",
    "Instant",
    "Run",
    "Schedule",
    "ScheduleTooSparse",
    "following",
    "jitter_of",
    "never_fires",
    "preview",
    "read_schedule",
    "run_between",
    "schedule_text",
]
