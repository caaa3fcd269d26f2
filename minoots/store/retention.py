"""Retention: its rules, and the statements that remove what is past it, a batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from minoots.domain.retention import STATUSES, Retention
from minoots.store.database import Connection, Database

_LIST = """
select tenant_id, status, keep from minoots.retention where $1::text is null or tenant_id in ('*', $1)
 order by tenant_id = '*' desc, tenant_id, status
"""

_SET = """
insert into minoots.retention (tenant_id, status, keep)
select $1, status, keep from unnest($2::text[], $3::interval[]) as said(status, keep)
    on conflict (tenant_id, status) do update set keep = excluded.keep
"""

_CLEAR = "delete from minoots.retention where tenant_id = $1 and status = any($2::text[])"

# By key, whatever the statistics say: what goes is a few rows of tables that grew or shrank since they were counted.
_BY_KEY = """
select set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('jit', 'off', true)
"""

# Firings in the order in which they fired. A batch takes all of one instant, since the mark is an instant.
_PRUNE_FIRED = """
with rule as materialized (
    select d.status, case when r.tenant_id is null then d.keep else r.keep end as keep
      from unnest($3::text[], $4::interval[]) as d(status, keep)
      left join minoots.retention r on r.tenant_id = '*' and r.status = d.status),
shortest as materialized (
    select min(keep) as keep from (
        select keep from rule where status <> 'cancelled' union all
        select keep from minoots.retention where status <> 'cancelled') every_rule),
walked as materialized (
    select f.ctid as place, f.tenant_id, f.timer_id, f.occurrence, f.status, f.settled_at, f.fired_at
      from minoots.firings f
     where f.fired_at > $1 and f.fired_at < minoots.now() - (select keep from shortest)
     order by f.fired_at fetch first ($2) rows with ties),
-- a timer that fires once ends with its last firing and goes with it; any other firing ends and goes for itself
past as materialized (
    select w.place, w.timer_id, w.occurrence, t.ctid as timer_place, e.is_last
      from walked w join minoots.timers t on t.id = w.timer_id
      cross join lateral (
          select t.schedule is null and t.retained_from is null and t.occurrence = w.occurrence as is_last) e
      cross join lateral (
          select case when e.is_last then t.status else w.status end as status,
                 case when e.is_last and t.status <> 'fired' then t.settled_at else w.settled_at end as at) ended
      join rule r on r.status = ended.status
      left join minoots.retention own on own.tenant_id = w.tenant_id and own.status = ended.status
     where w.status <> 'dispatching'
       and ended.at < minoots.now() - case when own.tenant_id is null then r.keep else own.keep end
       -- how a recurring timer ends is told from its last firing
       and not (t.schedule is not null and t.retained_from is null and t.fire_at is null
                and t.occurrence = w.occurrence)),
-- the firing first, as a redrive would lock them; who redrives it now keeps it
ended as materialized (
    select t.ctid as place
      from past p join minoots.firings f on f.ctid = p.place join minoots.timers t on t.ctid = p.timer_place
     where p.is_last and f.status <> 'dispatching' and t.status in ('settled', 'failed', 'fired')
       and (p.occurrence = 1 or not exists (
           select from minoots.firings x where x.timer_id = p.timer_id and x.occurrence <> p.occurrence))
     limit $2 for update of f, t skip locked),
-- what belongs to a timer goes with it, by the table's trigger
timer as (
    delete from minoots.timers where ctid = any(array(select place from ended)) returning 1),
alone as materialized (
    select f.ctid as place, f.timer_id, f.occurrence
      from past p join minoots.firings f on f.ctid = p.place
     where not p.is_last and f.status <> 'dispatching' limit $2 for update of f skip locked),
attempt as (
    delete from minoots.attempts x using alone a where x.timer_id = a.timer_id and x.occurrence = a.occurrence),
delivery as (
    delete from minoots.deliveries x using alone a where x.timer_id = a.timer_id and x.occurrence = a.occurrence),
firing as (
    delete from minoots.firings where ctid = any(array(select place from alone)) returning 1)
select (select count(*) from walked) as walked, (select max(fired_at) from walked) as at, null::uuid as id,
       (select count(*) from timer) as timers, (select count(*) from firing) as firings,
       (select extract(epoch from keep)::float8 from shortest) as shortest_s
