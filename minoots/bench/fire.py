"""`fire`: a backlog of due timers with one webhook each; how fast the kernel fires it, beside the database's limit."""

import asyncio
from dataclasses import asdict, dataclass
from datetime import timedelta

from minoots.bench import firing, limit, loading, verdict
from minoots.bench.figures import Result, with_figures
from minoots.bench.loading import Cohort
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

MEASURED = "firings a second, from the first batch's beginning to the last one's"
PARTS = 6


@dataclass(frozen=True, slots=True)
class FireParameters:
    """`kernels` processes share the work, the first of them with the relay in it as in production."""

    timers: int = 100_000
    ballast: int = 1_000_000
    hold_xmin: bool = False
    kernels: int = 1
    limit: bool = True


async def run(stage: Stage, parameters: FireParameters) -> Result:
    """With `hold_xmin` it fires twice, without and with the snapshot held: both figures are of one run.

    The limit is measured before and after, for a machine that others use as well does not keep its speed.
    """
    before = await _limit(stage, parameters)
    result = await _fire(stage, parameters, hold_xmin=False)
    if parameters.hold_xmin:
        free = result.per_second
        result = await _fire(stage, parameters, hold_xmin=True)
        held = result.per_second
        result = with_figures(result, free_per_second=free, hold_ratio=held / free if held and free else None)
    after = await _limit(stage, parameters)
    if before and after:
        bound = (before + after) / 2
        ratio = result.per_second / bound if result.per_second else None
        result = with_figures(result, limit_per_second=bound, ratio=ratio)
    return result


async def _limit(stage: Stage, parameters: FireParameters) -> float | None:
    if not parameters.limit:
        return None
    return await limit.limit_of(stage, min(parameters.timers, 100_000), parameters.ballast)


async def _fire(stage: Stage, parameters: FireParameters, hold_xmin: bool) -> Result:
    async with stage.installation() as made:
        start = await loading.database_now(made) - timedelta(hours=1)
        await firing.load_ballast(stage, made, parameters.ballast)
        await firing.load_due(stage, made, Cohort(parameters.timers, start, timedelta(minutes=30)))
        await loading.settle(made, "timers")
        groups = stage.groups("kernel", "relay") + [("kernel",)] * (parameters.kernels - 1)
        async with firing.held_snapshot(made, hold_xmin), stage.roles(made, groups) as processes:
            stage.bar.step("firing, with a held snapshot" if hold_xmin else "firing", of=parameters.timers)
            with stage.sampler(processes) as sampler:
                await firing.until_fired(stage, made, parameters.timers)
            await asyncio.sleep(0.1)
            rows = await verdict.read_fired(made)
            left = await _waiting_events(made)
        found = verdict.judge(rows, parameters.timers)
        return Result(
            scenario="fire",
            parameters=asdict(parameters),
            roles=[process.name for process in processes],
            measured=MEASURED,
            counts={"timers": parameters.timers, "fired": found.fired, "events_left": left},
            per_second=verdict.firing_rate(rows),
            processes=sampler.usage,
            lost=found.lost,
            duplicates=found.duplicates,
            early=sum(row.fired_us is not None and row.fired_us < row.due_us for row in rows),
            figures={"per_second_by_part": verdict.rate_by_part(rows, PARTS)},
        )


async def _waiting_events(made: Installation) -> int:
    async with made.connection() as connection:
        count: int = await connection.fetchval(made.sql("select count(*) from minoots.outbox"), timeout=120)
        return count
