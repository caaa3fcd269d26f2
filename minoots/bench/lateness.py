"""`lateness`: from the due instant to the commit, at a steady rate or as a herd, with what makes it hard beside it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from minoots.bench import firing, loading, verdict
from minoots.bench.commits import CommitWatch
from minoots.bench.failures import BenchFailed
from minoots.bench.figures import Result, percentiles, with_figures
from minoots.bench.loading import Cohort
from minoots.bench.roles import RoleProcess
from minoots.bench.sampling import Usage
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage
from minoots.bench.verdict import Fired

# From the beginning of loading to the first due instant: the roles have started by then, and have found their rest.
LEAD_S = 6.0
LOADED_PER_S = 8_000
MEASURED = "due instant to commit, as another session sees it: at most a millisecond or so too long, never too short"


@dataclass(frozen=True, slots=True)
class LatenessParameters:
    """`rate` a second for `seconds`; or `herd` timers that are all due at one instant."""

    rate: int = 1_000
    seconds: int = 20
    herd: int = 0
    ballast: int = 1_000_000
    hold_xmin: bool = False
    kill_kernel: bool = False

    @property
    def timers(self) -> int:
        return self.herd or self.rate * self.seconds


async def run(stage: Stage, parameters: LatenessParameters) -> Result:
    """One pass; with `kill_kernel` two processes have a kernel and a relay each, and one gets SIGKILL in the middle."""
    async with stage.installation() as made:
        await firing.load_ballast(stage, made, parameters.ballast)
        start = await _load(stage, made, parameters)
        groups = stage.groups("kernel", "relay") * (2 if parameters.kill_kernel else 1)
        async with firing.held_snapshot(made, parameters.hold_xmin), stage.roles(made, groups) as processes:
            await wait_until(stage, made, start - timedelta(seconds=1))
            killer = _Killer(parameters.timers, processes[0]) if parameters.kill_kernel else None
            stage.bar.step("firing", of=parameters.timers)
            async with CommitWatch(made) as watch:
                with stage.sampler(processes) as sampler:
                    await firing.until_fired(stage, made, parameters.timers, killer)
                await asyncio.sleep(0.2)
            rows = await verdict.read_fired(made)
            complaints = [event for process in processes for event in process.complaints()]
        result = _result(parameters, processes, rows, watch, sampler.usage, len(complaints))
        return with_figures(result, fired_before_kill=killer.fired_before) if killer else result


async def _load(stage: Stage, made: Installation, parameters: LatenessParameters) -> datetime:
    """The timers; the instant from which on they are due."""
    now = await loading.database_now(made)
    start = (now + timedelta(seconds=LEAD_S + parameters.timers / LOADED_PER_S)).replace(microsecond=0)
    span = timedelta(seconds=0 if parameters.herd else parameters.seconds)
    await firing.load_due(stage, made, Cohort(parameters.timers, start, span))
    await loading.settle(made, "timers")
    return start


async def wait_until(stage: Stage, made: Installation, instant: datetime) -> None:
    """Sleep to an instant of the database's clock; raises BenchFailed when it is past."""
    stage.bar.step("waiting for the first due instant")
    left = (instant - await loading.database_now(made)).total_seconds()
    if left < 0:
        raise BenchFailed("loading took so long that the first timers are due already; try again with fewer")
    await asyncio.sleep(left)


class _Killer:
    """kill -9 for the first process, once half of the timers have fired."""

    def __init__(self, timers: int, victim: RoleProcess) -> None:
        self._half = timers // 2
        self._victim = victim
        self.fired_before: int | None = None

    def __call__(self, fired: int) -> None:
        if fired >= self._half and self.fired_before is None:
            self.fired_before = fired
            self._victim.kill()


def _result(
    parameters: LatenessParameters,
    processes: Sequence[RoleProcess],
    rows: Sequence[Fired],
    watch: CommitWatch,
    usage: Mapping[str, Usage],
    complaints: int,
) -> Result:
    found = verdict.judge(rows, parameters.timers)
    visible = watch.visible_at(row.xid for row in rows if row.xid is not None)
    ends = [(row, visible[row.xid]) for row in rows if row.xid in visible]
    if len(ends) < found.fired:
        raise BenchFailed(f"of {found.fired} firings only {len(ends)} were seen to commit")
    late = [(end - row.due_us) / 1000 for row, end in ends]
    begun = [(row.fired_us - row.due_us) / 1000 for row in rows if row.fired_us is not None]
    # Between them and the percentiles of the result lies the truth: this instant is from before the disk has it.
    recorded = [(row.recorded_us - row.due_us) / 1000 for row in rows if row.recorded_us is not None]
    span_s = (max(end for _, end in ends) - min(row.due_us for row in rows)) / 1e6 if ends else 0.0
    return Result(
        scenario="lateness",
        parameters=asdict(parameters),
        roles=[process.name for process in processes],
        measured=MEASURED,
        counts={
            "timers": parameters.timers,
            "fired": found.fired,
            "transactions": len(visible),
            "looks": watch.looks,
            "complaints": complaints,
        },
        per_second=found.fired / span_s if span_s else None,
        processes=usage,
        samples_ms=late,
        lost=found.lost,
        duplicates=found.duplicates,
        # By the instant that is on the firing, which comes before the commit.
        early=sum(one < 0 for one in begun),
        figures={
            "all_fired_s": max(late) / 1000 if parameters.herd and late else None,
            "to_fired_at": percentiles(begun),
            "to_commit_record": percentiles(recorded) if recorded else None,
        },
    )
