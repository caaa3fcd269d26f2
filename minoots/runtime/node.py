"""Which process this is, and its sign of life in the table of nodes."""

import os
import secrets
import socket
from collections.abc import Sequence

import structlog

import minoots
from minoots.clock import Clock
from minoots.runtime.loop import Loop
from minoots.store import installation
from minoots.store.database import Database

log = structlog.get_logger("minoots.node")

BEAT_EVERY_S = 10.0
STUCK_S = 90.0


def node_name() -> str:
    """`host:pid:random`: a name that no restart shares."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Heartbeat:
    """Says every ten seconds that this process is there, once a role.

    It is silent while one of the process's loops has not had a good round for a minute: `last_seen_at` in the table of
    nodes is when everything in it was last at work.
    """

    def __init__(
        self, database: Database, clock: Clock, node: str, roles: Sequence[str], loops: Sequence[Loop]
    ) -> None:
        self._db = database
        self._clock = clock
        self._node = node
        self._roles = roles
        self._loops = loops

    async def tick(self) -> float:
        """Seconds until the next sign of life."""
        stuck = [loop.name for loop in self._loops if self._clock.monotonic() - loop.last_good_s > STUCK_S]
        if stuck:
            log.warning("node.stuck", loops=" ".join(stuck))
            return BEAT_EVERY_S
        async with self._db.connection() as connection:
            for role in self._roles:
                await installation.beat(self._db, connection, self._node, role, minoots.__version__)
        return BEAT_EVERY_S
