"""The relay's statements: lock a shard, read its events in order, remove what NATS acknowledged."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from minoots.store.database import Connection, Database

SHARDS = range(8)

# Each shard, whether it has events behind its mark, and the oldest transaction that may still be open.
_LOOK = """
select m.shard, exists (select from minoots.outbox o where o.shard = m.shard and o.id > m.id) as waits,
       pg_snapshot_xmin(pg_current_snapshot())::text::int8 as xmin
  from unnest($1::smallint[], $2::int8[]) as m(shard, id)
"""

_LOCK = """
select shard, pg_current_xact_id()::text::int8 as xid from minoots.outbox_shards
 where shard = any($1::smallint[]) order by (shard - $2 + 8) % 8 limit 1
   for update skip locked
"""

# A statement of its own after the lock: only its snapshot surely lacks what the last holder of the shard removed.
# No more than 8 MiB, as it is stored, beyond the first event: a batch is held in memory.
_READ = """
select id, event_id, tenant_id, timer_id, kind, minoots.iso(created_at) as at, traceparent, data::text as data,
       pg_snapshot_xmin(pg_current_snapshot())::text::int8 as xmin
  from (select oldest.*, sum(pg_column_size(data)) over (order by id) - pg_column_size(data) as bytes_before
          from (select * from minoots.outbox where shard = $1 and id > $2 order by id limit $3) oldest) o
 where bytes_before < 8388608 order by id
"""

_FENCE = "select pg_current_xact_id()::text::int8"

_REMOVE = "delete from minoots.outbox where shard = $1 and id = any($2::int8[])"


class OutboxEvent(msgspec.Struct, frozen=True):
    """An event that waits. `at` and `data` are JSON text; transactions below `xmin` had ended when it was read."""

    id: int
    event_id: UUID
    tenant_id: str
    timer_id: UUID
    kind: str
    at: str
    traceparent: str | None
    data: str
    xmin: int


async def look(db: Database, connection: Connection, marks: Mapping[int, int]) -> tuple[set[int], int]:
    """The shards that have events behind their marks; and the number below which every transaction has ended."""
    rows = await connection.fetch(db.sql(_LOOK), list(marks), list(marks.values()))
    return {row["shard"] for row in rows if row["waits"]}, rows[0]["xmin"]


async def lock_shard(
    db: Database, connection: Connection, shards: Collection[int], start: int
) -> tuple[int, int] | None:
    """Hold one of the shards until the transaction ends, looking from `start` on; None when others hold them all.

    Also answers this transaction's own number: every transaction that had one before has a smaller one.
    """
    row = await connection.fetchrow(db.sql(_LOCK), list(shards), start)
    return None if row is None else (row["shard"], row["xid"])


async def draw_fence(db: Database, connection: Connection) -> int:
    """A transaction's number that is larger than that of every transaction that has one by now."""
    xid: int = await connection.fetchval(db.sql(_FENCE))
    return xid


async def read_events(db: Database, connection: Connection, shard: int, mark: int, limit: int) -> list[OutboxEvent]:
    """The oldest events of the shard behind the mark, in order."""
    rows = await connection.fetch(db.sql(_READ), shard, mark, limit)
    return [OutboxEvent(*row) for row in rows]


async def remove_events(db: Database, connection: Connection, shard: int, ids: Sequence[int]) -> None:
    """Remove what was acknowledged."""
    await connection.execute(db.sql(_REMOVE), shard, list(ids))
