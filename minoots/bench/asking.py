"""Processes of the bench's own that are asked in lines and answer in lines of JSON: receivers, clients, bare doors."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from minoots.bench.failures import BenchFailed

# A report of a million arrivals is one line.
_LONGEST_LINE = 1 << 28


@dataclass(frozen=True, slots=True)
class Asked:
    """`first` is what the process said by itself as it began."""

    name: str
    process: asyncio.subprocess.Process
    first: Any

    @property
    def pid(self) -> int:
        return self.process.pid

    async def ask(self, question: str) -> Any:
        """One line there, one line back."""
        assert self.process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self.process.stdin.write(question.encode() + b"\n")
            await self.process.stdin.drain()
        return await _hear(self.name, self.process)


@contextlib.asynccontextmanager
async def asking(name: str, *arguments: str, environ: Mapping[str, str] | None = None) -> AsyncIterator[Asked]:
    """Run `minoots.bench.{name}`; it ends with the block, for its input does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"minoots.bench.{name}",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=dict(environ or os.environ),
        start_new_session=True,
        limit=_LONGEST_LINE,
    )
    try:
        yield Asked(name, process, await _hear(name, process))
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _hear(name: str, process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise BenchFailed(f"the bench's own process {name} has ended; what it said is above")
    return json.loads(line)
