"""An agent adapter that appends prompts to a file, and an action kind that POSTs a note."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minoots.domain.outcome import Answer, Delivered, Outcome, Retry
from minoots.orchestrator.actions.adapters import Prompt
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.extensions import Tools


class FileAdapter:
    """The target is a file's path."""

    def __init__(self, tools: Tools) -> None:
        pass

    @staticmethod
    def check_target(target: str) -> str | None:
        return None if target.startswith("/") else "give the whole path of a file"

    async def send(self, prompt: Prompt) -> Outcome:
        line = {"webhookId": prompt.request.webhook_id, "payload": json.loads(prompt.payload)}
        try:
            await asyncio.to_thread(_append, Path(prompt.target), json.dumps(line) + "\n")
        except OSError as failed:
            return Retry(f"cannot write: {failed.strerror}", Answer())
        return Delivered(Answer(excerpt="written"))


def _append(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(line)


class NoteKind:
    """Parameters: {to, text}."""

    def __init__(self, tools: Tools) -> None:
        self._webhooks = tools.webhooks

    @staticmethod
    def check_parameters(parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        if not isinstance(parameters.get("text"), str):
            yield "/text", "a note needs a text"

    async def run(self, request: ActionRequest) -> Outcome:
        asked = json.loads(request.parameters)
        sent = json.dumps({"url": asked["to"], "body": {"note": asked["text"]}})
        # Signed and guarded as a webhook is.
        return await self._webhooks.run(dataclasses.replace(request, kind="webhook", parameters=sent))
