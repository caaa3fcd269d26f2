"""What the orchestrator can do: one file an action kind."""

from typing import Protocol

from minoots.domain.outcome import Outcome
from minoots.orchestrator.actions.request import ActionRequest


class ActionRunner(Protocol):
    """Runs one attempt. Every failure of the other end is an outcome; nothing is raised for it."""

    async def run(self, request: ActionRequest) -> Outcome: ...
