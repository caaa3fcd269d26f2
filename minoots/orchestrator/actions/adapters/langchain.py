"""The adapter `langchain`: a run of a LangGraph server, or an invocation of a LangServe runnable.

With `#assistant` the target is a LangGraph server: `POST {target}/runs/wait` with `{assistant_id, input, metadata}`
(its page "Create Run, Wait for Output"; a target that ends with /runs/wait or /runs is called as it is, so that a
thread's runs, and runs that are not waited for, can be named). Without, it is a runnable of LangServe:
`POST {target}/invoke` with `{input}`.
"""

import msgspec

from minoots.domain.outcome import Delivered, Outcome, Retry
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.adapters import Prompt
from minoots.orchestrator.actions.adapters.http import post

# A run that failed is answered with 200 and this, as LangGraph's own client reads it.
_FAILED = '{"__error__"'


class LangChainAdapter:
    """Calls a LangGraph or LangServe endpoint through the webhook's sender."""

    def __init__(self, webhooks: ActionRunner) -> None:
        self._webhooks = webhooks

    async def send(self, prompt: Prompt) -> Outcome:
        url, body = compose(prompt)
        outcome = await post(self._webhooks, prompt, url, body)
        if isinstance(outcome, Delivered) and _is_failed(outcome.answer.excerpt):
            return Retry("the run failed", outcome.answer)
        return outcome


def compose(prompt: Prompt) -> tuple[str, bytes]:
    """The URL that is called, and what is sent there."""
    target, _, assistant = prompt.target.partition("#")
    base, mark, query = target.partition("?")
    base = base.rstrip("/")
    payload = msgspec.Raw(prompt.payload)
    if not assistant:
        path = "" if base.endswith("/invoke") else "/invoke"
        return f"{base}{path}{mark}{query}", msgspec.json.encode({"input": payload})
    path = "" if base.endswith(("/runs/wait", "/runs")) else "/runs/wait"
    request = prompt.request
    metadata = {"timer_id": request.timer_id, "occurrence": request.occurrence, "webhook_id": request.webhook_id}
    body = {"assistant_id": assistant, "input": payload, "metadata": metadata}
    return f"{base}{path}{mark}{query}", msgspec.json.encode(body)


def _is_failed(excerpt: str | None) -> bool:
    return (excerpt or "").lstrip().replace(" ", "", 2).startswith(_FAILED)
