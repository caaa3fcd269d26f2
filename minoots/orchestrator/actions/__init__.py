"""What the orchestrator can do: one file an action kind."""

from typing import Protocol

from minoots.domain.outcome import Answer, Outcome, Rejected
from minoots.orchestrator.actions.request import ActionRequest


class ActionRunner(Protocol):
    """Runs one attempt. Every failure of the other end is an outcome; nothing is raised for it."""

    async def run(self, request: ActionRequest) -> Outcome: ...


class Refusing:
    """Stands in for a kind that this installation cannot run: the doors refuse it, but plain SQL knows no settings."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def run(self, request: ActionRequest) -> Outcome:
        """No retry mends it; a redrive does, once the operator has."""
        return Rejected(self._why, Answer())
