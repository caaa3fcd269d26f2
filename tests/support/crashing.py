"""Serves roles and strikes itself down at a named step: `python -m tests.support.crashing [stop:]STEP ROLE…`.

With SIGKILL; or, as `stop:STEP`, once with SIGSTOP, after which SIGCONT lets it go on as if nothing had been. The
production code has no hooks for this: a step's function is wrapped here before the roles start.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from minoots.cli.serve import serve
from minoots.kernel.firing import Kernel
from minoots.orchestrator import dispatch, overdue  # noqa: F401 - overdue is looked up by its name
from minoots.orchestrator.dispatch import Orchestrator
from minoots.orchestrator.recording import Recorder
from minoots.relay import relay
from minoots.store import deliveries, firings, outbox, retention


class Blow:
    """What hits the process: SIGKILL, or SIGSTOP the first time and nothing afterwards."""

    number: signal.Signals = signal.SIGKILL
    has_fallen = False

    @classmethod
    def strike(cls) -> None:
        if not cls.has_fallen:
            cls.has_fallen = True
            os.kill(os.getpid(), cls.number)


def before(owner: Any, name: str) -> None:
    """Where `owner.name` is called."""
    real = getattr(owner, name)

    async def struck(*args: Any, **kwargs: Any) -> Any:
        Blow.strike()
        return await real(*args, **kwargs)

    setattr(owner, name, struck)


def before_start(owner: Any, name: str) -> None:
    """The same for what is no coroutine."""
    real = getattr(owner, name)

    def struck(*args: Any, **kwargs: Any) -> Any:
        Blow.strike()
        return real(*args, **kwargs)

    setattr(owner, name, struck)


def after(owner: Any, name: str, counts: Callable[[Any], bool] = bool) -> None:
    """When `owner.name` has returned something that counts."""
    real = getattr(owner, name)

    async def struck(*args: Any, **kwargs: Any) -> Any:
        result = await real(*args, **kwargs)
        if counts(result):
            Blow.strike()
        return result

    setattr(owner, name, struck)


STEPS: dict[str, Callable[[], None]] = {
    # 2: due, and the kernel is about to claim
    "before-claim": lambda: before(firings, "fire_due"),
    # 3: everything of the firing written. One statement is a transaction of its own, so that this is after the commit,
    # but where statements are not prepared: there it is before
    "after-fire": lambda: after(firings, "fire_due", lambda done: done.fired > 0),
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
    "after-lease-commit": lambda: before_start(Orchestrator, "_start"),
    # 5-6: leased, acknowledged, the action about to run
    "before-dispatch": lambda: before(dispatch.Orchestrator, "_run"),
    # 6: the receiver has answered, nothing is recorded
    "before-record": lambda: before(Recorder, "_write"),
    # 6: recorded in the transaction, not committed
    "before-record-commit": lambda: after(sys.modules["minoots.orchestrator.recording"], "record_results"),
    # 6: committed, the process has not noticed
    "after-record-commit": lambda: after(Recorder, "_write", lambda _: True),
    # beside: what is overdue is moved on, not committed
    "before-overdue-commit": lambda: after(sys.modules["minoots.orchestrator.overdue"], "record_results"),
    # beside: what is past retention is removed, not committed
    "before-prune-commit": lambda: after(retention, "prune_fired", lambda done: done.timers > 0),
}

if __name__ == "__main__":
    step = sys.argv[1]
    if step.startswith("stop:"):
        Blow.number = signal.SIGSTOP
    STEPS[step.removeprefix("stop:")]()
    serve(sys.argv[2:])
