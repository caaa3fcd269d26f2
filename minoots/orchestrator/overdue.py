"""The overdue sweep: what was not acknowledged in time, or as failed, goes on by its retry policy."""

import random
from dataclasses import replace
from uuid import UUID

import structlog
import uuid_utils

from minoots.domain.outcome import Answer, Heard, Retry, Verdict, judge
from minoots.orchestrator.policy import policy_of
from minoots.store import acks
from minoots.store.acks import Unconfirmed
from minoots.store.database import ROW_ERRORS, Database, describe_refusal
from minoots.store.results import Result, record_results

log = structlog.get_logger("minoots.orchestrator")

BATCH = 100
INTERVAL_S = 0.25


class Overdue:
    """Ends waiting for acknowledgement. Any number of them share the work: firings that are locked are passed by."""

    def __init__(self, database: Database, rng: random.Random) -> None:
        self._db = database
        self._rng = rng

    async def tick(self) -> float:
        """One batch when a deadline has passed; seconds until the next look."""
        async with self._db.connection() as connection:
            seconds = await acks.seconds_to_next(self._db, connection)
        if seconds is None or seconds > 0:
            return INTERVAL_S if seconds is None else min(INTERVAL_S, seconds)
        # When none could be taken, somebody else has them at this moment.
        return 0.0 if await self.run_once() else INTERVAL_S

    async def run_once(self, limit: int = BATCH) -> int:
        """Move on up to so many deliveries whose deadline has passed; how many.

        A batch that is refused is halved until its culprit stands alone, which is put off: it holds up no other.
        """
        try:
            return await self._db.repeat(lambda: self._move_on(limit))
        except ROW_ERRORS as refused:
            if limit > 1:
                return await self.run_once(limit // 2)
            async with self._db.guarded() as connection:
                culprit = await acks.postpone_first(self._db, connection)
            log.error("orchestrator.overdue_postponed", delivery=str(culprit), reason=describe_refusal(refused))
            return 1

    async def _move_on(self, limit: int) -> int:
        async with self._db.guarded() as connection:
            keys = await acks.find_due(self._db, connection, limit)
            if not keys:
                return 0
            await acks.mark_overdue(self._db, connection, keys)
            taken = await acks.take(self._db, connection, keys, [UUID(int=uuid_utils.uuid7().int) for _ in keys])
            results = [Result(one.lease, Heard(one.reason), self._verdict(one)) for one in taken]
            written, _ = await record_results(self._db, connection, results)
        for result in results:
            _tell(result)
        return written

    def _verdict(self, one: Unconfirmed) -> Verdict:
        """Heard in time, what was said holds; else it is one more failed attempt."""
        if one.status == "awaiting":
            return Verdict("confirmed") if one.ack_outcome == "done" else Verdict("awaiting")
        attempts = max(one.lease.charged_count + 1, 1)
        verdict = judge(
            Retry(one.reason, Answer()),
            attempts,
            one.age,
            policy_of(one.retry_policy, one.lease.key.timer_id),
            self._rng,
        )
        return replace(verdict, reason=verdict.reason or one.reason)


def _tell(result: Result) -> None:
    verdict = result.verdict
    is_overdue = verdict.status in ("pending", "dead")
    log.info(
        "delivery.overdue" if is_overdue else f"delivery.{verdict.status}",
        timer_id=str(result.lease.key.timer_id),
        occurrence=result.lease.key.occurrence,
        action_id=result.lease.key.action_id,
        **({"reason": verdict.reason, "then": verdict.status} if is_overdue else {}),
        **({"retry_in_s": round(verdict.wait.total_seconds(), 1)} if verdict.wait is not None else {}),
    )
