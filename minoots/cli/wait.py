"""Waiting for one timer's end at the server, question after question."""

import json
import time
from typing import Final

from minoots.cli.client import Api, timer_path
from minoots.cli.exits import ENDED_BADLY, CommandStopped
from minoots.cli.words import has_ended

# Shorter than what proxies let a connection be silent for.
_ONCE_S: Final = 25.0
# A server that is going away answers before the time is up; the next one may not be there yet.
_REST_S: Final = 0.5


def wait_for(api: Api, timer_id: str, timeout: float | None) -> bytes:
    """The ended timer as it came; CommandStopped when the time is up."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        began = time.monotonic()
        left = _ONCE_S if deadline is None else max(deadline - began, 0.001)
        asked_s = min(left, _ONCE_S)
        answer = api.get(timer_path(timer_id, "wait"), [("timeout", f"{max(round(asked_s * 1000), 1)}ms")])
        timer = json.loads(answer)
        if has_ended(timer):
            return answer
        if deadline is not None and time.monotonic() >= deadline:
            raise CommandStopped(f"the timer is still {timer.get('status')}; the time to wait is up", ENDED_BADLY)
        if time.monotonic() - began < asked_s - _REST_S:
            time.sleep(_REST_S)


def ended_badly(answer: bytes) -> int:
    """The exit code for an ended timer."""
    return ENDED_BADLY if json.loads(answer).get("status") in ("failed", "cancelled") else 0
