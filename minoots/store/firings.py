"""The kernel's statements: claim what is due, fire it, give up on what cannot be fired; and reading firings."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from minoots.domain.firing import Firing
from minoots.store.database import Connection, Database
from minoots.store.outbox import event_id_of

_firing = msgspec.json.Decoder(Firing)

# Rows come in the order of the index timers_due; NO KEY, so that nothing that refers to a timer waits for us.
_CLAIM = """
select id, due_at, schedule is not null as recurs from minoots.timers
 where due_at <= minoots.now() and (due_at, id) > ($2, $3)
 order by due_at, id limit $1
   for no key update skip locked
"""

_CLAIM_AGAIN = """
select id, due_at, schedule is not null as recurs from minoots.timers
 where id = any($1::uuid[]) and due_at <= minoots.now()
 order by due_at, id
   for no key update skip locked
"""

# All that firing means, of the rows of `claimed`, which have their instants as JSON too. A timer without actions ends
# here, its firing settled at once. The row is found again by its key: at its place, as the lock has found it, one that
# has changed since the statement began would not be seen.
_WRITES = """
settings as materialized (
    select events, minoots.iso_json(minoots.now()) as now_text from minoots.installation where only_row),
-- the timer moves on; how many deliveries it will have: its actions, and one more for an agent binding that none of
-- them serves
fired as (
    update minoots.timers t
       set status = 'fired', fired_at = minoots.now(), occurrence = t.occurrence + 1, version = t.version + 1
      from claimed c
     where t.id = c.id and t.status = 'scheduled' and t.schedule is null
 returning t.id, t.tenant_id, t.occurrence, t.version, t.fire_at, t.action_bundle, t.agent_binding, t.traceparent,
           c.due_at, c.due_text, c.fire_text, c.event_id,
           minoots.timer_text(t, c.fire_text, (select now_text from settings)) as shown,
           (coalesce(jsonb_array_length(t.action_bundle -> 'actions'), 0)
            + case when t.agent_binding is null
                     or coalesce(t.action_bundle @? '$.actions[*] ? (@.kind == "agent_prompt")', false)
                   then 0 else 1 end)::smallint as actions),
firing as (
    insert into minoots.firings (tenant_id, timer_id, occurrence, status, nominal_at, due_at, settled_at,
                         open_deliveries, timer_version, event_id)
    select f.tenant_id, f.id, f.occurrence, case when f.actions = 0 then 'settled' else 'dispatching' end,
           f.fire_at, f.due_at, case when f.actions = 0 then minoots.now() end, f.actions, f.version, f.event_id
      from fired f),
-- its actions in the bundle's order, the agent binding last
action as (
    select f.tenant_id, f.id, f.occurrence, f.actions, f.action_bundle ->> 'concurrency' as concurrency,
           a.value ->> 'id' as action_id, a.nth - 1 as position, a.value ->> 'kind' as kind,
           case when a.value ->> 'kind' = 'agent_prompt' and not a.value -> 'parameters' ? 'target'
                then coalesce(f.agent_binding::jsonb, a.value -> 'parameters') else a.value -> 'parameters' end
               as parameters
      from fired f, jsonb_array_elements(f.action_bundle -> 'actions') with ordinality as a(value, nth)
     where f.action_bundle is not null
     union all
    select f.tenant_id, f.id, f.occurrence, f.actions, f.action_bundle ->> 'concurrency', 'agent', f.actions - 1,
           'agent_prompt', f.agent_binding
      from fired f
     where f.agent_binding is not null and f.actions > coalesce(jsonb_array_length(f.action_bundle -> 'actions'), 0)),
-- as many as may be under way at once are due in 2 s, for whoever has no message; without events, now
delivery as (
    insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, position, kind, lane, gate,
                               next_attempt_at)
    select a.tenant_id, a.id, a.occurrence, a.action_id, a.position, a.kind, minoots.lane_of(a.kind, a.parameters),
           case when a.actions > g.gate then g.gate end,
           case when a.position < g.gate
                then minoots.now() + case when (select events from settings) then interval '2 s' else interval '0' end
            end
      from action a cross join lateral (select coalesce(a.concurrency::smallint, 1::smallint)) as g(gate)),
event as (
    insert into minoots.outbox (tenant_id, timer_id, event_id, kind, traceparent, data)
    select f.tenant_id, f.id, f.event_id, 'timer.fired', f.traceparent,
           concat('{"timer" : ', f.shown, ', "firing" : ', minoots.firing_text(
               f.tenant_id, f.id, f.occurrence, case when f.actions = 0 then 'settled' else 'dispatching' end,
               f.fire_text, f.due_text, s.now_text, minoots.now() - f.due_at,
               case when f.actions = 0 then s.now_text else 'null' end), '}')::json
      from fired f, settings s
     where s.events)
