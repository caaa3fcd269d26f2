"""What an extension answers, held to what an attempt may be: an outcome, in time, that can be stored."""

import asyncio
import dataclasses
from collections.abc import Awaitable

from minoots.domain.limits import REASON_CHARACTERS
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.orchestrator.actions.answer import excerpt_of, printable


async def bounded(running: Awaitable[object], seconds: float) -> Outcome:
    """The outcome, within so many seconds; raises TypeError when it is none."""
    try:
        async with asyncio.timeout(seconds) as limit:
            outcome = await running
    except TimeoutError:
        if not limit.expired():
            raise
        return Retry(f"no outcome within {seconds:g} s", Answer(round(seconds * 1000)))
    if not isinstance(outcome, Delivered | Retry | Rejected) or not isinstance(outcome.answer, Answer):
        raise TypeError(f"{type(outcome).__name__} is no outcome: return Delivered, Retry or Rejected")
    outcome = dataclasses.replace(outcome, answer=_cut(outcome.answer))
    if isinstance(outcome, Delivered):
        return outcome
    return dataclasses.replace(
        outcome, error=printable(str(outcome.error).encode(errors="replace"))[:REASON_CHARACTERS]
    )


def _cut(answer: Answer) -> Answer:
    if answer.excerpt is None:
        return answer
    return dataclasses.replace(answer, excerpt=excerpt_of(str(answer.excerpt).encode(errors="replace")))
