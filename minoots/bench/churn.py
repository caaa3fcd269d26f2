"""`churn`: create, fire, deliver, prune at a steady rate; whether tables and indexes keep their size."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from minoots.bench import everything, firing
from minoots.bench.create import until_listening
from minoots.bench.everything import Arrival, Receivers
from minoots.bench.figures import Result
from minoots.bench.loading import webhook
from minoots.bench.servers import API_KEY, Installation
from minoots.bench.stage import Stage

MEASURED = (
    "due instant to the request's arrival at the receiver; sizes in MiB, each against that after the first minute"
)
CREATE_EVERY_S = 0.2
DUE_IN_S = (2.0, 6.0)
SIZES_EVERY_S = 5.0
# A relation that never has this much is left out of the ratios: some pages more would be a multiple.
WORTH_MB = 1.0

_SIZES = """
select c.relname,
       case when c.relkind = 'r' then pg_table_size(c.oid) else pg_relation_size(c.oid) end / 1048576.0::float8
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1 and c.relkind in ('r', 'i') order by c.relname
"""


@dataclass(frozen=True, slots=True)
class ChurnParameters:
    """`retention_s`: how long what has ended is kept, so that what is pruned keeps up within the first minute."""

    rate: int = 500
    minutes: float = 10.0
    retention_s: int = 10
    destinations: int = 10
    ballast: int = 1_000_000

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def base_s(self) -> float:
        """The sizes are compared with those of this moment: after the first minute."""
        return min(60.0, self.seconds / 3)


@dataclass(slots=True)
class _Created:
    timers: int = 0
    refused: int = 0
    said: str | None = None


@dataclass(slots=True)
class _Sizes:
    """MiB of each relation, at each of the moments."""

    at_s: list[float] = field(default_factory=list)
    mb: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self, base_s: float) -> dict[str, float]:
        """The largest size after the base against the size at the base."""
        base = next((i for i, at in enumerate(self.at_s) if at >= base_s), None)
        if base is None:
            return {}
        known = {name: sizes for name, sizes in self.mb.items() if max(sizes[base:]) >= WORTH_MB and sizes[base] > 0}
        return {name: max(sizes[base:]) / sizes[base] for name, sizes in known.items()}


async def run(stage: Stage, parameters: ChurnParameters) -> Result:
    """All roles; timers come in through REST in batches, each a few seconds before it is due."""
    async with stage.installation() as made, everything.receivers(stage, parameters.destinations) as there:
        await firing.load_ballast(stage, made, parameters.ballast)
        created, sizes = _Created(), _Sizes()
        keep = {"MINOOTS_RETENTION": f"{parameters.retention_s}s"}
        async with everything.all_roles(stage, made, keep) as (processes, port):
            await until_listening(port)
            stage.bar.step("churning", of=round(parameters.seconds))
            with stage.sampler(processes, {"receivers": there.asked.pid}) as sampler:
                measuring = asyncio.create_task(_watch_sizes(stage, made, sizes))
                await _create(parameters, there, port, created)
                measuring.cancel()
                await asyncio.gather(measuring, return_exceptions=True)
            await everything.until_arrived(stage, there, created.timers)
            complaints = [event for process in processes for event in process.complaints()]
        arrived = everything.compare(await there.arrivals(), _due_us, await everything.clock_offset_us(made))
        ratios = sizes.ratios(parameters.base_s)
        return Result(
            scenario="churn",
            parameters=asdict(parameters),
            roles=[process.name for process in processes],
            measured=MEASURED,
            counts={
                "timers": created.timers,
                "refused": created.refused,
                "arrived": arrived.distinct,
                "complaints": len(complaints),
            },
            per_second=created.timers / parameters.seconds,
            processes=sampler.usage,
            samples_ms=arrived.late_ms,
            lost=created.timers - arrived.distinct,
            duplicates=arrived.repeated,
            early=arrived.early,
            figures={
                "worst_ratio": max(ratios.values(), default=None),
                "ratios": ratios,
                "sizes_at_s": sizes.at_s,
                "sizes_mb": {name: found for name, found in sizes.mb.items() if max(found) >= WORTH_MB},
                "receiver_limit_per_second": there.per_second,
                "first_refusal": created.said,
            },
        )


async def _watch_sizes(stage: Stage, made: Installation, sizes: _Sizes) -> None:
    began = time.monotonic()
    async with made.connection() as connection:
        while True:
            rows = await connection.fetch(_SIZES, made.schema)
            sizes.at_s.append(round(time.monotonic() - began, 1))
            for name, megabytes in rows:
                # A relation that was made meanwhile had nothing before.
                past = sizes.mb.setdefault(name, [0.0] * (len(sizes.at_s) - 1))
                past.append(round(float(megabytes), 2))
            stage.bar.at(round(time.monotonic() - began))
            await asyncio.sleep(min(SIZES_EVERY_S, max(0.5, sizes.at_s[-1] / 4)))


async def _create(parameters: ChurnParameters, there: Receivers, port: int, created: _Created) -> None:
    """Batches at a steady rate: one that takes long does not hold up the next."""
    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/timers/batch"
    async with aiohttp.ClientSession(headers=headers) as client, asyncio.TaskGroup() as group:
        async for body, count in _bodies(parameters, there.urls):
            group.create_task(_post(client, url, body, count, created))


async def _post(client: aiohttp.ClientSession, url: str, body: str, count: int, created: _Created) -> None:
    async with client.post(url, data=body) as answer:
        if answer.status == 201:
            created.timers += count
        else:
            created.refused += count
            created.said = created.said or f"HTTP {answer.status}: {(await answer.text())[:300]}"


async def _bodies(parameters: ChurnParameters, urls: Sequence[str]) -> AsyncIterator[tuple[str, int]]:
    """Bodies for `POST /timers/batch`, each at its time, with the number of timers in it."""
    began = time.monotonic()
    made = 0
    while (elapsed := time.monotonic() - began) < parameters.seconds:
        wanted = int((elapsed + CREATE_EVERY_S) * parameters.rate)
        items = [_item(nth, urls[nth % len(urls)]) for nth in range(made, wanted)]
        if items:
            yield json.dumps({"tenantId": "bench-0", "requestedBy": "minoots bench", "items": items}), len(items)
        made = wanted
        await asyncio.sleep(max(0.0, began + made / parameters.rate - time.monotonic() - CREATE_EVERY_S / 2))


def _item(nth: int, url: str) -> Mapping[str, Any]:
    """The path tells the receiver's reader when it was due: by the time of reading the timer may be pruned."""
    first, last = DUE_IN_S
    due_us = time.time_ns() // 1000 + int((first + (last - first) * ((nth * 7919) % 1000) / 1000) * 1e6)
    at = datetime.fromtimestamp(due_us // 1_000_000, UTC).replace(microsecond=due_us % 1_000_000)
    return {"name": "churned", "fireAt": at.isoformat(), "actionBundle": json.loads(webhook(f"{url}/due/{due_us}"))}


def _due_us(arrival: Arrival) -> int | None:
    return int(arrival.path.removeprefix("/due/")) if arrival.path.startswith("/due/") else None
