"""Results are written one batch after the other, and beside one that takes long."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from minoots.orchestrator import recording
from minoots.orchestrator.recording import Recorder
from tests.support.waiting import eventually


class Slow(Recorder):
    """Takes `seconds` for each batch, and notes how large they were and how many were written side by side."""

    def __init__(self, seconds: float) -> None:
        super().__init__(database=None, on_recorded=lambda *_: None)
        self.seconds = seconds
        self.batches: list[int] = []
        self.writing = self.most = 0

    async def _record(self, batch: Sequence[Any]) -> None:
        self.writing += 1
        self.most = max(self.most, self.writing)
        await asyncio.sleep(self.seconds)
        self.writing -= 1
        self.batches.append(len(batch))


async def write(recorder: Slow, results: int, apart_s: float) -> None:
    running = asyncio.create_task(recorder.run())
    for _ in range(results):
        recorder.put(None)
        await asyncio.sleep(apart_s)

    async def all_written() -> bool:
        return sum(recorder.batches) == results

    await eventually(all_written)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_while_one_writes_the_next_batch_gathers() -> None:
    recorder = Slow(0.02)
    await write(recorder, 50, 0.001)
    assert recorder.most == 1
    assert recorder.batches[0] == 1, "the first one waits for nobody"
    assert max(recorder.batches) > 5


async def test_one_that_takes_long_is_overtaken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TURN_S", 0.02)
    recorder = Slow(0.3)
    await write(recorder, 2, 0.001)
    assert recorder.most == 2
