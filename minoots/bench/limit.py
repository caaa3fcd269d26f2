"""`limit`: what this database can do at most. The barest claim there can be, with plain asyncpg on one connection.

A table with its key and one index, one update, one outbox insert of an event as long as `timer.fired`, batches of 500.
The event is copied, not built; there is no firing, no delivery, no rule, no guard around the transaction.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta

from minoots.bench.figures import Result
from minoots.bench.loading import BALLAST_DAYS, CHUNK, LABELS, METADATA, NOWHERE, checkpoint, webhook, with_growing_ids
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

BATCH = 500
MEASURED = "one batch of 500, from claim to commit"

_TABLES = """
create table minoots.limit_timers (id uuid primary key, due_at timestamptz, fired_at timestamptz, event json)
  with (fillfactor = 85);
create index on minoots.limit_timers (due_at, id) where due_at is not null;
create table minoots.limit_outbox (id bigint generated always as identity primary key, data json not null)
"""

# As long as a real one: the same functions write it, of a timer as the other scenarios load it.
_EVENT = """
select json_build_object(
    'timer', minoots.timer_json(jsonb_populate_record(null::minoots.timers, jsonb_build_object(
        'id', minoots.uuid7(), 'tenant_id', 'bench-0', 'name', 'measured', 'requested_by', 'minoots bench',
        'status', 'fired', 'created_at', minoots.now(), 'fire_at', minoots.now(), 'fired_at', minoots.now(),
        'metadata', $2::jsonb, 'labels', $3::jsonb, 'action_bundle', $1::jsonb,
        'occurrence', 1, 'missed', 0, 'version', 2))),
    'firing', minoots.firing_json(jsonb_populate_record(null::minoots.firings, jsonb_build_object(
        'tenant_id', 'bench-0', 'timer_id', minoots.uuid7(), 'occurrence', 1, 'status', 'dispatching',
        'nominal_at', minoots.now(), 'due_at', minoots.now(), 'fired_at', minoots.now()))))::text
"""

_LOAD = """
insert into minoots.limit_timers (id, due_at, event)
select :growing_id, now() + $3::interval + $4::interval * random(), $5::json from generate_series($1::int, $2::int) n
"""

_CLAIM = """
with due as (
    select id from minoots.limit_timers where due_at <= now() order by due_at, id limit $1
       for no key update skip locked),
moved as (
    update minoots.limit_timers t set due_at = null, fired_at = now() from due where t.id = due.id
 returning t.event)
insert into minoots.limit_outbox (data) select event from moved
"""


@dataclass(frozen=True, slots=True)
class LimitParameters:
    """`ballast` timers wait beside the `timers` that are due."""

    timers: int = 100_000
    ballast: int = 1_000_000


async def run(stage: Stage, parameters: LimitParameters) -> Result:
    """The scenario; no role runs."""
    async with stage.installation() as made:
        await load(stage, made, parameters)
        stage.bar.step("limit", of=parameters.timers)
        with stage.sampler([]) as sampler:
            samples = await measure(made)
        return Result(
            scenario="limit",
            parameters=asdict(parameters),
            roles=[],
            measured=MEASURED,
            counts={"timers": parameters.timers, "batches": len(samples)},
            per_second=rate(samples),
            processes=sampler.usage,
            samples_ms=samples,
            lost=parameters.timers - await _outbox_count(made),
        )


async def limit_of(stage: Stage, timers: int, ballast: int) -> float:
    """The same figure for another scenario's run, in a schema of its own: timers a second."""
    async with stage.installation() as made:
        await load(stage, made, LimitParameters(timers, ballast))
        stage.bar.step("limit")
        return rate(await measure(made))


async def load(stage: Stage, made: Installation, parameters: LimitParameters) -> None:
    """The tables, what waits, what is due."""
    stage.bar.step("loading for limit", of=parameters.ballast + parameters.timers)
    async with made.connection() as connection:
        await connection.execute(made.sql(_TABLES))
        event = await connection.fetchval(made.sql(_EVENT), webhook(NOWHERE), METADATA, LABELS)
        done = 0
        day, hour = timedelta(days=1), timedelta(hours=1)
        waiting = (parameters.ballast, day, BALLAST_DAYS * day, None)
        for count, begin, span, body in (waiting, (parameters.timers, -2 * hour, hour, event)):
            for start in range(0, count, CHUNK):
                end = min(start + CHUNK, count)
                await connection.execute(
                    made.sql(with_growing_ids(_LOAD)), start, end - 1, begin, span, body, timeout=600
                )
                done += end - start
                stage.bar.at(done)
        await connection.execute(f'vacuum (analyze) "{made.schema}".limit_timers', timeout=600)
        await checkpoint(connection)


async def measure(made: Installation) -> list[float]:
    """Claim until nothing is due: milliseconds of each full batch."""
    samples: list[float] = []
    async with made.connection() as connection:
        claim = await connection.prepare(made.sql(_CLAIM))
        while True:
            began = time.perf_counter()
            await claim.fetch(BATCH)
            took = time.perf_counter() - began
            if claim.get_statusmsg() != f"INSERT 0 {BATCH}":
                return samples
            samples.append(took * 1000)


def rate(samples: Sequence[float]) -> float:
    """Timers a second."""
    return BATCH * len(samples) / (sum(samples) / 1000)


async def _outbox_count(made: Installation) -> int:
    async with made.connection() as connection:
        count: int = await connection.fetchval(made.sql("select count(*) from minoots.limit_outbox"))
        return count
