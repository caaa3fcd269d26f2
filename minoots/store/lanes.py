"""Lanes: which have work, what their limits and breakers leave, what results do to them; and what a door shows."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from minoots.domain.breaker import Breaker, Seen, Step, after
from minoots.store.database import Connection, Database

# From lane to lane, each by one probe of the index: costs what there are lanes, not what waits in them.
_SCAN = """
with recursive found as (
    (select tenant_id, lane, next_attempt_at from minoots.deliveries
      where next_attempt_at is not null and status = 'pending'
      order by tenant_id, lane, next_attempt_at limit 1)
     union all
    select n.tenant_id, n.lane, n.next_attempt_at
      from found f cross join lateral (
          select d.tenant_id, d.lane, d.next_attempt_at from minoots.deliveries d
           where d.next_attempt_at is not null and d.status = 'pending'
             and (d.tenant_id, d.lane) > (f.tenant_id, f.lane)
           order by d.tenant_id, d.lane, d.next_attempt_at limit 1) n)
select f.tenant_id, f.lane, f.next_attempt_at,
       extract(epoch from f.next_attempt_at - minoots.now())::float8 as seconds,
       coalesce(l.failures > 0 or l.state <> 'closed', false) as is_ailing,
       case when l.state <> 'closed' then extract(epoch from l.probe_at - minoots.now())::float8 end as probe_in_s
  from found f left join minoots.lanes l using (tenant_id, lane)
"""

# Only those that have anything to say: most lanes have no row.
_READ_RULES = """
select k.tenant_id, k.lane, coalesce(l.state, 'closed') as state,
       l.concurrency is not null or l.rate_per_s is not null or d.concurrency is not null
           or d.rate_per_s is not null as is_limited,
       extract(epoch from l.probe_at - minoots.now())::float8 as probe_in_s,
       l.failures > 0 or l.state <> 'closed' as is_ailing
  from unnest($1::text[], $2::text[]) as k(tenant_id, lane)
  left join minoots.lanes l on l.tenant_id = k.tenant_id and l.lane = k.lane
  left join minoots.lanes d on d.tenant_id = k.tenant_id and d.lane = '*'
 where l.lane is not null or d.lane is not null
"""

_MAKE = """
insert into minoots.lanes (tenant_id, lane)
select tenant_id, lane from unnest($1::text[], $2::text[]) as k(tenant_id, lane) order by tenant_id, lane
    on conflict do nothing
"""

# One orchestrator at a time counts a lane's places; whoever finds it held comes back in its next round.
_LOCK_RULES = """
select l.tenant_id, l.lane, l.state, coalesce(l.concurrency, d.concurrency) as concurrency,
       coalesce(l.rate_per_s, d.rate_per_s) as rate_per_s,
       extract(epoch from minoots.now() - l.allowed_at)::float8 as idle_s,
       extract(epoch from l.probe_at - minoots.now())::float8 as probe_in_s
  from unnest($1::text[], $2::text[]) as k(tenant_id, lane)
  join minoots.lanes l on l.tenant_id = k.tenant_id and l.lane = k.lane
  left join minoots.lanes d on d.tenant_id = k.tenant_id and d.lane = '*'
 order by l.tenant_id, l.lane
   for no key update of l skip locked
"""

_COUNT_PLACES = """
select d.tenant_id, d.lane, count(*)::int as held
  from unnest($1::text[], $2::text[]) as k(tenant_id, lane)
  join minoots.deliveries d on d.tenant_id = k.tenant_id and d.lane = k.lane
 where d.holds_place and d.lease_id is not null and d.next_attempt_at > minoots.now()
 group by d.tenant_id, d.lane
"""

_CHARGE = """
update minoots.lanes l
   set allowed_at = greatest(l.allowed_at, minoots.now() - k.span) + k.cost, updated_at = minoots.now()
  from unnest($1::text[], $2::text[], $3::interval[], $4::interval[]) as k(tenant_id, lane, span, cost)
 where l.tenant_id = k.tenant_id and l.lane = k.lane
"""

# The lease's own end says when its attempt counts as lost.
_PROBE = """
with probe as (
    update minoots.lanes l
       set state = 'half_open', probe_lease_id = d.lease_id, probe_at = d.next_attempt_at, updated_at = minoots.now()
      from unnest($1::uuid[], $2::int[], $3::text[]) as k(timer_id, occurrence, action_id)
      join minoots.deliveries d using (timer_id, occurrence, action_id)
     where l.tenant_id = d.tenant_id and l.lane = d.lane and l.state <> 'closed'
 returning d.timer_id, l.tenant_id, minoots.lane_json(l) as shown)
insert into minoots.outbox (tenant_id, timer_id, kind, data)
select tenant_id, timer_id, 'lane.half_opened', json_build_object('lane', shown) from probe
 where (select events from minoots.installation)