"""

_GIVEN = """
with claimed as (
    select c.*, minoots.iso_json(c.due_at) as due_text, minoots.iso_json(t.fire_at) as fire_text, :event_id as event_id
      from unnest($1::uuid[], $2::timestamptz[]) with ordinality as c(id, due_at, nth)
      join minoots.timers t using (id)),
"""

_COUNT = "select count(*) from fired"

_FIRE = _GIVEN.replace(":event_id", event_id_of("c.nth")) + _WRITES + _COUNT

# The way of nearly every timer: claimed and fired by one statement, which is a transaction of its own. A process that
# is stopped, cut off or killed in the middle of it holds no lock: the server ends it. It answers the next instant too.
#
# The mark comes in through sub-selects and the limit is a part of the text: the planner can tell no call from another
# then, and plans once. From the values themselves it would make a new plan at every call, for 1 ms. What it plans while
# the table is empty would read all of it ever after. So the text tells how large it is: a new text is a new plan.
_DUE = """
with due as (
    select id, due_at, fire_at, schedule is not null as recurs from minoots.timers
     where due_at <= minoots.now() and (due_at, id) > ((select $1::timestamptz), (select $2::uuid))
     order by due_at, id limit :limit
       for no key update skip locked),
-- a table of about :size pages
-- as arrays, of which the planner expects few: of the limit's rows it may expect a tenth of the table, and scan it all
-- by id, as four indexes have what is written: neighbours come after one another
claimed as materialized (
    select c.*, case when c.fire_at = c.due_at then c.due_text else minoots.iso_json(c.fire_at) end as fire_text,
           :event_id as event_id
      from unnest(array(select id from due order by id), array(select due_at from due order by id),
                  array(select minoots.iso_json(due_at) from due order by id),
                  array(select fire_at from due order by id), array(select recurs from due order by id))
               with ordinality as c(id, due_at, due_text, fire_at, recurs, nth)),
"""

_ANSWER = """
select (select count(*) from claimed) as claimed, (select count(*) from fired) as fired,
       f.due_at as first_due_at, f.id as first_id, l.due_at as last_due_at, l.id as last_id,
       (select array_agg(r.id order by r.due_at, r.id) from claimed r where r.recurs) as recurring,
       (select extract(epoch from n.due_at - minoots.now())::float8 from minoots.timers n
         where n.due_at > minoots.now() order by n.due_at limit 1) as next_s
  from settings
  left join (select id, due_at from claimed order by due_at, id limit 1) f on true
  left join (select id, due_at from claimed order by due_at desc, id desc limit 1) l on true
"""

_FIRE_DUE = _DUE.replace(":event_id", event_id_of("c.nth")) + _WRITES + _ANSWER


@lru_cache
def fire_due_statement(limit: int, size: int = 0) -> str:
    """Claim and fire up to so many; `size` is the table's, as `size_of_timers` tells it."""
    return _FIRE_DUE.replace(":limit", str(limit)).replace(":size", f"8^{size}")


# A row that cannot be fired must not fail again here: nothing of it is computed with, and its version may be the last.
_FAIL = """
with failed as (
    update minoots.timers t
       set status = 'failed', settled_at = minoots.now(), failure_reason = left($2, 1000),
           version = case when t.version < 9223372036854775807 then t.version + 1 else t.version end
     where t.id = $1 and t.due_at <= minoots.now()
 returning t.id, t.tenant_id, t.traceparent, minoots.timer_json(t) as shown)
insert into minoots.outbox (tenant_id, timer_id, kind, traceparent, data)
select tenant_id, id, 'timer.failed', traceparent, json_build_object('timer', shown, 'reason', left($2, 1000))
  from failed where (select events from minoots.installation)
"""

# The next instant worth waking for: seconds from now, negative when something is due.
_PEEK = """
-- a table of about :size pages
select extract(epoch from due_at - minoots.now())::float8 from minoots.timers
 where due_at is not null and (due_at, id) > ((select $1::timestamptz), (select $2::uuid)) order by due_at, id limit 1
"""

_SIZE = "select pg_relation_size($1::text::regclass) / current_setting('block_size')::int8"

_LIST = """
select minoots.firing_json(f)::text from minoots.firings f
 where f.timer_id = $2 and f.tenant_id = $1 and ($3::int is null or f.occurrence < $3)
 order by f.occurrence desc limit $4
"""

