"""Agents that live on the bus: a prompt is kept in a stream of its own, on `{schema}.agents.{tenant}.{subject}`.

The tenant is in the subject, so that none publishes to another's agents. Delivered means that JetStream keeps it: the
agent may be away, and read it with a consumer of its own when it is back. That the work is done, it says by an
acknowledgement. A stream and not a request with a reply: an agent that restarts must not cost an attempt.
"""

import time

from minoots.broker.workflow import TooLarge, WorkflowStream
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.errors import BrokerUnavailable
from minoots.orchestrator.actions.adapters import Prompt


class Bus:
    """Publishes prompts into the stream of agents."""

    def __init__(self, stream: WorkflowStream) -> None:
        self._stream = stream

    async def publish(self, prompt: Prompt, subject: str, body: bytes) -> Outcome:
        """One attempt; delivered when the stream has it."""
        began = time.monotonic()
        try:
            await self._stream.publish(prompt.request.tenant_id, subject, body, None, _headers(prompt))
        except TooLarge:
            return Rejected("the prompt is larger than a message of NATS may be", Answer(_since(began)))
        except BrokerUnavailable as away:
            return Retry(away.detail, Answer(_since(began)), is_ours=True)
        return Delivered(Answer(_since(began)))


def _headers(prompt: Prompt) -> dict[str, str]:
    """No Nats-Msg-Id and the like: an attempt after a missed acknowledgement is no repetition, and has to arrive."""
    return {name: value for name, value in prompt.all_headers().items() if not name.startswith("nats-")}


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
