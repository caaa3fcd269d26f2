"""One tenant's destinations that hang, are dead or drip, holding deliveries; and how another fares beside them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from minoots.bench import everything, firing, loading
from minoots.bench.asking import asking
from minoots.bench.everything import Receivers
from minoots.bench.figures import percentiles
from minoots.bench.loading import Cohort
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage
from minoots.embedded.ports import free_port

HELD_TENANT = "trouble"
# How long the held ones may take to fire, and then to fill all that they may fill.
HELD_WITHIN_S = 60.0
STEADY_S = 3.0

_HELD = "select count(*) from minoots.deliveries where tenant_id = $1 and status = 'pending'"
_STATES = "select state, count(*)::int as many from minoots.lanes where tenant_id = $1 group by state"


@dataclass(frozen=True, slots=True)
class Trouble:
    """So many endpoints of each kind, and the deliveries that they hold together."""

    hang: int = 0
    dead: int = 0
    slow: int = 0
    held: int = 0

    @property
    def endpoints(self) -> int:
        return self.hang + self.dead + self.slow


@contextlib.asynccontextmanager
async def endpoints(trouble: Trouble) -> AsyncIterator[list[str]]:
    """Their URLs; those that are dead are ports that nobody listens on."""
    async with asking("receiver", "0", str(trouble.hang), str(trouble.slow)) as asked:
        ports = [*asked.first, *(free_port() for _ in range(trouble.dead))]
        yield [f"http://127.0.0.1:{port}/hook" for port in ports]


async def hold(stage: Stage, made: Installation, trouble: Trouble, urls: Sequence[str]) -> None:
    """Fire what the endpoints will hold, and wait until it is held and they have had time to do their worst."""
    start = await loading.database_now(made) + timedelta(seconds=1)
    cohort = Cohort(trouble.held, start, timedelta(seconds=5), tenant=HELD_TENANT, destinations=urls)
    await firing.load_due(stage, made, cohort)
    deadline = time.monotonic() + HELD_WITHIN_S
    async with made.connection() as connection:
        while time.monotonic() < deadline:
            held = await connection.fetchval(made.sql(_HELD), f"{HELD_TENANT}-0")
            # Some of a dead endpoint's may have used up their attempts.
            if held >= trouble.held * 0.95:
                break
            await asyncio.sleep(0.2)
    await asyncio.sleep(STEADY_S)


async def lane_states(made: Installation) -> Mapping[str, int]:
    """How many lanes of the tenant are open, half-open, closed."""
    async with made.connection() as connection:
        return {row["state"]: row["many"] for row in await connection.fetch(made.sql(_STATES), f"{HELD_TENANT}-0")}


def compare(alone_ms: Sequence[float], beside_ms: Sequence[float]) -> dict[str, float | None]:
    """p99 of the other tenant alone and beside the trouble, and how many times the first is in the second."""
    alone, beside = percentiles(alone_ms)["p99_ms"], percentiles(beside_ms)["p99_ms"]
    return {
        "alone_p99_ms": alone,
        "beside_p99_ms": beside,
        "times_alone": beside / alone if alone and beside else None,
    }


async def run_cohort(stage: Stage, made: Installation, there: Receivers, cohort: Cohort, so_far: int) -> int:
    """Let it fall due and arrive; how many have arrived in all."""
    stage.bar.step(f"delivering {cohort.tenant}", of=so_far + cohort.count)
    await everything.until_arrived(stage, there, so_far + cohort.count)
    return await there.count()
