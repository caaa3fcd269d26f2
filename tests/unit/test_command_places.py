"""Who may run a command next: a bound for the process, of which one tenant's one command never has the last place."""

import asyncio

import pytest

from minoots.orchestrator.actions.command import Places


class Crowd:
    """Commands that hold their places until they are told to end."""

    def __init__(self, many: int) -> None:
        self._places = Places(many)
        self._end = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.running: list[str] = []

    async def add(self, tenant: str, many: int) -> None:
        self._tasks += [asyncio.create_task(self._run(tenant)) for _ in range(many)]
        await self._settle()

    async def _run(self, tenant: str) -> None:
        async with self._places.taken((tenant, "backup")):
            self.running.append(tenant)
            await self._end.wait()
            self.running.remove(tenant)

    async def _settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def cancel_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def end_all(self) -> None:
        self._end.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*self._tasks)


@pytest.mark.parametrize(("many", "alone"), [(1, 1), (2, 1), (4, 2), (16, 8)])
async def test_one_alone_has_at_most_half_and_others_find_room(many: int, alone: int) -> None:
    crowd = Crowd(many)
    await crowd.add("a", 100)
    assert crowd.running == ["a"] * alone
    await crowd.add("b", 100)
    if many > 1:
        assert "b" in crowd.running
    assert len(crowd.running) <= many
    await crowd.end_all()
    assert crowd.running == []


async def test_a_place_is_free_again_whatever_ends_its_command() -> None:
    crowd = Crowd(4)
    await crowd.add("a", 10)
    await crowd.cancel_all()
    crowd.running.clear()
    await crowd.add("b", 10)
    assert crowd.running == ["b", "b"]
    await crowd.cancel_all()
