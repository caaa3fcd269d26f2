"""The four views answer an operator's first questions."""

import json
from datetime import timedelta

from minoots.domain.outcome import Answer, Delivered, Rejected, Retry
from minoots.store.database import Database
from tests.support.life import DEAD, DELIVERED, LATER, attempt, fire, make_deliveries_due
from tests.support.timers import Sql, bundle, insert_timers, webhook


async def test_timer_overview_counts_by_tenant_and_status(sql: Sql, database: Database) -> None:
    await insert_timers(sql, 2, after_s=-5)
    assert (await fire(database)).fired == 2
    await insert_timers(sql, 3, after_s=-5)
    await insert_timers(sql, 4, after_s=3600)
    await sql.execute("select minoots.schedule_timer('acme', fire_in => '1 h')")
    rows = [dict(row) for row in await sql.fetch("select * from minoots.timer_overview")]
    shown = [(row["tenant_id"], row["status"], row["timers"], row["overdue"]) for row in rows]
    assert shown == [("acme", "scheduled", 1, 0), ("demo", "fired", 2, 0), ("demo", "scheduled", 7, 3)]
    assert rows[1]["next_due_at"] is None
    assert rows[2]["next_due_at"] == await sql.fetchval("select min(due_at) from minoots.timers")


async def test_due_soon_shows_what_fires_within_the_hour_and_what_is_late(sql: Sql) -> None:
    await insert_timers(sql, 1, after_s=3000)
    await insert_timers(sql, 1, after_s=-60)
    await insert_timers(sql, 1, after_s=3700)
    await sql.execute("update minoots.timers set created_at = fire_at where fire_at < minoots.now()")
    rows = await sql.fetch("select * from minoots.due_soon")
    assert len(rows) == 2
    assert rows[0]["due_in"] < timedelta(seconds=-59)
    assert timedelta(seconds=2900) < rows[1]["due_in"] <= timedelta(seconds=3000)


async def test_dead_letters_show_what_gave_up_and_how_it_ended(sql: Sql, database: Database) -> None:
    actions = bundle(webhook("http://h:9/x"))
    for outcome, verdict in (
        (Retry("HTTP 500", Answer(3, 500, "no")), DEAD),
        (Delivered(Answer(3, 200)), DELIVERED),
        (Retry("HTTP 500", Answer(3, 500)), LATER),
    ):
        (timer_id,) = await insert_timers(sql, 1, actions=actions)
        await fire(database)
        await sql.execute("update minoots.deliveries set next_attempt_at = minoots.now() where timer_id = $1", timer_id)
        assert await attempt(database, outcome, verdict) == 1
    (row,) = await sql.fetch("select * from minoots.dead_letters")
    assert (row["tenant_id"], row["action_id"], row["occurrence"]) == ("demo", "call", 1)
    assert (row["lane"], row["dead_reason"]) == ("http://h:9", DEAD.reason)
    assert (row["attempt_count"], row["last_status_code"], row["last_error"]) == (1, 500, "HTTP 500")


async def test_dead_letters_show_the_latest_first(sql: Sql, database: Database) -> None:
    for action in ("first", "second"):
        await insert_timers(sql, 1, actions=bundle(webhook("http://h/", action)))
        await fire(database)
        await make_deliveries_due(sql)
        await attempt(database, Rejected("HTTP 410", Answer()), DEAD)
    assert [row["action_id"] for row in await sql.fetch("select * from minoots.dead_letters")] == ["second", "first"]


async def test_lateness_tells_minute_by_minute_how_late_timers_fired(sql: Sql, database: Database) -> None:
    await insert_timers(sql, 20)
    assert (await fire(database)).fired == 20
    await sql.execute("update minoots.firings set due_at = fired_at - interval '250 ms'")
    rows = await sql.fetch("select * from minoots.lateness")
    assert sum(row["fired"] for row in rows) == 20
    for row in rows:
        assert [float(row[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")] == [250.0] * 4
    await sql.execute(
        "update minoots.firings set due_at = due_at - interval '2 h', fired_at = fired_at - interval '2 h'"
    )
    assert await sql.fetch("select * from minoots.lateness") == []


async def test_the_tables_read_well_without_a_view(sql: Sql) -> None:
    await sql.execute(
        "select minoots.schedule_timer('demo', 'tea', fire_in => '3 min', metadata => $1)", json.dumps({"a": 1})
    )
    row = await sql.fetchrow("select * from minoots.timers")
    assert list(row.keys())[:4] == ["id", "tenant_id", "name", "requested_by"]
    assert row["due_at"] == row["fire_at"] == row["created_at"] + timedelta(minutes=3)
