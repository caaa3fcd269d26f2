"""When transactions became visible to others: the honest end of a commit.

A commit's own timestamp (`track_commit_timestamp`) is taken before its record is flushed, so it leaves out the wait for
the disk. Here an observer asks for the current snapshot about every millisecond: a transaction has ended at the latest
at the instant of the first snapshot that no longer holds it as running. That is an upper bound, by at most one look.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import asyncpg

from minoots.bench.servers import Installation

EVERY_S = 0.001

# The snapshot is taken before the clock is read.
_LOOK = "select pg_current_snapshot()::text, (extract(epoch from clock_timestamp()) * 1000000)::int8"


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
        self._watching: asyncio.Task[None] | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.looks = 0

    async def __aenter__(self) -> Self:
        self._connection = await asyncpg.connect(self._made.servers.url)
        self._watching = asyncio.create_task(self._watch(self._connection))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._watching is not None
        assert self._connection is not None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        self._connection.terminate()

    async def _watch(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        look = await connection.prepare(_LOOK)
        last = ""
        while True:
            row = await look.fetchrow()
            assert row is not None
            self.looks += 1
            if row[0] != last:
                last = row[0]
                xmin, xmax, running = last.split(":")
                held = frozenset(int(xid) for xid in running.split(",") if xid)
                self._seen.append(_Snapshot(row[1], int(xmin), int(xmax), held))
            await asyncio.sleep(EVERY_S)

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
