"""`idle`: what each role costs while nothing is due, with Postgres's share for it: what its own backends use."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil

from minoots.bench import everything, firing
from minoots.bench.figures import Result
from minoots.bench.roles import RoleProcess
from minoots.bench.servers import Installation
from minoots.bench.stage import Stage

MEASURED = "percent of a core, the role's process and the Postgres backends of its connections"
# What starting takes, and the way to the longest interval of polling.
REST_S = 15.0


@dataclass(frozen=True, slots=True)
class IdleParameters:
    """`rest_s` pass before it begins: what has just started is not idle yet."""

    seconds: int = 30
    rest_s: float = REST_S
    ballast: int = 1_000_000


@dataclass(frozen=True, slots=True)
class _Spent:
    """CPU seconds so far: of each role's process, of each role's backends, of the whole of Postgres."""

    processes: Mapping[str, float]
    backends: Mapping[str, float]


async def run(stage: Stage, parameters: IdleParameters) -> Result:
    """All roles, and timers that wait."""
    async with stage.installation() as made:
        await firing.load_ballast(stage, made, parameters.ballast)
        async with everything.all_roles(stage, made) as (processes, _):
            stage.bar.step("coming to rest")
            await asyncio.sleep(parameters.rest_s)
            stage.bar.step("idle", of=parameters.seconds)
            before = await _spent(stage, made, processes)
            with stage.sampler(processes) as sampler:
                for second in range(parameters.seconds):
                    stage.bar.at(second)
                    await asyncio.sleep(1)
            after = await _spent(stage, made, processes)
    own = _percent(before.processes, after.processes, parameters.seconds)
    share = _percent(before.backends, after.backends, parameters.seconds)
    # A process of two roles does the work of both.
    a_role = {name: (own[name] + share.get(name, 0.0)) / len(name.split()) for name in own}
    usage = sampler.usage
    rest = usage["postgres"].cpu_s * 100 / parameters.seconds - sum(share.values()) if "postgres" in usage else None
    return Result(
        scenario="idle",
        parameters=asdict(parameters),
        roles=[process.name for process in processes],
        measured=MEASURED,
        counts={"waiting": parameters.ballast},
        per_second=None,
        processes=usage,
        figures={
            "percent_a_role": a_role,
            "worst_percent_a_role": max(a_role.values()),
            "percent_of_process": own,
            "percent_of_its_backends": share,
            "percent_of_postgres_beside": rest,
        },
    )


async def _spent(stage: Stage, made: Installation, processes: Sequence[RoleProcess]) -> _Spent:
    own = {process.name: _cpu_s(process.pid) for process in processes}
    if stage.servers.postgres_pid is None:
        return _Spent(own, {})
    async with made.connection() as connection:
        rows = await connection.fetch("select client_port, pid from pg_stat_activity where client_port > 0")
    backend_of = {row[0]: row[1] for row in rows}
    backends = {}
    for process in processes:
        ports = {c.laddr.port for c in psutil.Process(process.pid).net_connections("tcp")}
        backends[process.name] = sum(_cpu_s(backend_of[port]) for port in ports if port in backend_of)
    return _Spent(own, backends)


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system
    return 0.0


def _percent(before: Mapping[str, float], after: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {name: (after[name] - before.get(name, 0.0)) * 100 / seconds for name in after}
