"""Timers that have ended, as the production code leaves them, and time that has passed since."""

import json
from uuid import UUID

from minoots.domain.outcome import Answer, Delivered, Outcome, Retry, Verdict
from minoots.store.database import Database
from tests.support.life import DEAD, DELIVERED, attempt, fire, make_deliveries_due
from tests.support.timers import Sql, bundle, insert_timers, webhook

CALL = bundle(webhook("http://127.0.0.1:9/"))
TABLES = ("timers", "firings", "deliveries", "attempts", "open_firings")


async def settle(sql: Sql, database: Database, many: int = 1) -> list[UUID]:
    """One-shot timers whose action was delivered."""
    made = await insert_timers(sql, many, actions=CALL)
    await _attempt_all(sql, database, many, Delivered(Answer(1, 200, "ok")), DELIVERED)
    return made


async def fail(sql: Sql, database: Database, many: int = 1) -> list[UUID]:
    """One-shot timers whose action is dead."""
    made = await insert_timers(sql, many, actions=CALL)
    await _attempt_all(sql, database, many, Retry("HTTP 500", Answer(1, 500)), DEAD)
    return made


async def cancel(sql: Sql) -> UUID:
    """A timer that was cancelled while it waited."""
    (made,) = await insert_timers(sql, 1, after_s=3600, actions=CALL)
    assert await sql.fetchval("select minoots.cancel_timer('demo', $1, 'ann')", made)
    return made


async def fire_only(sql: Sql, database: Database) -> UUID:
    """A timer without actions: it ends as fired."""
    (made,) = await insert_timers(sql, 1)
    await fire(database)
    return made


async def recur(sql: Sql, occurrences: int, status: str = "scheduled", firing: str = "settled") -> UUID:
    """A recurring timer with ended firings, each with a delivery and an attempt, one second apart until now."""
    is_failed = firing == "failed"
    timer_id = await sql.fetchval(
        """insert into minoots.timers (tenant_id, name, status, schedule, fire_at, occurrence, fired_at, settled_at,
                                       failure_reason, cancelled_at)
           select 'demo', 'every', $1, $2, minoots.now() + interval '30 years', $3, minoots.now(),
                  case when $1 in ('settled', 'failed') then minoots.now() end,
                  case when $1 = 'failed' then 'so' end, case when $1 = 'cancelled' then minoots.now() end
           returning id""",
        status,
        json.dumps({"every": "1s"}),
        occurrences,
    )
    await sql.execute(
        """insert into minoots.firings (tenant_id, timer_id, occurrence, status, nominal_at, due_at, fired_at,
                                        settled_at, dead_deliveries, timer_version, is_scheduled)
           select 'demo', $1, g, $3, at, at, at, at, $4, 1, true
             from (select g, minoots.now() - ($2 - g) * interval '1 s' as at from generate_series(1, $2::int) g) x""",
        timer_id,
        occurrences,
        firing,
        int(is_failed),
    )
    await sql.execute(
        """insert into minoots.deliveries (tenant_id, timer_id, occurrence, action_id, kind, lane, status, delivered_at,
                                           dead_at, dead_reason)
           select 'demo', timer_id, occurrence, 'call', 'webhook', 'http://h', $2,
                  case when $2 <> 'dead' then fired_at end, case when $2 = 'dead' then fired_at end,
                  case when $2 = 'dead' then 'HTTP 500' end
             from minoots.firings where timer_id = $1""",
        timer_id,
        "dead" if is_failed else "delivered",
    )
    await sql.execute(
        """insert into minoots.attempts (tenant_id, timer_id, occurrence, action_id, attempt, started_at, outcome)
           select 'demo', timer_id, occurrence, 'call', 1, fired_at, 'delivered' from minoots.firings
            where timer_id = $1""",
        timer_id,
    )
    return timer_id


async def pass_time(sql: Sql, interval: str) -> None:
    """Everything that has happened so far happened this much earlier."""
    await sql.execute(
        f"""update minoots.timers set created_at = created_at - interval '{interval}',
                fire_at = fire_at - interval '{interval}', fired_at = fired_at - interval '{interval}',
                settled_at = settled_at - interval '{interval}', cancelled_at = cancelled_at - interval '{interval}'"""
    )
    await sql.execute(
        f"""update minoots.firings set nominal_at = nominal_at - interval '{interval}',
                due_at = due_at - interval '{interval}', fired_at = fired_at - interval '{interval}',
                settled_at = settled_at - interval '{interval}'"""
    )


async def left(sql: Sql) -> dict[str, int]:
    """How many rows there are of each kind, where there are any."""
    counts = {table: await sql.fetchval(f"select count(*) from minoots.{table}") for table in TABLES}
    return {table: count for table, count in counts.items() if count}


async def _attempt_all(sql: Sql, database: Database, many: int, outcome: Outcome, verdict: Verdict) -> None:
    while (await fire(database)).claimed:
        pass
    written = 0
    while written < many:
        await make_deliveries_due(sql)
        written += await attempt(database, outcome, verdict)
