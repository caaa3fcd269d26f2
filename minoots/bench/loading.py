"""Many rows, fast: timers and events written where Postgres makes them, by two connections at a time."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from minoots.bench.servers import Installation

CHUNK = 50_000
WRITERS = 2
# Nobody listens there, and nobody calls it: the orchestrator does not run in the scenarios that use it.
NOWHERE = "http://127.0.0.1:9/bench"
BALLAST_DAYS = 30

METADATA = json.dumps({"orderId": "A-1007", "note": "remind the customer " * 4})
LABELS = json.dumps({"team": "billing", "source": "bench"})

# Ids of a statement are made at one instant and would lie in the index at random. Timers come in one after the other,
# so that theirs grow; here by a millisecond every fifty.
_GROWING_ID = """(
    select (substr(h, 1, 8) || '-' || substr(h, 9, 4) || substr(minoots.uuid7()::text, 14))::uuid
      from lpad(to_hex((extract(epoch from minoots.now()) * 1000)::bigint + n / 50), 12, '0') as h)"""

# The values that all rows share are brought to their domains once: checking a bundle a row would take most of the time.
_TIMERS = """
with shape as materialized (
    select nth - 1 as nth, bundle::minoots.action_bundle as bundle
      from unnest($7::jsonb[]) with ordinality as u(bundle, nth)),
alike as materialized (
    select $8::jsonb::minoots.metadata as metadata, $9::jsonb::minoots.labels as labels)
insert into minoots.timers (id, tenant_id, name, requested_by, created_at, fire_at, metadata, labels, action_bundle)
select :growing_id, $5 || '-' || n % $6, 'measured', 'minoots bench', least(minoots.now(), $3::timestamptz),
       $3::timestamptz + $4::interval * random(), alike.metadata, alike.labels, shape.bundle
  from generate_series($1::int, $2::int) n join shape on shape.nth = n / $6 % cardinality($7::jsonb[]) cross join alike
"""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Timers that fall due at random instants in `span` from `start` on, spread over tenants and destinations.

    Their tenants are `{tenant}-0`, `{tenant}-1`, …; with their JSON the event of a firing has about 1 KB.
    """

    count: int
    start: datetime
    span: timedelta
    tenant: str = "bench"
    tenants: int = 1
    destinations: Sequence[str] = (NOWHERE,)
    is_slim: bool = False


def webhook(url: str) -> str:
    """A bundle of one action, as JSON text."""
    action = {"id": "call", "kind": "webhook", "parameters": {"url": url, "timeoutMs": 5000}}
    return json.dumps({"actions": [action], "retryPolicy": {"maxAttempts": 5}})


def ballast(count: int, now: datetime) -> Cohort:
    """Timers that wait and will not be due: tomorrow and in the thirty days after."""
    return Cohort(count, now + timedelta(days=1), timedelta(days=BALLAST_DAYS), tenant="ballast", is_slim=True)


async def load_timers(made: Installation, cohort: Cohort, told: Callable[[int], None]) -> None:
    """Insert them; `told` hears how many there are."""
    metadata, labels = (None, "{}") if cohort.is_slim else (METADATA, LABELS)
    bundles = [webhook(url) for url in cohort.destinations]
    given = (cohort.start, cohort.span, cohort.tenant, cohort.tenants, bundles, metadata, labels)
    await _in_chunks(made, made.sql(with_growing_ids(_TIMERS)), cohort.count, given, told)


def with_growing_ids(statement: str) -> str:
    """The statement with an expression in the place of `:growing_id`, over a series `n`."""
    return statement.replace(":growing_id", _GROWING_ID)


async def _in_chunks(
    made: Installation, statement: str, count: int, given: Sequence[object], told: Callable[[int], None]
) -> None:
    starts = iter(range(0, count, CHUNK))
    done = 0

    async def write() -> None:
        nonlocal done
        async with made.connection() as connection:
            for start in starts:
                end = min(start + CHUNK, count)
                await connection.execute(statement, start, end - 1, *given, timeout=600)
                done += end - start
                told(done)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write())


async def settle(made: Installation, *tables: str) -> None:
    """After loading: what vacuum and the checkpointer owe is paid before anything is measured."""
    async with made.connection() as connection:
        for table in tables:
            await connection.execute(f'vacuum (analyze) "{made.schema}".{table}', timeout=1800)
        await checkpoint(connection)


async def checkpoint(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """So that none falls into what is measured; a given server may not let us, and then it may."""
    with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
        await connection.execute("checkpoint", timeout=600)


async def database_now(made: Installation) -> datetime:
    """What the clock that decides says."""
    async with made.connection() as connection:
        now: datetime = await connection.fetchval(made.sql("select minoots.now()"))
        return now


async def events_written(made: Installation, connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """How many outbox rows there have been, for next to nothing: the firings so far, where each writes one event."""
    name = await connection.fetchval("select pg_get_serial_sequence($1, 'id')", f'"{made.schema}".outbox')
    written: int = await connection.fetchval(f"select case when is_called then last_value else 0 end from {name}")  # noqa: S608 - Postgres quoted the name
    return written
