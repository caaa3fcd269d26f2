"""Signs what goes out with the secrets of its destination, read a moment ago and not for each delivery."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

import structlog

from minoots.access.keyring import CannotUnwrap
from minoots.domain.signing import context_of, sign
from minoots.errors import MinootsError, Unavailable
from minoots.store import secrets
from minoots.store.database import Database
from minoots.store.secrets import Wrapped

log = structlog.get_logger("minoots.orchestrator")

# How old what is known may be: so much later a new secret signs, and a revoked one does no more.
FRESH_S: Final = 1.0
# Destinations that are remembered, and that are looked up by one statement.
REMEMBERED: Final = 10_000
TOGETHER: Final = 500
READ_S: Final = 5.0
_TOLD: Final = 1_000

Place: TypeAlias = tuple[str, str]


class CannotSign(MinootsError):
    """The signing secrets cannot be read at the moment."""


class Unwrapping(Protocol):
    """What unwraps stored secrets: `access.keyring.Keyring`."""

    def unwrap(self, wrapped: bytes, context: bytes = b"") -> bytes: ...


class Signer:
    """The signatures of one process. Secrets are looked up for all who wait at once, by one statement at a time."""

    def __init__(self, database: Database, keyring: Unwrapping, clock: Callable[[], float] = time.monotonic) -> None:
        self._db = database
        self._keyring = keyring
        self._clock = clock
        # By when it was read, the oldest first.
        self._known: dict[Place, tuple[float, Sequence[bytes]]] = {}
        self._wanted: dict[Place, asyncio.Future[Sequence[bytes]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._told: set[str] = set()

    async def sign(self, tenant_id: str, origin: str, webhook_id: str, timestamp: int, body: bytes) -> str | None:
        """The value of `webhook-signature`; None where the tenant has no secret for this origin, nor for all of them.

        `origin` is as `origin_of` writes it, `timestamp` in Unix seconds, `body` the bytes that are sent. Raises
        CannotSign when the secrets cannot be read: what should be signed must not go out without.
        """
        signing = await self._secrets((tenant_id, origin))
        return sign(signing, webhook_id, timestamp, body) if signing else None

    async def _secrets(self, place: Place) -> Sequence[bytes]:
        known = self._known.get(place)
        if known is not None and self._clock() - known[0] < FRESH_S:
            return known[1]
        answer = self._wanted.get(place)
        if answer is None:
            answer = self._wanted[place] = asyncio.get_running_loop().create_future()
            if self._reading is None:
                # It begins after everybody who is ready now had a turn, so that they are in it.
                self._reading = asyncio.create_task(self._read_wanted())
        # Others wait for it too, and one that is cancelled takes nothing from them.
        return await asyncio.shield(answer)

    async def _read_wanted(self) -> None:
        """Statement after statement, until nobody waits."""
        try:
            while self._wanted:
                places = list(self._wanted)[:TOGETHER]
                answers = [self._wanted.pop(place) for place in places]
                await self._answer(places, answers)
        finally:
            self._reading = None

    async def _answer(self, places: Sequence[Place], answers: Sequence[asyncio.Future[Sequence[bytes]]]) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(READ_S), self._db.connection() as connection:
                found = await secrets.find_signing(self._db, connection, places)
        except Exception as failed:
            if not isinstance(failed, Unavailable | TimeoutError):
                log.exception("signing.broke")
            for answer in answers:
                _refuse(answer, CannotSign())
            return
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise
        by_place: dict[int, list[Wrapped]] = {}
        for nth, one in found:
            by_place.setdefault(nth, []).append(one)
        for nth, (place, answer) in enumerate(zip(places, answers, strict=True)):
            try:
                signing = self._unwrap(place, by_place.get(nth, ()))
            except CannotSign as refused:
                _refuse(answer, refused)
            else:
                self._remember(place, began, signing)
                if not answer.done():
                    answer.set_result(signing)

    def _unwrap(self, place: Place, found: Sequence[Wrapped]) -> Sequence[bytes]:
        """What signs: those of the origin, else the tenant's. One that no key unwraps is left out beside others."""
        tenant_id, _ = place
        own = [one for one in found if one.destination is not None]
        signing: list[bytes] = []
        refused: CannotUnwrap | None = None
        for one in own if own and not any(one.is_beside for one in own) else found:
            try:
                signing.append(self._keyring.unwrap(one.wrapped, context_of(tenant_id, one.destination)))
            except CannotUnwrap as why:
                refused = why
        if refused is not None:
            self._tell(tenant_id, refused)
            if not signing:
                raise CannotSign(f"cannot sign: {refused.detail}")
        return signing

    def _remember(self, place: Place, began: float, signing: Sequence[bytes]) -> None:
        self._known.pop(place, None)
        self._known[place] = (began, signing)
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    def _tell(self, tenant_id: str, refused: CannotUnwrap) -> None:
        """Once a tenant: it goes on until somebody mends it."""
        if tenant_id in self._told:
            return
        if len(self._told) >= _TOLD:
            self._told.clear()
        self._told.add(tenant_id)
        log.error("signing.cannot_unwrap", tenant_id=tenant_id, reason=refused.detail)


def _refuse(answer: asyncio.Future[Sequence[bytes]], refused: CannotSign) -> None:
    if not answer.done():
        # Each its own: an error that is raised collects the frames it passes.
        answer.set_exception(CannotSign(refused.detail))
        # Those who waited for it may all have left.
        answer.exception()
