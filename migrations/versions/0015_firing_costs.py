"""What firing costs: instants made into text once for all that show them; vacuum and analyze where they are of use."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


# An event of a firing shows six instants, and they are three. Measured: 1.2 of 32 µs (120,000 timers with one webhook,
# batches of 500, in turns on one connection).
TEXTS = [
    """create function minoots.timer_text(t minoots.timers, fire_at text, fired_at text) returns text
       language sql stable parallel safe
       return concat(
           '{"id" : "', t.id, '", "tenantId" : "', t.tenant_id,
           '", "name" : ', coalesce(to_json(t.name), 'null'),
           ', "requestedBy" : ', coalesce(to_json(t.requested_by), 'null'),
           ', "status" : "', t.status,
           '", "durationMs" : ', coalesce(t.duration_ms::text, 'null'),
           ', "createdAt" : ', minoots.iso_json(t.created_at), ', "fireAt" : ', fire_at, ', "firedAt" : ', fired_at,
           -- a timer that has not ended has none of these
           case when num_nulls(t.settled_at, t.cancelled_at, t.cancel_reason, t.cancelled_by, t.failure_reason) = 5
                then ', "settledAt" : null, "cancelledAt" : null, "cancelReason" : null, "cancelledBy" : null, "failureReason" : null'
                else concat(', "settledAt" : ', minoots.iso_json(t.settled_at),
                            ', "cancelledAt" : ', minoots.iso_json(t.cancelled_at),
                            ', "cancelReason" : ', coalesce(to_json(t.cancel_reason), 'null'),
                            ', "cancelledBy" : ', coalesce(to_json(t.cancelled_by), 'null'),
                            ', "failureReason" : ', coalesce(to_json(t.failure_reason), 'null')) end,
           ', "metadata" : ', coalesce(t.metadata::jsonb, 'null'), ', "labels" : ', coalesce(t.labels::jsonb, 'null'),
           ', "actionBundle" : ', coalesce(t.action_bundle::jsonb, 'null'),
           ', "agentBinding" : ', coalesce(t.agent_binding::jsonb, 'null'),
           ', "schedule" : ', coalesce(t.schedule::jsonb, 'null'),
           ', "occurrence" : ', t.occurrence, ', "missed" : ', t.missed, ', "version" : ', t.version, '}')""",
    """comment on function minoots.timer_text(minoots.timers, text, text) is
       'A timer as REST, gRPC and the events show it, as text, its instants made into JSON already: the one place of its shape.'""",
    """create or replace function minoots.timer_text(t minoots.timers) returns text language sql stable parallel safe
       return minoots.timer_text(t, minoots.iso_json(t.fire_at), minoots.iso_json(t.fired_at))""",
    """comment on function minoots.timer_text(minoots.timers) is
       'A timer as REST, gRPC and the events show it, as text.'""",
    """create function minoots.firing_text(tenant_id text, timer_id uuid, occurrence integer, status text,
                                           nominal_at text, due_at text, fired_at text, lateness interval,
                                           settled_at text) returns text
       language sql stable parallel safe
       return concat(
           '{"tenantId" : ', to_json(tenant_id), ', "timerId" : "', timer_id, '", "occurrence" : ', occurrence,
           ', "status" : "', status,
           '", "nominalAt" : ', nominal_at, ', "dueAt" : ', due_at, ', "firedAt" : ', fired_at,
           ', "latenessMs" : ', round(extract(epoch from lateness) * 1000, 3), ', "settledAt" : ', settled_at, '}')""",
    """comment on function minoots.firing_text(text, uuid, integer, text, text, text, text, interval, text) is
       'A firing as REST, gRPC and the events show it, without its deliveries, as text, its instants made into JSON already: the one place of its shape.'""",
    """create or replace function minoots.firing_text(f minoots.firings) returns text language sql stable parallel safe
       return minoots.firing_text(
           f.tenant_id, f.timer_id, f.occurrence, f.status, minoots.iso_json(f.nominal_at), minoots.iso_json(f.due_at),
           minoots.iso_json(f.fired_at), f.fired_at - f.due_at, minoots.iso_json(f.settled_at))""",
    """comment on function minoots.firing_text(minoots.firings) is
       'A firing as REST, gRPC and the events show it, without its deliveries, as text.'""",
]

FORMER = [
    """create or replace function minoots.timer_text(t minoots.timers) returns text language sql stable parallel safe
       return concat(
           '{"id" : "', t.id, '", "tenantId" : "', t.tenant_id,
           '", "name" : ', coalesce(to_json(t.name), 'null'),
           ', "requestedBy" : ', coalesce(to_json(t.requested_by), 'null'),
           ', "status" : "', t.status,
           '", "durationMs" : ', coalesce(t.duration_ms::text, 'null'),
           ', "createdAt" : ', minoots.iso_json(t.created_at), ', "fireAt" : ', minoots.iso_json(t.fire_at),
           ', "firedAt" : ', minoots.iso_json(t.fired_at),
           -- a timer that has not ended has none of these
           case when num_nulls(t.settled_at, t.cancelled_at, t.cancel_reason, t.cancelled_by, t.failure_reason) = 5
                then ', "settledAt" : null, "cancelledAt" : null, "cancelReason" : null, "cancelledBy" : null, "failureReason" : null'
                else concat(', "settledAt" : ', minoots.iso_json(t.settled_at),
                            ', "cancelledAt" : ', minoots.iso_json(t.cancelled_at),
                            ', "cancelReason" : ', coalesce(to_json(t.cancel_reason), 'null'),
                            ', "cancelledBy" : ', coalesce(to_json(t.cancelled_by), 'null'),
                            ', "failureReason" : ', coalesce(to_json(t.failure_reason), 'null')) end,
           ', "metadata" : ', coalesce(t.metadata::jsonb, 'null'), ', "labels" : ', coalesce(t.labels::jsonb, 'null'),
           ', "actionBundle" : ', coalesce(t.action_bundle::jsonb, 'null'),
           ', "agentBinding" : ', coalesce(t.agent_binding::jsonb, 'null'),
           ', "schedule" : ', coalesce(t.schedule::jsonb, 'null'),
           ', "occurrence" : ', t.occurrence, ', "missed" : ', t.missed, ', "version" : ', t.version, '}')""",
    """comment on function minoots.timer_text(minoots.timers) is
       'A timer as REST, gRPC and the events show it, as text: this is the one place of its shape.'""",
    "drop function minoots.timer_text(minoots.timers, text, text)",
    """create or replace function minoots.firing_text(f minoots.firings) returns text language sql stable parallel safe
       return concat(
           '{"tenantId" : ', to_json(f.tenant_id), ', "timerId" : "', f.timer_id, '", "occurrence" : ', f.occurrence,
           ', "status" : "', f.status,
           '", "nominalAt" : ', minoots.iso_json(f.nominal_at), ', "dueAt" : ', minoots.iso_json(f.due_at),
           ', "firedAt" : ', minoots.iso_json(f.fired_at),
           ', "latenessMs" : ', round(extract(epoch from f.fired_at - f.due_at) * 1000, 3),
           ', "settledAt" : ', minoots.iso_json(f.settled_at), '}')""",
    """comment on function minoots.firing_text(minoots.firings) is
       'A firing as REST, gRPC and the events show it, without its deliveries, as text: the one place of its shape.'""",
    "drop function minoots.firing_text(text, uuid, integer, text, text, text, text, interval, text)",
]

# Vacuum of what was only inserted: firings and deliveries are changed soon after, and their dead rows bring it; a young
# table would have it at each look. The outbox is a queue: what stands in it when it is analyzed is no measure of
# anything, and its statements go by its key. Timers are analyzed by 2 of 100 that changed, which is a tenth of all that
# fires at 1,000/s; 10 of 100 are enough for plans that do not change.
SETTINGS = {
    "outbox": "autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000",
    "firings": "autovacuum_vacuum_insert_threshold = 100000",
    "deliveries": "autovacuum_vacuum_insert_threshold = 100000",
    "attempts": "autovacuum_vacuum_insert_threshold = 100000",
    "timers": "autovacuum_analyze_scale_factor = 0.1",
}
FORMER_SETTINGS = {
    "outbox": "reset (autovacuum_vacuum_insert_threshold, autovacuum_analyze_threshold)",
    "firings": "reset (autovacuum_vacuum_insert_threshold)",
    "deliveries": "reset (autovacuum_vacuum_insert_threshold)",
    "attempts": "reset (autovacuum_vacuum_insert_threshold)",
    # both, so that they stand in their former order
    "timers": "set (autovacuum_analyze_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1)",
}


def upgrade() -> None:
    for statement in TEXTS:
        run(statement)
    for table, settings in SETTINGS.items():
        run(f"alter table minoots.{table} set ({settings})")


def downgrade() -> None:
    for table, change in FORMER_SETTINGS.items():
        run(f"alter table minoots.{table} {change}")
    for statement in FORMER:
        run(statement)
