"""Which process this is, and its sign of life in the table of nodes."""

import os
import secrets
import socket
from collections.abc import Sequence

import minoots
from minoots.store import installation
from minoots.store.database import Database

BEAT_EVERY_S = 10.0


def node_name() -> str:
    """`host:pid:random`: a name that no restart shares."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"


class Heartbeat:
    """Says every ten seconds that this process is there, once a role."""

    def __init__(self, database: Database, node: str, roles: Sequence[str]) -> None:
        self._db = database
        self._node = node
        self._roles = roles

    async def tick(self) -> float:
        """Seconds until the next sign of life."""
        async with self._db.connection() as connection:
            for role in self._roles:
                await installation.beat(self._db, connection, self._node, role, minoots.__version__)
        return BEAT_EVERY_S
