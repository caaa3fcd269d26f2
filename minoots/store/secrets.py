"""Every statement about signing secrets. What comes in and goes out is wrapped: no statement sees a secret."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from minoots.domain.signing import SigningSecret
from minoots.store.database import Connection, Database

_IS_URL = "select minoots.is_url($1)"

# Of two requests for one destination the later waits: it has to see what the earlier one made.
_LOCK = "select pg_advisory_xact_lock(hashtextextended(format('%s %s', $1::text, $2::text), 9))"

_LIVE = """
select secret_id, wrapped from minoots.signing_secrets
 where tenant_id = $1 and (destination = $2 or (destination is null and $2::text is null))
   and (expires_at is null or expires_at > minoots.now())
"""

# The one that was current signs beside the new one for as long as receivers may still know only it.
_RETIRE = """
update minoots.signing_secrets set expires_at = minoots.now() + $3::bigint * interval '1 ms'
 where tenant_id = $1 and (destination = $2 or (destination is null and $2::text is null)) and expires_at is null
"""

# Where the tenant's secrets have signed so far they go on doing so for the overlap: the first own one rotates them.
_INSERT = """
insert into minoots.signing_secrets as s (tenant_id, secret_id, destination, wrapped, created_by, tenant_until)
select $1, minoots.uuid7(), $2, $3, $4,
       case when $2::text is not null and $5::bigint > 0
             and not exists (select from minoots.signing_secrets o where o.tenant_id = $1 and o.destination = $2
                                and (o.expires_at is null or o.expires_at > minoots.now()))
             and exists (select from minoots.signing_secrets o where o.tenant_id = $1 and o.destination is null
                            and (o.expires_at is null or o.expires_at > minoots.now()))
            then minoots.now() + $5::bigint * interval '1 ms' end
returning s.secret_id, s.tenant_id, s.destination, minoots.iso(s.created_at), minoots.iso(s.expires_at), s.created_by
"""

_LIST = """
select secret_id, tenant_id, destination, minoots.iso(created_at), minoots.iso(expires_at), created_by
  from minoots.signing_secrets
 where tenant_id = $1 and ($2::uuid is null or secret_id < $2) and (expires_at is null or expires_at > minoots.now())
 order by secret_id desc limit $3
"""

_END = """
delete from minoots.signing_secrets
 where tenant_id = $1 and secret_id = $2 and (expires_at is null or expires_at > minoots.now())
returning secret_id, tenant_id, destination, minoots.iso(created_at), minoots.iso(minoots.now()), created_by
"""

# For each (tenant, origin) asked for: what signs for the origin itself and, apart from it, for the whole tenant.
_SIGNING = """
select a.nth, s.destination, s.wrapped, coalesce(s.tenant_until > minoots.now(), false) as is_beside
  from unnest($1::text[], $2::text[]) with ordinality a(tenant_id, origin, nth)
 cross join lateral (
       select s.* from minoots.signing_secrets s where s.tenant_id = a.tenant_id and s.destination = a.origin
        union all
       select s.* from minoots.signing_secrets s where s.tenant_id = a.tenant_id and s.destination is null) s
 where s.expires_at is null or s.expires_at > minoots.now()
 order by a.nth, s.created_at desc, s.secret_id desc
"""

# All tenants', in the order of the key, for whoever has the keys.
_WALK = """
select tenant_id, secret_id, destination, wrapped from minoots.signing_secrets
 where (tenant_id, secret_id) > ($1, $2) order by tenant_id, secret_id limit $3
"""

_REWRAP = """
update minoots.signing_secrets set wrapped = $4 where tenant_id = $1 and secret_id = $2 and wrapped = $3
"""

_PRUNE = """
delete from minoots.signing_secrets where ctid = any(array(
    select ctid from minoots.signing_secrets where expires_at <= minoots.now()
     order by expires_at limit $1 for update skip locked))
"""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A secret as it is stored, and the destination that it was wrapped for; None is the whole tenant.

    `is_beside` says whether those of the tenant still sign beside it.
    """

    destination: str | None
    wrapped: bytes
    is_beside: bool = False


