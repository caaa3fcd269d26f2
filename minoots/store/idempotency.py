"""What was answered to requests that carried an Idempotency-Key."""

from dataclasses import dataclass

from minoots.store.database import Connection, Database

_LOCK = "select minoots.lock_idempotency_key($1, $2)"

_FIND = """
select request_hash = minoots.request_hash($3::jsonb) as same, answer from minoots.idempotency_keys
 where tenant_id = $1 and key = $2 and created_at > minoots.now() - interval '24 hours'
"""

_KEEP = """
insert into minoots.idempotency_keys as i (tenant_id, key, request_hash, answer)
values ($1, $2, minoots.request_hash($3::jsonb), $4)
on conflict (tenant_id, key) do update
   set request_hash = excluded.request_hash, answer = excluded.answer, created_at = excluded.created_at
"""


# By their place, which is surely theirs as long as they are locked: a join might read the whole table.
_PRUNE = """
delete from minoots.idempotency_keys where ctid = any(array(
    select ctid from minoots.idempotency_keys where created_at < minoots.now() - interval '24 hours'
     order by created_at limit $1 for update skip locked))
"""


@dataclass(frozen=True, slots=True)
class FormerAnswer:
    """What was answered first; `is_same` says whether the same was asked."""

    is_same: bool
    answer: str


async def lock_key(db: Database, connection: Connection, tenant_id: str, key: str) -> bool:
    """Hold the key until the transaction ends; False while another transaction holds it."""
    held: bool = await connection.fetchval(db.sql(_LOCK), tenant_id, key)
    return held


async def find_answer(
    db: Database, connection: Connection, tenant_id: str, key: str, request: str
) -> FormerAnswer | None:
    """The first answer under this key within 24 hours; `request` is JSON text, compared as jsonb."""
    row = await connection.fetchrow(db.sql(_FIND), tenant_id, key, request)
    return None if row is None else FormerAnswer(row["same"], row["answer"])


async def keep_answer(
    db: Database, connection: Connection, tenant_id: str, key: str, request: str, answer: str
) -> None:
    """Remember the answer, in the transaction that made it true."""
    await connection.execute(db.sql(_KEEP), tenant_id, key, request, answer)


async def prune_keys(db: Database, connection: Connection, limit: int) -> int:
    """Remove up to `limit` keys that are past their 24 hours; how many."""
    tag = await connection.execute(db.sql(_PRUNE), limit)
    return int(tag.rsplit(" ", 1)[-1])
