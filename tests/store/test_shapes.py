"""The JSON that the schema writes is what the domain reads and what the design fixes."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from minoots.domain.firing import Attempt, Delivery, Firing
from minoots.domain.outcome import Answer, Retry
from minoots.domain.timer import Timer
from minoots.service.timers import Timers
from minoots.store import firings
from minoots.store.database import Database
from minoots.store.firings import START
from tests.support.life import LATER, attempt, fire, make_deliveries_due
from tests.support.rules import WHOLE
from tests.support.timers import Sql, bundle, webhook

# design.md, section 3, word for word.
DESIGN = {
    "timer": "id tenantId name requestedBy status durationMs createdAt fireAt firedAt settledAt cancelledAt "
    "cancelReason cancelledBy failureReason metadata labels actionBundle agentBinding schedule "
    "occurrence missed version",
    "firing": "tenantId timerId occurrence status nominalAt dueAt firedAt latenessMs settledAt deliveries",
    "delivery": "actionId kind status lane attemptCount nextAttemptAt deliveredAt deadAt deadReason redrives "
    "escalatedFrom ack attempts",
    "attempt": "attempt startedAt durationMs outcome statusCode error excerpt node",
}
STRUCTS: dict[str, type[msgspec.Struct]] = {"timer": Timer, "firing": Firing, "delivery": Delivery, "attempt": Attempt}
TABLES = {"timer": "timers", "firing": "firings", "delivery": "deliveries", "attempt": "attempts"}
# These come from tables of their own; the functions leave them out.
FROM_ELSEWHERE = {"firing": ["deliveries"], "delivery": ["attempts"]}


@pytest.fixture
async def lived(sql: Sql, database: Database) -> None:
    """One timer with a firing, a delivery and an attempt."""
    await sql.execute(
        "insert into minoots.timers (tenant_id, fire_at, action_bundle) values ('demo', minoots.now(), $1)",
        json.dumps(bundle(webhook("http://h/"))),
    )
    assert (await fire(database)).fired == 1
    await make_deliveries_due(sql)
    assert await attempt(database, Retry("HTTP 500", Answer(12, 500, "broken\n")), LATER) == 1


async def shown(sql: Sql, what: str) -> dict[str, Any]:
    return json.loads(await sql.fetchval(f"select minoots.{what}_json(x) from minoots.{TABLES[what]} x"))


@pytest.mark.parametrize("what", DESIGN)
def test_the_domain_has_the_fields_of_the_design(what: str) -> None:
    assert [field.encode_name for field in msgspec.structs.fields(STRUCTS[what])] == DESIGN[what].split()


# With an action and without, due later than asked for, with what has to be escaped, and with a trace.
VARIED = """
insert into minoots.timers (tenant_id, name, requested_by, created_at, fire_at, metadata, action_bundle, traceparent)
values ('demo', 'one', 'ann', minoots.now() - interval '1 h', minoots.now() - interval '1 m', null, $1, null),
       ('demo', 'two', 'ann', minoots.now() - interval '1 h', minoots.now() - interval '1 m',
        '{"a": ["\\""]}', null, null),
       ('demo:x', 'a "b" \\ ü', 'x"y', minoots.now(), minoots.now() - interval '1 h', '{}', $1,
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
"""


@pytest.mark.parametrize("way", ["claimed and fired in one", "claimed before"])
async def test_the_event_of_a_firing_is_what_the_rows_show(way: str, sql: Sql, database: Database) -> None:
    await sql.execute(VARIED, json.dumps(bundle(webhook("http://h/"))))
    if way == "claimed before":
        async with database.transaction() as connection:
            claimed = await firings.claim_due(database, connection, START, 10)
            assert await firings.fire_timers(database, connection, claimed) == 3
    else:
        assert (await fire(database)).fired == 3
    rows = await sql.fetch(
        """select o.data::text as told, t.name,
                  concat('{"timer" : ', minoots.timer_text(t), ', "firing" : ', minoots.firing_text(f), '}') as shown,
                  f.event_id = o.event_id and f.tenant_id = t.tenant_id and o.tenant_id = t.tenant_id
                      and o.traceparent is not distinct from t.traceparent as is_of_it
             from minoots.outbox o join minoots.timers t on t.id = o.timer_id
             join minoots.firings f on f.timer_id = o.timer_id and f.occurrence = t.occurrence
            where o.kind = 'timer.fired'"""
    )
    assert len(rows) == 3
    for row in rows:
        assert row["told"] == row["shown"]
        assert row["is_of_it"]
    late = {row["name"]: json.loads(row["told"])["firing"] for row in rows}
    assert late['a "b" \\ ü']["dueAt"] > late['a "b" \\ ü']["nominalAt"]
    assert (late["two"]["status"], late["two"]["settledAt"]) == ("settled", late["two"]["firedAt"])


@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize("what", DESIGN)
async def test_the_schema_writes_the_fields_of_the_design_in_their_order(what: str, sql: Sql) -> None:
    fields = [field for field in DESIGN[what].split() if field not in FROM_ELSEWHERE.get(what, [])]
    assert list(await shown(sql, what)) == fields


@pytest.mark.usefixtures("lived")
@pytest.mark.parametrize("what", DESIGN)
async def test_what_the_schema_writes_the_domain_reads_and_writes_the_same(what: str, sql: Sql) -> None:
    written = await shown(sql, what)
    decoded = msgspec.json.decode(json.dumps(written), type=STRUCTS[what])
    assert json.loads(msgspec.json.encode(decoded)) == written | ({"attempts": []} if what == "delivery" else {})


@pytest.mark.usefixtures("lived")
async def test_a_firing_is_shown_with_its_deliveries_and_attempts(sql: Sql, database: Database) -> None:
    timer_id = await sql.fetchval("select id from minoots.timers")
    firing = json.loads(msgspec.json.encode(await Timers(database).get_firing("demo", timer_id, 1)))
    assert list(firing) == DESIGN["firing"].split()
    (delivery,) = firing["deliveries"]
    assert list(delivery) == DESIGN["delivery"].split()
    (tried,) = delivery["attempts"]
    assert tried | {"startedAt": ""} == {
        "attempt": 1, "startedAt": "", "durationMs": 12, "outcome": "retry", "statusCode": 500, "error": "HTTP 500",
        "excerpt": "broken\n", "node": "here",
    }  # fmt: skip
    assert (delivery["status"], delivery["lane"], delivery["attemptCount"]) == ("pending", "http://h", 1)
    assert firing["latenessMs"] >= 0


@pytest.mark.usefixtures("lived")
async def test_lists_leave_the_deliveries_out(sql: Sql, database: Database) -> None:
    timer_id = await sql.fetchval("select id from minoots.timers")
    page = await Timers(database).list_firings("demo", timer_id, None, 10)
    (firing,) = json.loads(msgspec.json.encode(page.items))
    assert list(firing) == [field for field in DESIGN["firing"].split() if field != "deliveries"]


@pytest.mark.parametrize(
    ("instant", "written"),
    [
        (datetime(2030, 1, 31, 9, tzinfo=UTC), "2030-01-31T09:00:00.000000Z"),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), "1970-01-01T00:00:00.000001Z"),
        (datetime(8999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), "8999-12-31T23:59:59.999999Z"),
        (None, None),
    ],
)
async def test_instants_are_written_as_rfc_3339_in_utc(instant: datetime | None, written: str | None, sql: Sql) -> None:
    assert await sql.fetchval("select minoots.iso($1::timestamptz)", instant) == written


async def test_fields_without_a_value_are_null_and_never_missing(sql: Sql) -> None:
    await sql.execute("select minoots.schedule_timer('demo', fire_in => '1 h')")
    timer = await shown(sql, "timer")
    assert {name for name, value in timer.items() if value is None} == {
        "name", "firedAt", "settledAt", "cancelledAt", "cancelReason", "cancelledBy", "failureReason", "metadata",
        "actionBundle", "agentBinding", "schedule",
    }  # fmt: skip


async def test_the_whole_example_is_shown_as_it_was_written(sql: Sql) -> None:
    await sql.execute(
        "select minoots.schedule_timer('demo', $1, $2, fire_in => '1 h', metadata => $3, labels => $4, "
        "action_bundle => $5, agent_binding => $6)",
        WHOLE["name"],
        WHOLE["requestedBy"],
        *(json.dumps(WHOLE[name]) for name in ("metadata", "labels", "actionBundle", "agentBinding")),
    )
    assert {name: value for name, value in (await shown(sql, "timer")).items() if name in WHOLE} == WHOLE


@pytest.mark.parametrize(
    ("kind", "url", "lane"),
    [
        ("webhook", "HTTPS://Example.COM/x?y", "https://example.com"),
        ("webhook", "https://example.com:443/x", "https://example.com"),
        ("webhook", "http://example.com:80", "http://example.com"),
        ("webhook", "http://example.com:443/", "http://example.com:443"),
        ("webhook", "http://example.com:8080#x", "http://example.com:8080"),
        ("webhook", "http://[::1]:80/x", "http://[::1]"),
        ("acme.sms", "http://example.com", "acme.sms"),
    ],
)
async def test_a_lane_is_the_origin_of_a_webhook_else_the_kind(kind: str, url: str, lane: str, sql: Sql) -> None:
    assert await sql.fetchval("select minoots.lane_of($1, $2)", kind, json.dumps({"url": url})) == lane


@pytest.mark.parametrize(
    ("kind", "parameters", "lane"),
    [
        ("command", {"name": "backup"}, "command:backup"),
        ("command", {"name": "x" * 100}, "command:" + "x" * 63),
        ("command", {}, "command:"),
        ("agent_prompt", {"adapter": "mcp", "target": "HTTPS://Example.com:443/mcp#tool"}, "https://example.com"),
        ("agent_prompt", {"adapter": "mcp", "target": "http://example.com#tool"}, "http://example.com"),
        ("agent_prompt", {"adapter": "custom", "target": "nats:a.b"}, "agent:custom"),
        ("agent_prompt", {"adapter": "acme.crew", "target": "x"}, "agent:acme.crew"),
        ("agent_prompt", {}, "agent:unbound"),
        ("workflow_event", {"name": "a"}, "workflow"),
        ("workflow_event", {"name": "a", "endpoint": None}, "workflow"),
        ("workflow_event", {"name": "a", "endpoint": "HTTPS://Example.com:443/x"}, "https://example.com"),
    ],
)
async def test_each_command_agent_and_endpoint_of_events_is_a_lane(
    kind: str, parameters: dict[str, Any], lane: str, sql: Sql
) -> None:
    assert await sql.fetchval("select minoots.lane_of($1, $2)", kind, json.dumps(parameters)) == lane


async def test_a_redelivery_shows_the_timer_as_it_fired(sql: Sql, database: Database) -> None:
    """Every attempt sends the same body, whatever has happened to the timer since."""
    await sql.execute(
        "insert into minoots.timers (tenant_id, fire_at, action_bundle) values ('demo', minoots.now(), $1)",
        json.dumps(bundle(webhook("http://h/"))),
    )
    await fire(database)
    event = json.loads(await sql.fetchval("select data from minoots.outbox where kind = 'timer.fired'"))
    await sql.execute(
        "update minoots.timers set status = 'failed', settled_at = minoots.now(), failure_reason = 'x', version = 9, "
        "occurrence = 4"
    )
    await sql.execute("update minoots.firings set status = 'failed', settled_at = minoots.now(), open_deliveries = 0")
    again = await sql.fetchrow(
        "select minoots.timer_as_fired(t, f) as timer, minoots.firing_as_fired(f) as firing "
        "from minoots.timers t join minoots.firings f on f.timer_id = t.id"
    )
    assert {name: json.loads(again[name]) for name in ("timer", "firing")} == event