"""

# Timers whose end no firing tells, in the order in which they ended. One that still has firings waits for them to go.
_PRUNE_RETAINED = """
with rule as materialized (
    select d.status, case when r.tenant_id is null then d.keep else r.keep end as keep
      from unnest($3::text[], $4::interval[]) as d(status, keep)
      left join minoots.retention r on r.tenant_id = '*' and r.status = d.status),
shortest as materialized (
    select min(keep) as keep from (
        select keep from rule where status <> 'fired' union all
        select keep from minoots.retention where status <> 'fired') every_rule),
walked as materialized (
    select t.ctid as place, t.id, t.tenant_id, t.status, t.retained_from
      from minoots.timers t
     where t.retained_from is not null and (t.retained_from, t.id) > ($1, $5)
       and t.retained_from < minoots.now() - (select keep from shortest)
     order by t.retained_from, t.id limit $2),
ended as materialized (
    select t.ctid as place
      from walked w join rule r on r.status = w.status
      left join minoots.retention own on own.tenant_id = w.tenant_id and own.status = w.status
      join minoots.timers t on t.ctid = w.place
     where w.retained_from < minoots.now() - case when own.tenant_id is null then r.keep else own.keep end
       and t.retained_from is not null
       and not exists (select from minoots.firings f where f.timer_id = w.id)
       for update of t skip locked),
timer as (
    delete from minoots.timers where ctid = any(array(select place from ended)) returning 1)
select (select count(*) from walked) as walked, l.retained_from as at, l.id, (select count(*) from timer) as timers,
       0::bigint as firings, (select extract(epoch from keep)::float8 from shortest) as shortest_s
  from (select) one
  left join (select retained_from, id from walked order by retained_from desc, id desc limit 1) l on true
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """How long a tenant (`*`: every other) keeps what ended so; None: for ever."""

    tenant_id: str
    status: str
    keep: timedelta | None


@dataclass(frozen=True, slots=True)
class Place:
    """How far a walk has come: an instant, and the timer's id where several may share it."""

    at: datetime
    id: UUID


BEGINNING = Place(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class Pruned:
    """One batch: rows looked at, the last of them, and what went.

    `shortest_s` is the shortest time that anything is kept for, in seconds; None when all is kept for ever.
    """

    walked: int
    last: Place | None
    timers: int
    firings: int
    shortest_s: float | None


async def list_rules(db: Database, connection: Connection, tenant_id: str | None = None) -> list[Rule]:
    """The rules that are set, the installation's first; for a tenant, those that may bear on it."""
    return [Rule(*row) for row in await connection.fetch(db.sql(_LIST), tenant_id)]


async def set_rules(
    db: Database, connection: Connection, tenant_id: str, keeps: Mapping[str, timedelta | None]
) -> None:
    """Say for some statuses how long the tenant keeps them."""
    await connection.execute(db.sql(_SET), tenant_id, list(keeps), list(keeps.values()))


async def clear_rules(db: Database, connection: Connection, tenant_id: str, statuses: Sequence[str]) -> int:
    """Take a tenant's rules back: how many there were."""
    tag = await connection.execute(db.sql(_CLEAR), tenant_id, list(statuses))
    return int(tag.rsplit(" ", 1)[-1])


async def prune_fired(db: Database, connection: Connection, otherwise: Retention, after: Place, limit: int) -> Pruned:
    """Look at about `limit` firings after this instant, and remove what is past retention, timers with all of theirs.

    `otherwise` is what holds where no rule is set. What somebody else has locked stays.
    """
    await connection.execute(_BY_KEY)
    row = await connection.fetchrow(db.sql(_PRUNE_FIRED), after.at, limit, list(STATUSES), list(astuple(otherwise)))
    return _pruned(row)


async def prune_retained(
    db: Database, connection: Connection, otherwise: Retention, after: Place, limit: int
) -> Pruned:
    """The same for timers that ended without firing, or that recurred and have no firings left."""
    await connection.execute(_BY_KEY)
    row = await connection.fetchrow(
        db.sql(_PRUNE_RETAINED), after.at, limit, list(STATUSES), list(astuple(otherwise)), after.id
    )
    return _pruned(row)


def _pruned(row: Any) -> Pruned:
    last = None if row["at"] is None else Place(row["at"], row["id"] or BEGINNING.id)
    return Pruned(row["walked"], last, row["timers"], row["firings"], row["shortest_s"])
