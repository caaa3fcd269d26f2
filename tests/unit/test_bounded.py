"""What an extension answers is held to what an attempt may be."""

import asyncio
from typing import Any

import pytest

from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.orchestrator.actions.bounded import bounded


async def answering(outcome: Any) -> Outcome:
    return outcome


async def test_an_outcome_is_passed_on() -> None:
    for outcome in (Delivered(Answer(1, 200, "ok")), Retry("later", Answer()), Rejected("no", Answer())):
        assert await bounded(answering(outcome), 1) == outcome


async def test_who_takes_too_long_is_cancelled() -> None:
    outcome = await bounded(asyncio.Event().wait(), 0.05)
    assert outcome == Retry("no outcome within 0.05 s", Answer(50))


async def test_a_time_out_of_its_own_is_its_own() -> None:
    async def failing() -> Outcome:
        raise TimeoutError("of a library")

    with pytest.raises(TimeoutError, match="of a library"):
        await bounded(failing(), 10)


@pytest.mark.parametrize("outcome", [None, "delivered", True, Delivered(None)])  # type: ignore[arg-type]
async def test_what_is_no_outcome_is_a_defect(outcome: Any) -> None:
    with pytest.raises(TypeError, match="no outcome"):
        await bounded(answering(outcome), 1)


async def test_what_cannot_be_stored_is_cut_and_escaped() -> None:
    outcome = await bounded(answering(Retry("a\0b" + "x" * 5_000, Answer(0, None, "\0\ud800" + "é" * 20_000))), 1)
    assert isinstance(outcome, Retry)
    assert outcome.error.startswith("a\\x00bxxx")
    assert len(outcome.error) == 1_000
    assert outcome.answer.excerpt is not None
    assert outcome.answer.excerpt.startswith("\\x00")
    assert len(outcome.answer.excerpt.encode()) <= 16_384
