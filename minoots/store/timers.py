"""Every statement about timers and their firing, in the order of a timer's life. An open connection comes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import sqlalchemy as sa
import uuid_utils
from sqlalchemy.dialects.postgresql import JSONB

from minoots.domain.timer import NewTimer, Timer
from minoots.store.database import Connection, Database
from minoots.store.outbox import event_id_of
from minoots.store.tables import timers

_timer = msgspec.json.Decoder(Timer)

# One round trip for one timer or for ten thousand: the rows, their events, and what to answer, in the order given.
# An instant that is more than a minute past, by the database's clock, is left out.
_INSERT = """
with asked as (
    select * from unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[], $7::text[], $8::int[],
                         $9::text[])
      with ordinality as a(id, name, requested_by, duration_ms, fire_at, metadata, shape, traceparent, nth)),
-- timers that come together often do the same: what they share is read, and its rules are kept, once
shapes as materialized (
    select labels::jsonb::minoots.labels as labels, bundle::jsonb::minoots.action_bundle as bundle,
           binding::jsonb::minoots.agent_binding as binding, nth
      from unnest($10::text[], $11::text[], $12::text[]) with ordinality as s(labels, bundle, binding, nth)),
made as (
    insert into minoots.timers as t (id, tenant_id, name, requested_by, duration_ms, created_at, fire_at, metadata,
                                labels, action_bundle, agent_binding, traceparent)
    select a.id, $1, a.name, a.requested_by, a.duration_ms, minoots.now(),
           coalesce(a.fire_at, minoots.now() + a.duration_ms * interval '1 ms'), a.metadata::jsonb, s.labels,
           s.bundle, s.binding, a.traceparent
      from asked a join shapes s on s.nth = a.shape
     where a.fire_at is null or a.fire_at >= minoots.now() - interval '1 minute' order by a.nth
 returning t.id, t.traceparent, minoots.timer_text(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, event_id, kind, traceparent, data)
    select $1, id, :event_id, 'timer.scheduled', traceparent, concat('{"timer" : ', shown, '}')::json from made
     where (select events from minoots.installation))
select shown from asked left join made using (id) order by nth
""".replace(":event_id", event_id_of("row_number() over ()"))

# The first instant asked for that is more than a minute past, by the database's clock; its place in the list.
_FIRST_PAST = """
select nth - 1 from unnest($1::timestamptz[]) with ordinality as a(fire_at, nth)
 where fire_at < minoots.now() - interval '1 minute' order by nth limit 1
"""

_GET = "select minoots.timer_json(t)::text from minoots.timers t where t.id = $2 and t.tenant_id = $1"

_CANCEL = """
with cancelled as (
    update minoots.timers t
       set status = 'cancelled', cancelled_at = minoots.now(), cancelled_by = $3, cancel_reason = $4,
           version = t.version + 1
     where t.id = $2 and t.tenant_id = $1 and t.status in ('scheduled', 'paused')
 returning t.id, t.traceparent, minoots.timer_json(t) as shown),
announced as (
    insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
    select $1, id, 'timer.cancelled', traceparent, json_build_object('timer', shown, 'reason', $4::text) from cancelled
     where (select events from minoots.installation))
select shown::text from cancelled
"""


@dataclass(frozen=True, slots=True)
class TimerFilter:
    """What a list shows: newest first, after the timer `after`. `labels` must all be there as given."""

    statuses: Sequence[str] = ()
    labels: dict[str, str] | None = None
    name: str | None = None
    due_before: datetime | None = None
    due_after: datetime | None = None
    after: UUID | None = None
    limit: int = 50


async def first_past(db: Database, connection: Connection, new: Sequence[NewTimer]) -> int | None:
    """The place of the first timer whose instant is too far past to be accepted; None when there is none."""
    past: int | None = await connection.fetchval(db.sql(_FIRST_PAST), [n.fire_at for n in new])
    return past


async def insert_timers(
    db: Database, connection: Connection, tenant_id: str, new: Sequence[NewTimer]
) -> list[Timer | None]:
    """Insert timers that fire once, with their events `timer.scheduled`; answers in the order given.

    None is for one that is too far past; a row that is refused refuses all. The ids are made here and ascend, so that
    a batch keeps its order in lists.
    """
    shapes: dict[tuple[str, str | None, str | None], int] = {}
    shape_of = [shapes.setdefault((n.labels, n.action_bundle, n.agent_binding), len(shapes) + 1) for n in new]
    labels, bundles, bindings = zip(*shapes, strict=True)
    rows = await connection.fetch(
        db.sql(_INSERT),
        tenant_id,
        [UUID(int=uuid_utils.uuid7().int) for _ in new],
        [n.name for n in new],
        [n.requested_by for n in new],
        [n.duration_ms for n in new],
        [n.fire_at for n in new],
        [n.metadata for n in new],
        shape_of,
        [n.traceparent for n in new],
        labels,
        bundles,
        bindings,
    )
    return [None if row[0] is None else _timer.decode(row[0]) for row in rows]


async def get_timer(db: Database, connection: Connection, tenant_id: str, timer_id: UUID) -> Timer | None:
    """The timer as it is now; None when this tenant has none of that id."""
    text = await connection.fetchval(db.sql(_GET), tenant_id, timer_id)
    return None if text is None else _timer.decode(text)


async def list_timers(db: Database, connection: Connection, tenant_id: str, wanted: TimerFilter) -> list[Timer]:
    """Up to `limit` timers, newest first, walking the index (tenant_id, id)."""
    t = timers.alias("t")
    shown = sa.cast(sa.func.minoots.timer_json(sa.literal_column("t")), sa.Text)
    query = (
        sa.select(shown).select_from(t).where(t.c.tenant_id == tenant_id).order_by(t.c.id.desc()).limit(wanted.limit)
    )
    if wanted.after is not None:
        query = query.where(t.c.id < wanted.after)
    if wanted.statuses:
        query = query.where(t.c.status == sa.any_(sa.cast(list(wanted.statuses), sa.ARRAY(sa.Text))))
    if wanted.name is not None:
        query = query.where(t.c.name == wanted.name)
    if wanted.labels:
        held = sa.cast(msgspec.json.encode(wanted.labels).decode(), sa.Text)
        query = query.where(t.c.labels.op("@>")(sa.cast(held, JSONB)))
    if wanted.due_before is not None:
        query = query.where(sa.func.coalesce(t.c.due_at, t.c.fire_at) < wanted.due_before)
    if wanted.due_after is not None:
        query = query.where(sa.func.coalesce(t.c.due_at, t.c.fire_at) > wanted.due_after)
    rows: list[Any] = await db.run(connection, query)
    return [_timer.decode(row[0]) for row in rows]


async def cancel_timer(
    db: Database, connection: Connection, tenant_id: str, timer_id: UUID, requested_by: str, reason: str | None
) -> Timer | None:
    """Cancel a timer that waits, with its event; None when it does not wait (any more), or is none."""
    text = await connection.fetchval(db.sql(_CANCEL), tenant_id, timer_id, requested_by, reason)
    return None if text is None else _timer.decode(text)
