"""From a scenario and its parameters to the printed result: servers, runs, medians, picture."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from minoots.bench.figures import Result, median_of
from minoots.bench.machine import describe_machine, describe_versions
from minoots.bench.progress import Bar
from minoots.bench.servers import open_servers
from minoots.bench.stage import Stage

P = TypeVar("P")
Scenario = Callable[[Stage, P], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Session:
    """How to measure. `environ` says which servers are given; `production` which roles share a process."""

    environ: Mapping[str, str]
    production: Sequence[tuple[str, ...]]
    runs: int = 1
    keep: bool = False
    plot: Path | None = None
    postgres_settings: Mapping[str, str] = field(default_factory=dict)


async def measure(session: Session, scenario: Scenario[P], parameters: P) -> dict[str, Any]:
    """Run the scenario, each run in schemas of its own, and put the result together."""
    machine = describe_machine()
    results = []
    with Bar() as bar:
        bar.step("starting the servers")
        async with open_servers(session.environ, session.postgres_settings, session.keep) as servers:
            versions = await describe_versions(servers)
            stage = Stage(servers, session.environ, session.production, session.keep, bar)
            for _ in range(session.runs):
                results.append(await scenario(stage, parameters))
    shown = median_of([result.as_json() for result in results])
    if session.plot is not None:
        from minoots.bench.plot import draw

        draw(session.plot, shown, [sample for result in results for sample in result.samples_ms])
    return {**shown, "runs": session.runs, "machine": machine, "versions": versions}
