"""The relay's statements: lock a shard, read its events in order, remove what NATS acknowledged."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

import msgspec

from minoots.store.database import Connection, Database

SHARDS = range(8)


def event_id_of(nth: str) -> str:
    """An SQL expression for an event's id: one random id for all of a statement, and a count in its last 24 bits.

    Postgres takes 1 to 4 µs to make one up. `nth` is an expression as well: a whole number that no other row has.
    """
    return f"((select left(minoots.uuid7()::text, 30)) || lpad(to_hex({nth}), 6, '0'))::uuid"


# Each shard, whether it has events behind its mark, and the oldest transaction that may still be open.
_LOOK = """
select m.shard, exists (select from minoots.outbox o where o.shard = m.shard and o.id > m.id) as waits,
       pg_snapshot_xmin(pg_current_snapshot())::text::int8 as xmin
  from unnest($1::smallint[], $2::int8[]) as m(shard, id)
"""

_LOCK = """
select shard, pg_current_xact_id()::text::int8 as xid from minoots.outbox_shards
 where shard = any($1::smallint[]) order by (shard - $2 + 8) % 8 limit $3
   for update skip locked
"""

# A statement of its own after the lock: only its snapshot surely lacks what the last holder of a shard removed.
# No more than 8 MiB in all, as they are stored, beyond the first event of each shard: a batch is held in memory.
_READ = """
select o.id, o.shard, o.event_id, o.tenant_id, o.timer_id, o.kind, minoots.iso(o.created_at) as at, o.traceparent,
       o.data::text as data, (select pg_snapshot_xmin(pg_current_snapshot())::text::int8) as xmin
  from unnest($1::smallint[], $2::int8[]) as m(shard, id)
 cross join lateral (
       select oldest.*, sum(pg_column_size(data)) over (order by id) - pg_column_size(data) as bytes_before
         from (select * from minoots.outbox where shard = m.shard and id > m.id order by id limit $3) oldest) o
 where o.bytes_before < 8388608 / cardinality($1) order by o.id
"""

_FENCE = "select pg_current_xact_id()::text::int8"

# No two events have the same id.
_REMOVE = "delete from minoots.outbox where shard = any($1::smallint[]) and id = any($2::int8[])"


class OutboxEvent(msgspec.Struct, frozen=True):
    """An event that waits. `at` and `data` are JSON text; transactions below `xmin` had ended when it was read."""

    id: int
    shard: int
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


async def lock_shards(
    db: Database, connection: Connection, shards: Collection[int], start: int, limit: int
) -> tuple[list[int], int]:
    """Hold up to `limit` of the shards until the transaction ends, looking from `start` on; others may hold the rest.

    Also answers this transaction's own number: every transaction that had one before has a smaller one.
    """
    rows = await connection.fetch(db.sql(_LOCK), list(shards), start, limit)
    return [row["shard"] for row in rows], rows[0]["xid"] if rows else 0


async def draw_fence(db: Database, connection: Connection) -> int:
    """A transaction's number that is larger than that of every transaction that has one by now."""
    xid: int = await connection.fetchval(db.sql(_FENCE))
    return xid


async def read_events(db: Database, connection: Connection, marks: Mapping[int, int], limit: int) -> list[OutboxEvent]:
    """The oldest events behind each shard's mark, up to `limit` of each, in the order they were written."""
    rows = await connection.fetch(db.sql(_READ), list(marks), list(marks.values()), limit)
    return [OutboxEvent(*row) for row in rows]


async def remove_events(db: Database, connection: Connection, shards: Collection[int], ids: Sequence[int]) -> None:
    """Remove what was acknowledged."""
    await connection.execute(db.sql(_REMOVE), list(shards), list(ids))
