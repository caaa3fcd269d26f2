"""The rules around signing secrets: making one is the rotation of the one before it. A secret is shown once."""

import os
import re
from typing import Final, Protocol
from uuid import UUID

import msgspec

from minoots.domain.signing import (
    NEW_SECRET_BYTES,
    SECRETS_MOST,
    NewSigningSecret,
    SigningSecret,
    WantedSecret,
    context_of,
    not_an_origin,
    origin_of,
    write_secret,
)
from minoots.errors import MinootsError, SigningSecretConflict, SigningSecretNotFound
from minoots.service.timers import Page
from minoots.store import secrets
from minoots.store.database import Connection, Database
from minoots.store.secrets import Wrapped

REWRAP_BATCH: Final = 500
_ORIGIN: Final = re.compile(r"https?://[^/?#]+/?", re.IGNORECASE)


class Wrapping(Protocol):
    """What wraps secrets before they are stored: `access.keyring.Keyring`."""

    def wrap(self, secret: bytes, context: bytes = b"") -> bytes: ...

    def unwrap(self, wrapped: bytes, context: bytes = b"") -> bytes: ...

    def is_current(self, wrapped: bytes) -> bool: ...


class SigningSecrets:
    """What can be done with signing secrets. Every call is one transaction, and of one tenant."""

    def __init__(self, database: Database, keyring: Wrapping) -> None:
        self._db = database
        self._keyring = keyring

    async def create(self, tenant_id: str, wanted: WantedSecret) -> NewSigningSecret:
        """Make a destination's current secret; what signed there before it signs too until the overlap is over.

        Raises InvalidTimer for a destination that is none, SigningSecretConflict for a secret that signs already or
        one too many.
        """
        async with self._db.guarded(idle="10s", lock="5s") as connection:
            destination = await self._destination(connection, wanted.destination)
            await secrets.lock_destination(self._db, connection, tenant_id, destination)
            secret = wanted.secret or os.urandom(NEW_SECRET_BYTES)
            await self._check_live(connection, tenant_id, destination, secret, wanted.overlap_ms)
            await secrets.retire_current(self._db, connection, tenant_id, destination, wanted.overlap_ms)
            wrapped = self._keyring.wrap(secret, context_of(tenant_id, destination))
            new = Wrapped(destination, wrapped)
            made = await secrets.insert_secret(
                self._db, connection, tenant_id, new, wanted.requested_by, wanted.overlap_ms
            )
        return NewSigningSecret(**msgspec.structs.asdict(made), secret=write_secret(secret))

    async def list_secrets(self, tenant_id: str, before: UUID | None, limit: int) -> Page[SigningSecret]:
        """What signs now, the newest first."""
        async with self._db.connection() as connection:
            found = await secrets.list_secrets(self._db, connection, tenant_id, before, limit + 1)
        items = found[:limit]
        return Page(items, str(items[-1].id) if len(found) > limit else None)

    async def end(self, tenant_id: str, secret_id: UUID) -> SigningSecret:
        """Let a secret sign no more, its overlap included; raises SigningSecretNotFound."""
        async with self._db.connection() as connection:
            ended = await secrets.end_secret(self._db, connection, tenant_id, secret_id)
        if ended is None:
            raise SigningSecretNotFound
        return ended

    async def rewrap(self) -> tuple[int, int]:
        """Wrap with the first key what another one wrapped, of all tenants; how many, and how many no key unwraps."""
        done = lost = 0
        after = ("", UUID(int=0))
        while True:
            async with self._db.connection() as connection:
                found = await secrets.walk(self._db, connection, after, REWRAP_BATCH)
                for key, old in found:
                    if self._keyring.is_current(old.wrapped):
                        continue
                    context = context_of(key[0], old.destination)
                    secret = self._unwrapped(old.wrapped, context)
                    if secret is None:
                        lost += 1
                    else:
                        new = self._keyring.wrap(secret, context)
                        done += await secrets.rewrap(self._db, connection, key, old.wrapped, new)
            if len(found) < REWRAP_BATCH:
                return done, lost
            after = found[-1][0]

    async def _destination(self, connection: Connection, given: str | None) -> str | None:
        if given is None:
            return None
        if not _ORIGIN.fullmatch(given) or not await secrets.is_url(self._db, connection, given):
            raise not_an_origin()
        return origin_of(given)

    async def _check_live(
        self, connection: Connection, tenant_id: str, destination: str | None, secret: bytes, overlap_ms: int
    ) -> None:
        live = await secrets.list_live(self._db, connection, tenant_id, destination)
        if len(live) >= SECRETS_MOST and overlap_ms > 0:
            raise SigningSecretConflict(
                f"{len(live)} secrets sign for this destination already; revoke one of them, or give the overlap 0"
            )
        for secret_id, wrapped in live:
            if self._unwrapped(wrapped, context_of(tenant_id, destination)) == secret:
                raise SigningSecretConflict(f"this secret signs for this destination already: it is {secret_id}")

    def _unwrapped(self, wrapped: bytes, context: bytes) -> bytes | None:
        """None for one that our keys do not unwrap: it does not stand in the way of a new one."""
        try:
            return self._keyring.unwrap(wrapped, context)
        except MinootsError:
            return None