_GET = """
select minoots.firing_json(f)::text,
       (select coalesce(json_agg(minoots.delivery_json(d) order by d.position, d.action_id), '[]')::text
          from minoots.deliveries d where d.timer_id = f.timer_id and d.occurrence = f.occurrence),
       (select coalesce(json_object_agg(action_id, shown), '{}')::text
          from (select a.action_id, json_agg(minoots.attempt_json(a) order by a.attempt) as shown
                  from minoots.attempts a where a.timer_id = f.timer_id and a.occurrence = f.occurrence
                 group by a.action_id) tries)
  from minoots.firings f
 where f.timer_id = $2 and f.tenant_id = $1 and f.occurrence = $3
"""


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A place in the order of claiming: everything up to this key was claimed by this kernel."""

    due_at: datetime
    id: UUID
    recurs: bool = False


# The start of time: claims from here see every waiting timer. CHECKs keep instants after 1970.
START = Mark(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class Fired:
    """What one statement did: `claimed` rows, of which `fired` fired; the first and the last of them.

    The `recurring` ones it only found: they are as they were, and locked no longer. `next_s`: seconds until the next
    instant that was not due yet; None when there is none.
    """

    claimed: int
    fired: int
    first: Mark | None
    last: Mark | None
    recurring: Sequence[UUID]
    next_s: float | None


async def fire_due(db: Database, connection: Connection, mark: Mark, limit: int, size: int = 0) -> Fired:
    """Claim and fire up to `limit` due timers after the mark, the longest due first, in one statement.

    Rows that others hold are passed by. `size` is the table's, as `size_of_timers` has told it a moment ago.
    """
    row = await connection.fetchrow(db.sql(fire_due_statement(limit, size)), mark.due_at, mark.id)
    assert row is not None, "the installation has its row"
    is_any = row["claimed"] > 0
    return Fired(
        row["claimed"],
        row["fired"],
        Mark(row["first_due_at"], row["first_id"]) if is_any else None,
        Mark(row["last_due_at"], row["last_id"]) if is_any else None,
        row["recurring"] or (),
        row["next_s"],
    )


@lru_cache
def peek_statement(size: int = 0) -> str:
    """The next instant worth waking for."""
    return _PEEK.replace(":size", f"8^{size}")


async def claim_due(db: Database, connection: Connection, mark: Mark, limit: int) -> list[Mark]:
    """Lock up to `limit` due timers after the mark, the longest due first; rows that others hold are passed by."""
    rows = await connection.fetch(db.sql(_CLAIM), limit, mark.due_at, mark.id)
    return [Mark(row["due_at"], row["id"], row["recurs"]) for row in rows]


async def claim_again(db: Database, connection: Connection, timer_ids: Sequence[UUID]) -> list[Mark]:
    """Lock those of a batch that are still due: somebody may have moved one meanwhile."""
    rows = await connection.fetch(db.sql(_CLAIM_AGAIN), timer_ids)
    return [Mark(row["due_at"], row["id"], row["recurs"]) for row in rows]


async def fire_timers(db: Database, connection: Connection, claimed: Sequence[Mark]) -> int:
    """Fire what this transaction claimed: firing, deliveries and event of each. How many were fired."""
    count: int = await connection.fetchval(db.sql(_FIRE), [c.id for c in claimed], [c.due_at for c in claimed])
    return count


async def fail_timer(db: Database, connection: Connection, timer_id: UUID, reason: str) -> None:
    """End a timer that cannot be fired, with its event."""
    await connection.execute(db.sql(_FAIL), timer_id, reason)


async def seconds_to_next(db: Database, connection: Connection, mark: Mark, size: int = 0) -> float | None:
    """Seconds until the next timer after the mark is due: negative when one is; None when there is none."""
    seconds: float | None = await connection.fetchval(db.sql(peek_statement(size)), mark.due_at, mark.id)
    return seconds


async def size_of_timers(db: Database, connection: Connection) -> int:
    """How large the table of timers is: n for 8^n pages and up to eight times as many."""
    pages: int = await connection.fetchval(_SIZE, f'"{db.schema}".timers')
    return max(pages.bit_length() - 1, 0) // 3


async def list_firings(
    db: Database, connection: Connection, tenant_id: str, timer_id: UUID, before: int | None, limit: int
) -> list[Firing]:
    """A timer's firings, the latest first, from below the occurrence `before`; without their deliveries."""
    rows: list[Any] = await connection.fetch(db.sql(_LIST), tenant_id, timer_id, before, limit)
    return [_firing.decode(row[0]) for row in rows]


async def get_firing(
    db: Database, connection: Connection, tenant_id: str, timer_id: UUID, occurrence: int
) -> Firing | None:
    """One firing with its deliveries and their attempts; None when there is none."""
    row = await connection.fetchrow(db.sql(_GET), tenant_id, timer_id, occurrence)
    if row is None:
        return None
    firing: dict[str, Any] = msgspec.json.decode(row[0])
    tries = msgspec.json.decode(row[2])
    firing["deliveries"] = [d | {"attempts": tries.get(d["actionId"], [])} for d in msgspec.json.decode(row[1])]
    return _firing.decode(msgspec.json.encode(firing))
