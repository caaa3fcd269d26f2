"""What a scenario stands on: the servers, role processes, the sampler, the bar."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from minoots.bench.failures import BenchFailed
from minoots.bench.progress import Bar
from minoots.bench.roles import RoleProcess, serving
from minoots.bench.sampling import Sampler
from minoots.bench.servers import Installation, Servers, installation


@dataclass(slots=True)
class Stage:
    """`production` are the groups of roles that share a process in production; `environ` is the caller's."""

    servers: Servers
    environ: Mapping[str, str]
    production: Sequence[tuple[str, ...]]
    keep: bool
    bar: Bar

    @contextlib.asynccontextmanager
    async def installation(self) -> AsyncIterator[Installation]:
        """A schema of its own, for one pass."""
        self.bar.step("making the schema")
        async with installation(self.servers, self.environ, self.keep) as made:
            yield made

    def groups(self, *roles: str) -> list[tuple[str, ...]]:
        """These roles, in the processes that production puts them into."""
        groups = (tuple(role for role in group if role in roles) for group in self.production)
        return [group for group in groups if group]

    @contextlib.asynccontextmanager
    async def roles(
        self, made: Installation, groups: Sequence[tuple[str, ...]], more: Mapping[str, str] | None = None
    ) -> AsyncIterator[list[RoleProcess]]:
        """The role processes, started; ended together at the end. `more` are further settings of theirs."""
        self.bar.step("starting " + ", ".join(" ".join(group) for group in groups))
        names: Counter[str] = Counter()
        processes = []
        for group in groups:
            name = " ".join(group)
            names[name] += 1
            name = name if names[name] == 1 else f"{name} {names[name]}"
            environ = {**made.environ, **(more or {})}
            processes.append(RoleProcess(name, serving(group), environ, self._log(made, name)))
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.TaskGroup() as starting:
                    for process in processes:
                        starting.create_task(stack.enter_async_context(process))
            except* BenchFailed as failed:
                raise failed.exceptions[0] from None
            yield processes
            for process in processes:
                process.terminate()

    def _log(self, made: Installation, name: str) -> Path:
        """Where a process of this pass writes what it says."""
        return self.servers.folder / f"{made.schema}-{name.replace(' ', '-')}.log"

    def sampler(self, processes: Sequence[RoleProcess], others: Mapping[str, int] | None = None) -> Sampler:
        """Watches the roles and the servers from now on."""
        sampler = Sampler()
        for process in processes:
            sampler.watch(process.name, process.pid)
        for name, pid in (others or {}).items():
            sampler.watch(name, pid)
        sampler.watch("postgres", self.servers.postgres_pid, family=True)
        sampler.watch("nats", self.servers.nats_pid)
        sampler.watch("bench", os.getpid())
        return sampler
