"""What the rows say afterwards: which timers fired, when, how often. Nothing here trusts the kernel's own words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from minoots.bench.servers import Installation

# Instants in microseconds since 1970. A firing's due instant is not asked: the timer says when it was to fire.
_FIRED = """
select t.id, (extract(epoch from greatest(t.fire_at, t.created_at)) * 1000000)::int8 as due_us,
       (extract(epoch from f.fired_at) * 1000000)::int8 as fired_us, f.xmin::text::int8 as xid,
       case when current_setting('track_commit_timestamp')::boolean
            then (extract(epoch from pg_xact_commit_timestamp(f.xmin)) * 1000000)::int8 end as recorded_us
  from minoots.timers t left join minoots.firings f on f.timer_id = t.id
 where t.tenant_id like 'bench-%'
"""


@dataclass(frozen=True, slots=True)
class Fired:
    """One firing of a measured timer; a timer that never fired has one without instants.

    `recorded_us` is the commit record's own instant, where Postgres keeps it (`--set track_commit_timestamp=on`).
    """

    timer: object
    due_us: int
    fired_us: int | None
    xid: int | None
    recorded_us: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counts over timers that were to fire exactly once."""

    fired: int
    lost: int
    duplicates: int


async def read_fired(made: Installation) -> list[Fired]:
    """Every measured timer with its firing, or firings."""
    async with made.connection() as connection:
        return [Fired(*row) for row in await connection.fetch(made.sql(_FIRED), timeout=600)]


def judge(rows: Sequence[Fired], expected: int) -> Verdict:
    """`expected` timers were made: one that is gone is lost as well."""
    timers = {row.timer for row in rows if row.fired_us is not None}
    firings = sum(row.fired_us is not None for row in rows)
    return Verdict(len(timers), expected - len(timers), firings - len(timers))


def firing_rate(rows: Sequence[Fired]) -> float | None:
    """Firings a second from the first batch's beginning to the last one's: what came with the last is not counted."""
    instants = [row.fired_us for row in rows if row.fired_us is not None]
    if not instants or max(instants) == min(instants):
        return None
    last = max(instants)
    return sum(instant < last for instant in instants) / ((last - min(instants)) / 1e6)


def rate_by_part(rows: Sequence[Fired], parts: int) -> list[float]:
    """Firings a second in each of so many equal parts of the firings, in the order of firing: whether it slows down."""
    instants = sorted(row.fired_us for row in rows if row.fired_us is not None)
    size = len(instants) // parts
    if size == 0:
        return []
    edges = [instants[part * size] for part in range(parts)] + [instants[-1]]
    return [size / ((after - before) / 1e6) for before, after in pairwise(edges) if after > before]
