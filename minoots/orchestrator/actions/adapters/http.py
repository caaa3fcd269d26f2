"""Prompts by HTTP: sent as webhooks are, so that targets, signatures, time-outs and outcomes have the same rules."""

import dataclasses

import msgspec

from minoots.domain.outcome import Outcome
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.adapters import Prompt


async def post(webhooks: ActionRunner, prompt: Prompt, url: str, body: bytes) -> Outcome:
    """POST `body`, which is JSON, to `url` through the webhook's sender."""
    parameters = {
        "url": url,
        "headers": {"content-type": "application/json"} | {k.lower(): v for k, v in prompt.headers.items()},
        "timeoutMs": prompt.timeout_ms,
        "body": msgspec.Raw(body),
    }
    request = dataclasses.replace(prompt.request, kind="webhook", parameters=msgspec.json.encode(parameters).decode())
    return await webhooks.run(request)