"""

_LOCK_SEEN = """
select l.tenant_id, l.lane, l.state, l.failures, l.openings, l.reason, l.probe_lease_id
  from unnest($1::text[], $2::text[]) as k(tenant_id, lane)
  join minoots.lanes l on l.tenant_id = k.tenant_id and l.lane = k.lane
 order by l.tenant_id, l.lane
   for no key update of l
"""

_STEP = """
with stepped as (
    update minoots.lanes l
       set state = k.state, failures = k.failures, openings = k.openings, reason = k.reason,
           opened_at = case when k.state <> 'closed' then coalesce(l.opened_at, minoots.now()) end,
           probe_at = case when k.state <> 'closed' then coalesce(minoots.now() + k.wait, l.probe_at) end,
           probe_lease_id = case when k.state = 'half_open' then l.probe_lease_id end, updated_at = minoots.now()
      from unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::int[], $6::text[], $7::interval[], $8::text[],
                  $9::uuid[])
           as k(tenant_id, lane, state, failures, openings, reason, wait, kind, timer_id)
     where l.tenant_id = k.tenant_id and l.lane = k.lane
 returning l.tenant_id, k.timer_id, k.kind, l.reason, minoots.lane_json(l) as shown)
insert into minoots.outbox (tenant_id, timer_id, kind, data)
select tenant_id, timer_id, 'lane.' || kind, json_build_object('lane', shown, 'reason', reason)
  from stepped where kind is not null and (select events from minoots.installation)
"""

# What neither limits nor failures need any more: a lane that is not closed after a week in which nothing was due there.
_PRUNE = """
delete from minoots.lanes where (tenant_id, lane) in (
    select tenant_id, lane from minoots.lanes l
     where concurrency is null and rate_per_s is null and updated_at < minoots.now() - interval '1 day'
       and (state = 'closed' or updated_at < minoots.now() - interval '7 days' and not exists (
           select from minoots.deliveries d
            where d.tenant_id = l.tenant_id and d.lane = l.lane and d.status = 'pending'
              and d.next_attempt_at is not null))
     limit 1000 for update skip locked)
"""


class LaneKey(NamedTuple):
    """Which lane."""

    tenant_id: str
    lane: str


@dataclass(frozen=True, slots=True)
class Front:
    """A lane's first delivery: when it is due, in seconds from now (negative: it is).

    `is_ailing`: the lane has failures. `probe_in_s`: when it may be tried, for a lane that is not closed.
    """

    key: LaneKey
    next_at: datetime
    seconds: float
    is_ailing: bool
    probe_in_s: float | None


@dataclass(frozen=True, slots=True)
class Rule:
    """What a lane's row leaves: so many may go now; when none may, after how many seconds to ask again.

    `is_full`: the end of an attempt makes room. `is_probe`: the one that goes tries a lane that is open. `rate_per_s`:
    what each one is charged for.
    """

    room: int
    again_in_s: float = 0.0
    is_limited: bool = False
    is_full: bool = False
    is_probe: bool = False
    rate_per_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing may go, but perhaps a probe."""
        return self.is_probe or (self.room == 0 and not self.is_limited)


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of lanes that have any; `ailing` are those whose next success matters."""

    by_lane: Mapping[LaneKey, Rule]
    ailing: frozenset[LaneKey] = frozenset()


# Somebody else is counting this lane's places at this moment.
HELD_AGAIN_S = 0.02
# Without an instant of its own to wait for: until somebody's attempt ends.
FULL_AGAIN_S = 0.05
NO_BOUND = 1_000_000


async def scan(db: Database, connection: Connection) -> list[Front]:
    """Every lane that has deliveries to come, with the first of each."""
    rows = await connection.fetch(db.sql(_SCAN))
    return [Front(LaneKey(row[0], row[1]), *row[2:]) for row in rows]


async def lock_rules(db: Database, connection: Connection, keys: Collection[LaneKey]) -> Rules:
    """What limits and breakers leave these lanes, locked until the transaction ends where that has to be counted."""
    rows = await connection.fetch(db.sql(_READ_RULES), *_columns(keys))
    if not rows:
        return Rules({})
    rules: dict[LaneKey, Rule] = {}
    counted = []
    for row in rows:
        key = LaneKey(row["tenant_id"], row["lane"])
        if row["state"] != "closed" and row["probe_in_s"] > 0:
            rules[key] = Rule(0, row["probe_in_s"])
        elif row["is_limited"] or row["state"] != "closed":
            counted.append(key)
    if counted:
        rules |= await _count(db, connection, counted)
    return Rules(rules, frozenset(LaneKey(row[0], row[1]) for row in rows if row["is_ailing"]))


async def _count(db: Database, connection: Connection, keys: Sequence[LaneKey]) -> dict[LaneKey, Rule]:
    columns = _columns(keys)
    await connection.execute(db.sql(_MAKE), *columns)
    rows = await connection.fetch(db.sql(_LOCK_RULES), *columns)
    # A statement of its own, so that it sees what the last holder of the lock has leased.
    places = await connection.fetch(db.sql(_COUNT_PLACES), *_columns([LaneKey(row[0], row[1]) for row in rows]))
    held = {LaneKey(row[0], row[1]): row[2] for row in places}
    rules = dict.fromkeys(keys, Rule(0, HELD_AGAIN_S, is_limited=True))
    for row in rows:
        key = LaneKey(row["tenant_id"], row["lane"])
        rules[key] = _rule(row, held.get(key, 0))
    return rules


def _rule(row: Any, held: int) -> Rule:
    if row["state"] != "closed":
        is_due = row["probe_in_s"] <= 0
        return Rule(int(is_due), max(row["probe_in_s"], 0.0), is_probe=is_due)
    room = NO_BOUND if row["concurrency"] is None else row["concurrency"] - held
    if room <= 0:
        return Rule(0, FULL_AGAIN_S, is_limited=True, is_full=True)
    rate = row["rate_per_s"]
    if rate is None:
        return Rule(room, FULL_AGAIN_S, is_limited=True, is_full=True)
    burst = burst_of(rate)
    tokens = burst if row["idle_s"] is None else min(burst, row["idle_s"] * rate)
    # A hair less than one is one: the wait for it was computed by the same division.
    whole = int(tokens + 1e-6)
    again = max(0.001, (1 - (tokens - whole)) / rate) if room >= whole else FULL_AGAIN_S
    return Rule(min(room, whole), again, is_limited=True, is_full=room < whole, rate_per_s=rate)


def burst_of(rate_per_s: float) -> float:
    """How many may begin at once: a tenth of a second's worth, at least one."""
    return max(1.0, rate_per_s / 10)


