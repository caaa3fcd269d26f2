"""The retry policy that a delivery was leased or found overdue with."""

from uuid import UUID

import msgspec
import structlog

from minoots.domain.retry import RetryPolicy

log = structlog.get_logger("minoots.orchestrator")

_policy = msgspec.json.Decoder(RetryPolicy | None)


def policy_of(text: str | None, timer_id: UUID) -> RetryPolicy:
    """The bundle's (JSON text), else the default; also where a row from before some rule has one that is unreadable."""
    if text is not None:
        try:
            return _policy.decode(text) or RetryPolicy()
        except msgspec.DecodeError:
            log.warning("orchestrator.policy_unreadable", timer_id=str(timer_id))
    return RetryPolicy()
