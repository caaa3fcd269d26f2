"""When transactions became visible to others: the honest end of a commit.

A commit's own timestamp (`track_commit_timestamp`) is taken before its record is flushed, so it leaves out the wait for
the disk. Here an observer looks at the current snapshot about every millisecond: a transaction has ended at the
latest at the instant of the first snapshot that no longer holds it as running. That is an upper bound, by at most one
look. The observer is a procedure in the server, so that neither a round trip nor a client stands between the looks.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import asyncpg

from minoots.bench.failures import BenchFailed
from minoots.bench.servers import Installation

EVERY_S = 0.0005

# The snapshot is taken before the clock is read. Each look is a transaction of its own, so that vacuum is not held up.
_WATCH = """
create procedure minoots.bench_watch(every float8) language plpgsql as $$
declare
    seen text; former text := ''; looks int8 := 0;
begin
    loop
        seen := pg_current_snapshot()::text;
        looks := looks + 1;
        if seen <> former then
            former := seen;
            raise notice '% % %', (extract(epoch from clock_timestamp()) * 1000000)::int8, looks, seen;
        end if;
        commit;
        perform pg_sleep(every);
    end loop;
end $$
"""


@dataclass(frozen=True, slots=True)
class _Snapshot:
    at_us: int
    xmin: int
    xmax: int
    running: frozenset[int]

    def shows(self, xid: int) -> bool:
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


class CommitWatch:
    """Use as a context manager around what commits."""

    def __init__(self, made: Installation) -> None:
        self._made = made
        self._seen: list[_Snapshot] = []
        self._watching: asyncio.Task[str] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.looks = 0

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._made.servers.url)
        await self._connection.execute(self._made.sql(_WATCH))
        self._connection.add_log_listener(self._hear)
        self._watching = asyncio.create_task(
            self._connection.execute(self._made.sql(f"call minoots.bench_watch({EVERY_S})"))
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        assert self._connection is not None
        if self._watching.done():
            raise BenchFailed(f"the observer of commits ended early: {self._watching.exception()}")
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._connection.terminate()

    def _hear(self, _: object, notice: Any) -> None:
        at_us, looks, snapshot = notice.message.split(" ")
        xmin, xmax, running = snapshot.split(":")
        self.looks = int(looks)
        held = frozenset(int(xid) for xid in running.split(",") if xid)
        self._seen.append(_Snapshot(int(at_us), int(xmin), int(xmax), held))

    def visible_at(self, xids: Iterable[int]) -> dict[int, int]:
        """Microseconds since 1970 at which each transaction (its 32-bit number) was first seen to have ended."""
        if not self._seen:
            return {}
        newest = self._seen[-1].xmax
        ceilings = [snapshot.xmax for snapshot in self._seen]
        found = {}
        for short in set(xids):
            # The rows keep the lower half of the number; the run is short, so the upper half is the newest one's.
            xid = (newest & ~0xFFFFFFFF) | short
            xid = xid - (1 << 32) if xid > newest else xid
            for snapshot in self._seen[bisect_right(ceilings, xid) :]:
                if snapshot.shows(xid):
                    found[short] = snapshot.at_us
                    break
        return found
