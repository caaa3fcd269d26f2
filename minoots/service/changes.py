"""The rules around changing a timer that waits: each change is read, decided, and written if nobody was faster."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog
import uuid_utils

from minoots.domain.abilities import Abilities
from minoots.domain.change import PAST_MOST, Change, Kept, first_timing, move, pause, resume
from minoots.domain.limits import NAME_CHARACTERS, PREVIEW_DEFAULT
from minoots.domain.moment import Moved
from minoots.domain.recurrence import Occurrence, Step
from minoots.domain.schedule import Instant
from minoots.domain.timer import NewTimer, Timer
from minoots.domain.update import ANY_VERSION, TimerUpdate, decide_put, decide_update, says_the_same
from minoots.errors import InvalidTimer, StaleVersion, StoreUnavailable, TimerNotFound, TimerStateConflict
from minoots.service.abilities import check_can_run
from minoots.service.preview import preview_schedule
from minoots.store import firings, installation, recurring
from minoots.store.changes import (
    change_timer,
    find_named,
    insert_planned,
    lock_timer,
    make_due,
    read_timer,
)
from minoots.store.database import ROW_ERRORS, Connection, Database, describe_refusal

log = structlog.get_logger("minoots.service")

# How often somebody else may be faster: a timer of seconds fires while it is changed.
TRIES = 10
# How long a schedule may take to be planned.
DECIDE_S = 10


class TimerChanges:
    """What can be done to timers that are scheduled or paused.

    Every call answers the timer as it is then, and is of one tenant. All raise TimerNotFound, TimerStateConflict for a
    status that has no such step, InvalidTimer with pointers in the words of REST, and StoreUnavailable.
    """

    def __init__(self, database: Database, abilities: Abilities | None = None) -> None:
        self._db = database
        self._abilities = abilities

    async def pause(
        self, tenant_id: str, timer_id: UUID, requested_by: str | None = None, if_version: int | None = None
    ) -> Timer:
        """Let it wait until it is resumed; one that is paused already is answered as it is."""
        return await self._change(tenant_id, timer_id, pause, requested_by, if_version)

    async def resume(
        self,
        tenant_id: str,
        timer_id: UUID,
        catch_up: bool = False,
        requested_by: str | None = None,
        if_version: int | None = None,
    ) -> Timer:
        """Let it go on; one that is scheduled already is answered as it is.

        What came due of a recurring timer meanwhile is missed, or with `catch_up` left to its schedule's `catchUp`.
        """
        return await self._change(tenant_id, timer_id, partial(resume, catch_up=catch_up), requested_by, if_version)

    async def reschedule(
        self,
        tenant_id: str,
        timer_id: UUID,
        moved: Moved,
        requested_by: str | None = None,
        if_version: int | None = None,
    ) -> Timer:
        """Another instant, or another schedule. An instant moves only the next occurrence of a recurring timer."""
        return await self._change(tenant_id, timer_id, partial(move, moved=moved), requested_by, if_version)

    async def fire(
        self, tenant_id: str, timer_id: UUID, requested_by: str | None = None, if_version: int | None = None
    ) -> Timer:
        """Fire it now: a timer that fires once, for good; a recurring one beside its schedule."""
        _check_who(requested_by)
        status = "gone"
        try:
            async with self._db.guarded(lock="5s") as connection:
                found = await lock_timer(self._db, connection, tenant_id, timer_id)
                if found is None:
                    raise TimerNotFound
                status, recurs, version = found
                if if_version not in (None, ANY_VERSION, version):
                    raise StaleVersion
                if status not in ("scheduled", "paused"):
                    raise TimerStateConflict(status, f"the timer is {status}; only a timer that waits can be fired")
                await (self._fire_beside if recurs else self._fire_once)(connection, tenant_id, timer_id)
                shown = await read_timer(self._db, connection, tenant_id, timer_id)
        except ROW_ERRORS as refused:
            raise TimerStateConflict(status, f"the timer cannot be fired: {describe_refusal(refused)}") from refused
        log.info("timer.fired_now", timer_id=str(timer_id), requested_by=requested_by)
        assert shown is not None, "the row is locked"
        return shown[1]

    async def _fire_once(self, connection: Connection, tenant_id: str, timer_id: UUID) -> None:
        due_at = await make_due(self._db, connection, tenant_id, timer_id)
        assert due_at is not None, "the row is locked"
        if not await firings.fire_timers(self._db, connection, [firings.Mark(due_at, timer_id)]):
            raise _busy()

    async def _fire_beside(self, connection: Connection, tenant_id: str, timer_id: UUID) -> None:
        timer = await recurring.lock_timer(self._db, connection, tenant_id, timer_id)
        assert timer is not None, "the row is locked"
        beside = Step(fire=[Occurrence(timer.now, timer.now, is_scheduled=False)], is_held=timer.is_held)
        if not await recurring.move(self._db, connection, [(timer, beside)]):
            raise _busy()

    async def update(
        self, tenant_id: str, timer_id: UUID, changes: TimerUpdate, if_version: int | None = None
    ) -> Timer:
        """Change what is given. Raises StaleVersion when it has another version than `if_version`, and NameTaken."""
        if self._abilities is not None:
            fields = changes.fields
            self._abilities.check(tenant_id, fields.get("action_bundle"), fields.get("agent_binding"))
        return await self._change(
            tenant_id, timer_id, partial(decide_update, update=changes), changes.requested_by, if_version
        )

    async def put(
        self, tenant_id: str, new: NewTimer, if_version: int | None = None, *, only_new: bool = False
    ) -> tuple[Timer, bool]:
        """Create the timer of that name, or replace the one that waits; whether it was created.

        `new.name` is set. With `if_version` it must be there in that version (ANY_VERSION: in any), with `only_new` it
        must not be there, else StaleVersion. What says the same as the timer that waits changes nothing.
        """
        if new.name is None:
            raise InvalidTimer.at("/name", "name is required: a timer is put by its name")
        if self._abilities is not None:
            await check_can_run(self._abilities, tenant_id, [new], batch=False)
        for _ in range(TRIES):
            async with self._db.connection() as connection:
                known = await find_named(self._db, connection, tenant_id, new.name)
            if known is None:
                if if_version is not None:
                    raise StaleVersion("no timer that waits was made by this name; put it without a version")
                made = await self._insert_named(tenant_id, new)
                if made is not None:
                    return made, True
                continue
            if only_new:
                raise StaleVersion("a timer that waits was made by this name")
            try:
                same = partial(says_the_same, new=new)
                put = partial(decide_put, new=new)
                return await self._change(tenant_id, known, put, None, if_version, same), False
            except (TimerNotFound, TimerStateConflict):
                # It ended between the two looks, and its name is free.
                continue
        raise _busy()

    async def preview(self, moved: Moved, after: datetime | None = None, count: int = PREVIEW_DEFAULT) -> list[Instant]:
        """The next instants of a schedule, before a timer has it; from now on when `after` is None."""
        return await preview_schedule(self._db, moved, after, count)

    async def _insert_named(self, tenant_id: str, new: NewTimer) -> Timer | None:
        """None when somebody else was first with the name."""
        timer_id = UUID(int=uuid_utils.uuid7().int)
        async with self._db.connection() as connection:
            now = await installation.current_instant(self._db, connection)
        timing = None
        if new.schedule is not None:
            timing = await asyncio.to_thread(first_timing, timer_id, new.schedule, now, new.schedule_pointer)
        elif new.fire_at is not None and new.fire_at < now - PAST_MOST:
            raise InvalidTimer.at("/fireAt", "fireAt is more than a minute in the past")
        async with self._db.transaction() as connection:
            made = await insert_planned(self._db, connection, tenant_id, [(timer_id, new, timing)], is_named=True)
            await installation.remember_tenant(self._db, connection, tenant_id)
        return made[0] if made else None

    async def _change(
        self,
        tenant_id: str,
        timer_id: UUID,
        decide: Callable[[Kept], Change | None],
        requested_by: str | None,
        if_version: int | None = None,
        is_same: Callable[[Timer], bool] | None = None,
    ) -> Timer:
        """Read, decide beside the event loop, write; again while others are faster. What `is_same` stays as it is."""
        _check_who(requested_by)
        for _ in range(TRIES):
            async with self._db.connection() as connection:
                found = await read_timer(self._db, connection, tenant_id, timer_id)
            if found is None:
                raise TimerNotFound
            kept, shown = found
            if if_version not in (None, ANY_VERSION, kept.version):
                raise StaleVersion
            change = None if is_same is not None and is_same(shown) else await _decided(decide, kept)
            if change is None:
                return shown
            async with self._db.connection() as connection:
                changed = await change_timer(self._db, connection, tenant_id, kept, change, requested_by)
            if changed is not None:
                log.info(f"timer.{change.kind}", timer_id=str(timer_id), requested_by=requested_by)
                return changed
        raise _busy()


async def _decided(decide: Callable[[Kept], Change | None], kept: Kept) -> Change | None:
    """In a thread: a rule may take a while, and nobody else waits for it."""
    try:
        async with asyncio.timeout(DECIDE_S):
            return await asyncio.to_thread(decide, kept)
    except TimeoutError:
        raise InvalidTimer.at("/schedule", "the schedule takes too long to compute; make it simpler") from None


def _check_who(requested_by: str | None) -> None:
    if requested_by is not None and not 1 <= len(requested_by) <= NAME_CHARACTERS:
        raise InvalidTimer.at("/requestedBy", f"requestedBy has 1 to {NAME_CHARACTERS} characters")
    if requested_by is not None and "\0" in requested_by:
        raise InvalidTimer.at("/requestedBy", "text may not hold the character NUL")


def _busy() -> StoreUnavailable:
    return StoreUnavailable("others keep changing this timer; nothing was changed, try again")
