"""The rules around a timer's transactions: what each door calls, in the order of a timer's life."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar
from uuid import UUID

import msgspec

from minoots.domain.abilities import Abilities
from minoots.domain.duration import format_instant
from minoots.domain.firing import Firing
from minoots.domain.limits import BATCH_TIMERS, IDEMPOTENCY_KEY_CHARACTERS, REASON_CHARACTERS
from minoots.domain.schedule import schedule_text
from minoots.domain.timer import NewTimer, Timer
from minoots.errors import (
    FiringNotFound,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidTimer,
    MalformedRequest,
    TimerNotFound,
    TimerStateConflict,
)
from minoots.service.abilities import check_can_run
from minoots.service.arrivals import Arrivals
from minoots.service.plans import plan_new
from minoots.store import firings, idempotency, installation, timers
from minoots.store.changes import insert_planned
from minoots.store.database import Connection, Database
from minoots.store.timers import TimerFilter

# Tenants that this process has noted; the table is a convenience for operators, so the memory may be small.
_TENANTS_REMEMBERED = 10_000

T = TypeVar("T")

_answers = msgspec.json.Decoder(list[Timer])


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list; `next_cursor` is None at its end."""

    items: list[T]
    next_cursor: str | None


class Timers:
    """What can be done with timers. Every call is one transaction, and of one tenant.

    What `abilities` cannot run raises InvalidTimer; None takes everything that keeps the rules.
    """

    def __init__(self, database: Database, abilities: Abilities | None = None) -> None:
        self._db = database
        self._abilities = abilities
        self._arrivals = Arrivals(database)
        self._tenants: set[str] = set()

    async def schedule(self, tenant_id: str, new: NewTimer, idempotency_key: str | None = None) -> Timer:
        """Create a timer; with a key that was used before, answer what was answered then."""
        return (await self.schedule_many(tenant_id, [new], idempotency_key, batch=False))[0]

    async def schedule_many(
        self, tenant_id: str, new: Sequence[NewTimer], idempotency_key: str | None = None, *, batch: bool = True
    ) -> list[Timer]:
        """Create all or none; answers in the order given. Findings of a batch point below /items/N."""
        if batch and not 1 <= len(new) <= BATCH_TIMERS:
            raise InvalidTimer.at("/items", f"a batch has 1 to {BATCH_TIMERS:,} items")
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= IDEMPOTENCY_KEY_CHARACTERS:
            raise MalformedRequest(f"an Idempotency-Key has 1 to {IDEMPOTENCY_KEY_CHARACTERS} characters")
        if self._abilities is not None:
            await check_can_run(self._abilities, tenant_id, new, batch=batch)
        if idempotency_key is None and not batch and new[0].schedule is None:
            created = [_not_past(await self._arrivals.insert(tenant_id, new[0]), None)]
        elif idempotency_key is None and all(n.duration_ms is not None for n in new):
            # Nothing to look at first: one statement, which is a transaction by itself.
            async with self._db.connection() as connection:
                created = await self._insert(connection, tenant_id, new, batch)
        else:
            async with self._db.guarded(idle="10s", lock="5s") as connection:
                if idempotency_key is None:
                    created = await self._insert(connection, tenant_id, new, batch)
                else:
                    created = await self._insert_once(connection, tenant_id, new, idempotency_key, batch)
        await self._remember(tenant_id)
        return created

    async def get(self, tenant_id: str, timer_id: UUID) -> Timer:
        async with self._db.connection() as connection:
            timer = await timers.get_timer(self._db, connection, tenant_id, timer_id)
        if timer is None:
            raise TimerNotFound
        return timer

    async def list_timers(self, tenant_id: str, wanted: TimerFilter) -> Page[Timer]:
        async with self._db.connection() as connection:
            found = await timers.list_timers(self._db, connection, tenant_id, replace(wanted, limit=wanted.limit + 1))
        more = len(found) > wanted.limit
        items = found[: wanted.limit]
        return Page(items, str(items[-1].id) if more else None)

    async def cancel(self, tenant_id: str, timer_id: UUID, requested_by: str, reason: str | None = None) -> Timer:
        """Cancel a timer that has not fired; cancelled already is answered as it is, fired is a conflict."""
        if not requested_by or len(requested_by) > 200:
            raise InvalidTimer.at("/requestedBy", "requestedBy has 1 to 200 characters: say who cancels")
        if reason is not None and len(reason) > REASON_CHARACTERS:
            raise InvalidTimer.at("/reason", f"a reason has at most {REASON_CHARACTERS:,} characters")
        async with self._db.connection() as connection:
            timer = await timers.cancel_timer(self._db, connection, tenant_id, timer_id, requested_by, reason)
            if timer is None:
                timer = await timers.get_timer(self._db, connection, tenant_id, timer_id)
        if timer is None:
            raise TimerNotFound
        if timer.status != "cancelled":
            raise TimerStateConflict(
                timer.status, f"the timer is {timer.status}; only a timer that waits can be cancelled"
            )
        return timer

    async def list_firings(self, tenant_id: str, timer_id: UUID, before: int | None, limit: int) -> Page[Firing]:
        """The timer's firings, the latest first."""
        async with self._db.connection() as connection:
            found = await firings.list_firings(self._db, connection, tenant_id, timer_id, before, limit + 1)
            if not found and await timers.get_timer(self._db, connection, tenant_id, timer_id) is None:
                raise TimerNotFound
        items = found[:limit]
        return Page(items, str(items[-1].occurrence) if len(found) > limit else None)

    async def get_firing(self, tenant_id: str, timer_id: UUID, occurrence: int) -> Firing:
        """One firing with its deliveries and attempts."""
        async with self._db.connection() as connection:
            firing = await firings.get_firing(self._db, connection, tenant_id, timer_id, occurrence)
            if firing is None and await timers.get_timer(self._db, connection, tenant_id, timer_id) is None:
                raise TimerNotFound
        if firing is None:
            raise FiringNotFound
        return firing

    async def are_events_on(self) -> bool:
        """Whether this installation writes lifecycle events at all."""
        async with self._db.connection() as connection:
            return await installation.are_events_on(self._db, connection)

    async def _insert(
        self, connection: Connection, tenant_id: str, new: Sequence[NewTimer], batch: bool
    ) -> list[Timer]:
        if any(n.schedule is not None for n in new):
            past = await timers.first_past(self._db, connection, new)
            if past is not None:
                _not_past(None, past if batch else None)
            planned = await plan_new(self._db, connection, new, batch=batch)
            return await insert_planned(self._db, connection, tenant_id, planned)
        made = await timers.insert_timers(self._db, connection, tenant_id, new)
        return [_not_past(timer, nth if batch else None) for nth, timer in enumerate(made)]

    async def _insert_once(
        self, connection: Connection, tenant_id: str, new: Sequence[NewTimer], key: str, batch: bool
    ) -> list[Timer]:
        """The key is locked before it is looked up, so that of two at once only one can insert."""
        if not await idempotency.lock_key(self._db, connection, tenant_id, key):
            raise IdempotencyInFlight
        request = request_text(new, batch)
        former = await idempotency.find_answer(self._db, connection, tenant_id, key, request)
        if former is not None:
            if not former.is_same:
                raise IdempotencyMismatch
            return _answers.decode(former.answer if batch else f"[{former.answer}]")
        created = await self._insert(connection, tenant_id, new, batch)
        answer = msgspec.json.encode(created if batch else created[0]).decode()
        await idempotency.keep_answer(self._db, connection, tenant_id, key, request, answer)
        return created

    async def _remember(self, tenant_id: str) -> None:
        if tenant_id in self._tenants:
            return
        async with self._db.connection() as connection:
            await installation.remember_tenant(self._db, connection, tenant_id)
        if len(self._tenants) >= _TENANTS_REMEMBERED:
            self._tenants.clear()
        self._tenants.add(tenant_id)


def _not_past(timer: Timer | None, nth: int | None) -> Timer:
    """The timer that was made; raises InvalidTimer for one that is too far past, of a batch below /items/N."""
    if timer is not None:
        return timer
    refused = InvalidTimer.at("/fireAt", "fireAt is more than a minute in the past")
    raise refused if nth is None else refused.below(f"/items/{nth}")


def request_text(new: Sequence[NewTimer], batch: bool) -> str:
    """What was asked, as JSON: `minoots.schedule_timer` builds the same, so that a key counts through every door."""
    asked = [
        {
            "name": n.name,
            "requestedBy": n.requested_by,
            "durationMs": n.duration_ms,
            "fireAt": format_instant(n.fire_at) if n.fire_at else None,
            "metadata": _raw(n.metadata),
            "labels": _raw(n.labels),
            "actionBundle": _raw(n.action_bundle),
            "agentBinding": _raw(n.agent_binding),
            **({"schedule": msgspec.Raw(schedule_text(n.schedule).encode())} if n.schedule else {}),
        }
        for n in new
    ]
    return msgspec.json.encode({"items": asked} if batch else asked[0]).decode()


def _raw(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())