async def is_url(db: Database, connection: Connection, url: str) -> bool:
    """Whether a webhook could have it, by the rule that holds for those."""
    is_one: bool = await connection.fetchval(db.sql(_IS_URL), url)
    return is_one


async def lock_destination(db: Database, connection: Connection, tenant_id: str, destination: str | None) -> None:
    """Hold the destination's secrets until the transaction ends."""
    await connection.execute(db.sql(_LOCK), tenant_id, destination or "")


async def list_live(
    db: Database, connection: Connection, tenant_id: str, destination: str | None
) -> list[tuple[UUID, bytes]]:
    """What signs for exactly this destination now: id and wrapped secret."""
    rows = await connection.fetch(db.sql(_LIVE), tenant_id, destination)
    return [(UUID(int=row[0].int), row[1]) for row in rows]


async def retire_current(
    db: Database, connection: Connection, tenant_id: str, destination: str | None, overlap_ms: int
) -> None:
    """Let the destination's current secret end after the overlap."""
    await connection.execute(db.sql(_RETIRE), tenant_id, destination, overlap_ms)


async def insert_secret(
    db: Database, connection: Connection, tenant_id: str, new: Wrapped, created_by: str, overlap_ms: int
) -> SigningSecret:
    """The destination's current secret from now on; `retire_current` comes before it."""
    row = await connection.fetchrow(db.sql(_INSERT), tenant_id, new.destination, new.wrapped, created_by, overlap_ms)
    assert row is not None, "an insert that returns has a row"
    return _shown(row)


async def list_secrets(
    db: Database, connection: Connection, tenant_id: str, before: UUID | None, limit: int
) -> list[SigningSecret]:
    """What signs for the tenant now, the newest first."""
    return [_shown(row) for row in await connection.fetch(db.sql(_LIST), tenant_id, before, limit)]


async def end_secret(db: Database, connection: Connection, tenant_id: str, secret_id: UUID) -> SigningSecret | None:
    """Remove a secret that signs; None when there is no such one."""
    row = await connection.fetchrow(db.sql(_END), tenant_id, secret_id)
    return None if row is None else _shown(row)


async def find_signing(
    db: Database, connection: Connection, wanted: Sequence[tuple[str, str]]
) -> list[tuple[int, Wrapped]]:
    """What may sign for each (tenant, origin), by its place in `wanted`, the newest first.

    Where some are of the origin itself, those of the whole tenant sign only if one of them `is_beside`.
    """
    rows = await connection.fetch(db.sql(_SIGNING), [tenant for tenant, _ in wanted], [origin for _, origin in wanted])
    return [(row["nth"] - 1, Wrapped(row["destination"], row["wrapped"], row["is_beside"])) for row in rows]


async def walk(
    db: Database, connection: Connection, after: tuple[str, UUID], limit: int
) -> list[tuple[tuple[str, UUID], Wrapped]]:
    """The next secrets of all tenants behind this key, each with its key."""
    rows = await connection.fetch(db.sql(_WALK), *after, limit)
    return [((row[0], UUID(int=row[1].int)), Wrapped(row[2], row[3])) for row in rows]


async def rewrap(db: Database, connection: Connection, key: tuple[str, UUID], old: bytes, new: bytes) -> bool:
    """Put the new wrapping in the place of the old; False when it is not the old one, or gone."""
    done: str = await connection.execute(db.sql(_REWRAP), *key, old, new)
    return done.endswith(" 1")


async def prune_secrets(db: Database, connection: Connection, limit: int) -> int:
    """Remove up to `limit` secrets whose overlap is over; how many."""
    done: str = await connection.execute(db.sql(_PRUNE), limit)
    return int(done.rsplit(" ", 1)[-1])


def _shown(row: Any) -> SigningSecret:
    secret_id, tenant_id, destination, created_at, expires_at, created_by = row
    return SigningSecret(
        id=UUID(int=secret_id.int),
        tenant_id=tenant_id,
        destination=destination,
        created_at=created_at,
        expires_at=expires_at,
        created_by=created_by,
    )
