"""The orchestrator: takes deliveries within its capacity, runs their actions side by side, hands the results on."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from minoots.domain.outcome import UNKNOWN_MOST, Answer, Delivered, Outcome, Rejected, Retry, Verdict, awaited, judge
from minoots.orchestrator.actions import ActionRunner
from minoots.orchestrator.actions.request import Acknowledging, request_of
from minoots.orchestrator.capacity import Capacity
from minoots.orchestrator.intake import Intake
from minoots.orchestrator.lanes import INTERVAL_MOST_S
from minoots.orchestrator.policy import policy_of
from minoots.orchestrator.recording import Recorder, lane_of
from minoots.store import deliveries
from minoots.store.database import Database
from minoots.store.deliveries import Lease
from minoots.store.results import Result

log = structlog.get_logger("minoots.orchestrator")

BATCH = 400
# Of what was leased, so many attempts begin between two looks at the sockets: hundreds at once would keep the answers
# of the database waiting, and with them the next leases.
BEGIN_AT_ONCE = 16
WAIT_FOR_ROOM_S = 1.0
LEAST_S = 0.002
RENEW_EVERY_S = 2.0
RENEW_FOR = timedelta(seconds=10)


class Orchestrator:
    """Everything one process has under way. `runners` has one runner an action kind.

    `offer_ack` says with what the receiver of a delivery acknowledges it; None: it need not.
    """

    def __init__(
        self,
        database: Database,
        intake: Intake,
        runners: Mapping[str, ActionRunner],
        capacity: Capacity,
        rng: random.Random,
        on_more_due: Callable[[], None] = lambda: None,
        offer_ack: Callable[[Lease], Acknowledging | None] = lambda _: None,
    ) -> None:
        self._db = database
        self._offer_ack = offer_ack
        self._intake = intake
        self._runners = runners
        self._capacity = capacity
        self._rng = rng
        self._on_more_due = on_more_due
        # Until their results are written. Of those in `_ahead`, others have the places by now.
        self._held: dict[UUID, tuple[Lease, float]] = {}
        self._ahead: set[UUID] = set()
        # One at a time, or each of the two ways of taking work would fill the places that the other is filling.
        self._taking = asyncio.Lock()
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_idle = asyncio.Event()
        self._lanes = intake.lanes
        self.recorder = Recorder(database, self._recorded, self._lanes.ailing)

    async def take_fired(self, firings: Sequence[tuple[UUID, int]]) -> int:
        """Lease and start what these firings have to do, as far as there is room; how many."""
        async with self._taking:
            leases = await self._intake.take_fired(firings, 0 if self._is_draining else self._capacity.free)
            self._start(leases)
        return len(leases)

    async def take_due(self) -> int:
        """Lease and start deliveries whose time has come, as far as there is room; how many."""
        async with self._taking:
            if self._is_draining or self._capacity.free <= 0:
                return 0
            leases = await self._intake.take_due(min(BATCH, self._capacity.free))
            self._start(leases)
        return len(leases)

    async def tick(self) -> float:
        """The loop of the second way of taking work: seconds until the next look."""
        if not await self._capacity.wait_free(WAIT_FOR_ROOM_S):
            return 0.0
        if (seconds := self._lanes.seconds_to_look()) > 0:
            return seconds
        return 0.0 if await self.take_due() else max(self._lanes.seconds_to_look(), LEAST_S)

    def _start(self, leases: Sequence[Lease]) -> None:
        self._capacity.take(lane_of(lease) for lease in leases)
        for lease in leases:
            self._held[lease.lease_id] = (lease, time.monotonic())
        if leases:
            self._spawn(self._begin(leases))

    async def _begin(self, leases: Sequence[Lease]) -> None:
        for first in range(0, len(leases), BEGIN_AT_ONCE):
            for lease in leases[first : first + BEGIN_AT_ONCE]:
                self._spawn(self._attempt(lease))
            await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        running = asyncio.create_task(work)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)

    async def _attempt(self, lease: Lease) -> None:
        """Run one attempt and hand its result to the recorder; without a result the lease is left to end."""
        try:
            outcome = await self._run(lease)
            verdict = judge(
                outcome,
                lease.charged_count + 1,
                lease.age,
                policy_of(lease.retry_policy, lease.key.timer_id),
                self._rng,
            )
            verdict = awaited(verdict, lease.ack_timeout_ms)
        except BaseException:
            self._forget([lease])
            self._capacity.give_back([lane_of(lease)])
            raise
        # What failed keeps its place until that is written, for it may open its lane.
        if isinstance(outcome, Delivered) and self._capacity.run_ahead(lane_of(lease)):
            self._ahead.add(lease.lease_id)
        self.recorder.put(Result(lease, outcome, verdict))
        self._tell(lease, outcome, verdict)

    @staticmethod
    def _tell(lease: Lease, outcome: Outcome, verdict: Verdict) -> None:
        went_well = verdict.status in ("delivered", "awaiting")
        # What went well is in the attempts' table, and a line for each would take a tenth of the time.
        if went_well and not log.is_enabled_for(logging.DEBUG):
            return
        (log.debug if went_well else log.info)(
            f"delivery.{'retrying' if verdict.status == 'pending' else verdict.status}",
            tenant_id=lease.tenant_id,
            timer_id=str(lease.key.timer_id),
            occurrence=lease.key.occurrence,
            action_id=lease.key.action_id,
            lane=lease.lane,
            attempt=lease.attempt_count + 1,
            status_code=outcome.answer.status_code,
            duration_ms=outcome.answer.duration_ms,
            **({"reason": verdict.reason or getattr(outcome, "error", None)} if verdict.status != "delivered" else {}),
            **({"next_in_s": round(verdict.wait.total_seconds(), 1)} if verdict.wait is not None else {}),
        )

    async def _run(self, lease: Lease) -> Outcome:
        if lease.unknown_count >= UNKNOWN_MOST:
            return Rejected(f"{lease.unknown_count} attempts ended without a record", Answer())
        runner = self._runners.get(lease.kind)
        if runner is None:
            return Rejected(f"this version cannot run actions of the kind {lease.kind}", Answer())
        try:
            return await runner.run(request_of(lease, self._offer_ack(lease)))
        except Exception as broken:
            # A defect of ours must not cost the delivery: it is told with its trace, and tried again by the policy.
            log.exception("orchestrator.action_broke", kind=lease.kind, timer_id=str(lease.key.timer_id))
            return Retry(f"internal error: {type(broken).__name__}", Answer(), is_ours=True)

    def _forget(self, leases: Sequence[Lease]) -> None:
        """Their leases are held and renewed no longer."""
        for lease in leases:
            self._held.pop(lease.lease_id, None)
        if not self._held:
            self._is_idle.set()

    def _recorded(self, results: Sequence[Result], filled: int) -> None:
        # What was heard of an attempt later on was no attempt.
        ended = [result.lease for result in results if isinstance(result.lease, Lease)]
        self._forget(ended)
        for lease in ended:
            if lease.lease_id in self._ahead:
                self._ahead.discard(lease.lease_id)
                self._capacity.catch_up(lane_of(lease))
            else:
                self._capacity.give_back([lane_of(lease)])
        soon = any(r.verdict.wait is not None and r.verdict.wait.total_seconds() < INTERVAL_MOST_S for r in results)
        if filled or soon:
            self._lanes.scan_again()
        if self._lanes.freed({lane_of(lease) for lease in ended}) or filled or soon:
            self._on_more_due()

    async def renew(self) -> float:
        """Keep the leases of what is still under way; seconds until the next time."""
        now = time.monotonic()
        old = [(lease, RENEW_FOR) for lease, since in self._held.values() if now - since > RENEW_EVERY_S]
        if old:
            async with self._db.guarded(is_keyed=True) as connection:
                await deliveries.renew(self._db, connection, old)
        return RENEW_EVERY_S

    async def drain(self, seconds: float) -> None:
        """Let what is under way end and be recorded; what takes longer is left to its lease."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # What is being leased at this moment is started first, and then under way like the rest.
                async with self._taking:
                    self._is_idle.clear()
                if self._held:
                    await self._is_idle.wait()
        for running in self._tasks:
            running.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
