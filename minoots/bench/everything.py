"""What the scenarios with all roles share: their addresses, receivers and what has arrived there."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from minoots.bench.asking import Asked, asking
from minoots.bench.roles import RoleProcess
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage
from minoots.embedded.ports import free_port

# Without any arrival for this long, what has not come is lost: longer than a lost message or a lost lease takes.
PATIENCE_S = 20.0
LIMIT_S = 1.5
LIMIT_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request at a receiver. `webhook_id` is the same in a repetition."""

    webhook_id: str
    path: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Receivers:
    """One process that listens on many ports; `per_second` is what it can take, measured before the run.

    `bare_per_second` is what one process that does nothing else brings there with aiohttp.
    """

    asked: Asked
    urls: Sequence[str]
    per_second: float
    bare_per_second: float

    async def count(self) -> int:
        count: int = await self.asked.ask("count")
        return count

    async def arrivals(self) -> list[Arrival]:
        return [Arrival(*one) for one in await self.asked.ask("report")]


@contextlib.asynccontextmanager
async def all_roles(
    stage: Stage, made: Installation, more: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[list[RoleProcess], int]]:
    """Every role, in the processes of production; and the port of REST."""
    rest, grpc = free_port(), free_port()
    told = {"MINOOTS_API_ADDRESS": f"127.0.0.1:{rest}", "KERNEL_GRPC_ADDRESS": f"127.0.0.1:{grpc}", **(more or {})}
    async with stage.roles(made, stage.production, told) as processes:
        yield processes, rest


@contextlib.asynccontextmanager
async def receivers(stage: Stage, destinations: int) -> AsyncIterator[Receivers]:
    """So many destinations, in a process of their own that answers 200 at once."""
    stage.bar.step("measuring the receiver's own limit")
    async with asking("receiver", str(destinations)) as asked:
        question = {
            "kind": "http",
            "seconds": LIMIT_S,
            "connections": LIMIT_CONNECTIONS,
            "host": "127.0.0.1",
            "port": asked.first[0],
            "path": "/limit",
            "headers": {"webhook-id": "limit"},
            "body": "x" * 1500,
        }
        async with asking("client") as client:
            answer = await client.ask(json.dumps(question))
            bare = await client.ask(json.dumps(question | {"kind": "aiohttp"}))
        await asked.ask("clear")
        urls = [f"http://127.0.0.1:{port}" for port in asked.first]
        yield Receivers(asked, urls, *(one["good"] / one["seconds"] for one in (answer, bare)))


async def until_arrived(stage: Stage, there: Receivers, count: int) -> None:
    """Return when so many requests have come, or none has for long."""
    done, moved_at = 0, time.monotonic()
    while done < count and time.monotonic() - moved_at < PATIENCE_S:
        before, done = done, await there.count()
        moved_at = time.monotonic() if done != before else moved_at
        stage.bar.at(done)
        await asyncio.sleep(0.1)


async def clock_offset_us(made: Installation) -> int:
    """What the database's clock is ahead of ours; 0 where the difference is less than asking takes."""
    async with made.connection() as connection:
        offsets = []
        for _ in range(20):
            began = time.time_ns() // 1000
            theirs = await connection.fetchval("select (extract(epoch from clock_timestamp()) * 1000000)::int8")
            ended = time.time_ns() // 1000
            offsets.append((ended - began, theirs - (began + ended) // 2))
    took, offset = min(offsets)
    return offset if abs(offset) > took else 0


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the receivers saw of a set of deliveries that were due once each."""

    late_ms: list[float]
    distinct: int
    repeated: int

    @property
    def early(self) -> int:
        return sum(one < 0 for one in self.late_ms)


def compare(arrivals: Sequence[Arrival], due_us: Callable[[Arrival], int | None], offset_us: int) -> Arrived:
    """The first arrival of each delivery against its due instant (None: it is none of ours)."""
    first: dict[str, int] = {}
    repeated = 0
    late: list[float] = []
    for arrival in sorted(arrivals, key=lambda one: one.at_us):
        due = due_us(arrival)
        if due is None:
            continue
        if arrival.webhook_id in first:
            repeated += 1
            continue
        first[arrival.webhook_id] = arrival.at_us
        late.append((arrival.at_us + offset_us - due) / 1000)
    return Arrived(late, len(first), repeated)
