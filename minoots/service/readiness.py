"""Whether this installation can be worked with: Postgres answers, its schema is the one this code was written for."""

import asyncio

import structlog

from minoots.errors import ConfigError, StoreUnavailable
from minoots.settings import Environment
from minoots.store import installation
from minoots.store.database import Database
from minoots.store.migrate import newest_revision

log = structlog.get_logger("minoots.readiness")

RETRY_S = 0.5
NO_ANSWER = "the database does not answer"


class Readiness:
    """Asked by `/readyz`, and before a role starts."""

    def __init__(self, database: Database, env: Environment) -> None:
        self._db = database
        self._env = env
        self._revision = newest_revision()

    async def problems(self) -> list[str]:
        """What stands in the way, in sentences; empty when ready."""
        try:
            async with asyncio.timeout(3), self._db.connection() as connection:
                at = await installation.current_revision(self._db, connection)
                if at != self._revision:
                    return [_describe_revision(self._db.schema, at, self._revision)]
                if self._env == "production" and await installation.is_clock_replaced(self._db, connection):
                    return ["the function now() of the schema was replaced: production runs on the real clock only"]
        except TimeoutError:
            return [NO_ANSWER]
        except StoreUnavailable as away:
            return [away.detail if away.is_refusal else NO_ANSWER]
        return []

    async def wait(self) -> None:
        """Until Postgres answers; ConfigError when what it holds is not for this code."""
        is_told = False
        while True:
            found = await self.problems()
            if not found:
                return
            if found != [NO_ANSWER]:
                raise ConfigError(found[0])
            if not is_told:
                log.warning("start.waiting", reason=found[0])
                is_told = True
            await asyncio.sleep(RETRY_S)


def _describe_revision(schema: str, at: str | None, wanted: str) -> str:
    if at is None:
        return f"the schema {schema} is not there yet: run `minoots migrate` (or `alembic upgrade head`)"
    if at > wanted:
        return f"the schema {schema} is at revision {at}, newer than this version ({wanted}): install a newer one"
    return f"the schema {schema} is at revision {at}, this version needs {wanted}: run `minoots migrate`"
