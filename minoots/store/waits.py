"""The statement that looks which of many timers have ended."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from minoots.domain.timer import Timer
from minoots.store.database import Connection, Database

_timer = msgspec.json.Decoder(Timer)

# Only what has ended, or is gone, comes back; a timer that fired and has nothing to do has ended with that.
_ENDED = """
select asked.nth, case when t.id is not null then minoots.timer_json(t)::text end
  from unnest($1::text[], $2::uuid[]) with ordinality as asked(tenant_id, id, nth)
  left join minoots.timers t on t.id = asked.id and t.tenant_id = asked.tenant_id
 where t.id is null
    or t.status in ('settled', 'failed', 'cancelled')
    or (t.status = 'fired' and t.agent_binding is null
        and coalesce(jsonb_array_length(t.action_bundle -> 'actions'), 0) = 0)
"""


async def find_ended(
    db: Database, connection: Connection, asked: Sequence[tuple[str, UUID]]
) -> list[tuple[tuple[str, UUID], Timer | None]]:
    """Of these timers, by tenant and id, those that have ended, as they are; None for one that is not there."""
    rows = await connection.fetch(db.sql(_ENDED), [tenant for tenant, _ in asked], [timer for _, timer in asked])
    return [(asked[row[0] - 1], None if row[1] is None else _timer.decode(row[1])) for row in rows]
