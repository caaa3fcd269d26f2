"""The rules around an acknowledgement's transaction."""

from uuid import UUID

import uuid_utils

from minoots.domain.ack import Acknowledgement, judge_ack
from minoots.domain.firing import Delivery
from minoots.domain.outcome import Heard, Verdict
from minoots.errors import DeliveryNotFound
from minoots.store import acks
from minoots.store.acks import AckLease
from minoots.store.database import Connection, Database
from minoots.store.deliveries import DeliveryKey
from minoots.store.results import Result, record_results

CONFIRMED = Verdict("confirmed")


class Acknowledgements:
    """What receivers say about their work."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def acknowledge(self, tenant_id: str | None, key: DeliveryKey, said: Acknowledgement) -> Delivery:
        """Take it, and answer the delivery as it is then. `tenant_id` is None for who has the delivery's own token.

        Raises DeliveryNotFound, AcknowledgementConflict, and InvalidTimer for a result that Postgres cannot keep.
        """

        async def write() -> Delivery:
            async with self._db.guarded(lock="5s") as connection:
                return await self._write(connection, tenant_id, key, said)

        return await self._db.repeat(write)

    async def _write(
        self, connection: Connection, tenant_id: str | None, key: DeliveryKey, said: Acknowledgement
    ) -> Delivery:
        if not await acks.lock_firing(self._db, connection, key, tenant_id):
            raise DeliveryNotFound
        found = await acks.find_state(self._db, connection, key, said)
        if found is None:
            raise DeliveryNotFound
        step = judge_ack(found, said)
        if step != "repeat":
            lease_id = UUID(int=uuid_utils.uuid7().int) if step == "confirm" else None
            await acks.write_ack(self._db, connection, key, said, step, lease_id)
            if lease_id is not None:
                result = Result(AckLease(key, lease_id), Heard(), CONFIRMED)
                await record_results(self._db, connection, [result])
        return await acks.get_delivery(self._db, connection, key)
