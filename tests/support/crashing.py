"""Serves roles and kills itself with SIGKILL at a named step: `python -m tests.support.crashing STEP ROLE…`.

The production code has no hooks for this: a step's function is wrapped here before the roles start.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from minoots.cli.serve import serve
from minoots.kernel.firing import Kernel
from minoots.orchestrator import dispatch
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.recording import Recorder
from minoots.relay import relay
from minoots.store import deliveries, firings, outbox


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die where `owner.name` is called."""

    async def dying(*_: Any, **__: Any) -> None:
        die()

    setattr(owner, name, dying)


def after(owner: Any, name: str, dies: Callable[[Any], bool] = bool) -> None:
    """Die when `owner.name` has returned something that counts."""
    real = getattr(owner, name)

    async def dying(*args: Any, **kwargs: Any) -> Any:
        result = await real(*args, **kwargs)
        if dies(result):
            die()
        return result

    setattr(owner, name, dying)


STEPS: dict[str, Callable[[], None]] = {
    # 2: due, and the kernel is about to claim
    "before-claim": lambda: before(firings, "claim_due"),
    # 2-3: claimed and locked, nothing written
    "after-claim": lambda: after(firings, "claim_due"),
    # 3: everything of the firing written, not committed
    "before-fire-commit": lambda: after(firings, "fire_timers"),
    # 3: committed, nobody told
    "after-fire-commit": lambda: after(Kernel, "_fire_from", lambda done: done[0].fired > 0),
    # 4: the shard is locked and read, nothing published
    "before-publish": lambda: before(relay.Relay, "_publish"),
    # 4: published and acknowledged by NATS, not removed
    "before-remove": lambda: before(outbox, "remove_events"),
    # 4: removed, not committed
    "before-remove-commit": lambda: after(outbox, "remove_events", lambda _: True),
    # 5: leased in the transaction, not committed
    "before-lease-commit": lambda: after(deliveries, "lease"),
    # 5: leased and committed, no action run, the message not acknowledged
    "after-lease-commit": lambda: setattr(Orchestrator, "_start", die),
    # 5-6: leased, acknowledged, the action about to run
    "before-dispatch": lambda: before(dispatch.Orchestrator, "_run"),
    # 6: the receiver has answered, nothing is recorded
    "before-record": lambda: before(Recorder, "_write"),
    # 6: recorded in the transaction, not committed
    "before-record-commit": lambda: after(sys.modules["minoots.orchestrator.recording"], "record_results"),
    # 6: committed, the process has not noticed
    "after-record-commit": lambda: after(Recorder, "_write", lambda _: True),
}

if __name__ == "__main__":
    STEPS[sys.argv[1]]()
    serve(sys.argv[2:])