async def charge(db: Database, connection: Connection, taken: Mapping[LaneKey, int], rules: Rules) -> None:
    """Count what was leased against the lanes' rates (a token bucket, kept as the instant by which it is made up)."""
    rated = [(key, rules.by_lane[key].rate_per_s, many) for key, many in taken.items() if key in rules.by_lane]
    owed = [(key, rate, many) for key, rate, many in rated if rate is not None and many]
    if owed:
        await connection.execute(
            db.sql(_CHARGE),
            *_columns([key for key, _, _ in owed]),
            [timedelta(seconds=burst_of(rate) / rate) for _, rate, _ in owed],
            [timedelta(seconds=many / rate) for _, rate, many in owed],
        )


async def begin_probes(db: Database, connection: Connection, keys: Sequence[tuple[UUID, int, str]]) -> None:
    """These deliveries, just leased, try lanes that are open."""
    await connection.execute(db.sql(_PROBE), [k[0] for k in keys], [k[1] for k in keys], [k[2] for k in keys])


@dataclass(frozen=True, slots=True)
class SeenAttempt:
    """How an attempt went for its lane; `timer_id` is whose event tells of a change."""

    key: LaneKey
    lease_id: UUID
    timer_id: UUID
    seen: Seen


async def see_attempts(
    db: Database, connection: Connection, attempts: Sequence[SeenAttempt], rng: random.Random
) -> dict[LaneKey, Breaker]:
    """Count attempts of lanes in the open transaction, in their order: how these lanes stand now."""
    keys = sorted({one.key for one in attempts})
    await connection.execute(db.sql(_MAKE), *_columns(keys))
    rows = await connection.fetch(db.sql(_LOCK_SEEN), *_columns(keys))
    steps: list[tuple[LaneKey, Step, UUID]] = []
    for row in rows:
        key = LaneKey(row["tenant_id"], row["lane"])
        own = [one for one in attempts if one.key == key]
        breaker = Breaker(row["state"], row["failures"], row["openings"], row["reason"])
        probe = row["probe_lease_id"]
        seen = [Seen(one.seen.failed, one.seen.error, one.lease_id == probe) for one in own]
        step = after(breaker, seen, rng)
        if step.breaker != breaker or step.wait is not None:
            steps.append((key, step, own[-1].timer_id))
    if steps:
        await _write_steps(db, connection, steps)
    return {key: step.breaker for key, step, _ in steps}


async def _write_steps(db: Database, connection: Connection, steps: Sequence[tuple[LaneKey, Step, UUID]]) -> None:
    await connection.execute(
        db.sql(_STEP),
        *_columns([key for key, _, _ in steps]),
        [step.breaker.state for _, step, _ in steps],
        [step.breaker.failures for _, step, _ in steps],
        [step.breaker.openings for _, step, _ in steps],
        [step.breaker.reason for _, step, _ in steps],
        [step.wait for _, step, _ in steps],
        [step.kind for _, step, _ in steps],
        [timer_id for _, _, timer_id in steps],
    )


async def prune_lanes(db: Database, connection: Connection) -> None:
    """Forget lanes without limits that have worked for a day, or had no work for a week."""
    await connection.execute(db.sql(_PRUNE))


def _columns(keys: Collection[LaneKey]) -> tuple[list[str], list[str]]:
    return [key.tenant_id for key in keys], [key.lane for key in keys]
