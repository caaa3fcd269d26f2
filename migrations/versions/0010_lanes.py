"""Lanes: limits and breakers of destinations, and the index that deliveries are claimed by."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


LANES = [
    """create table minoots.lanes (
           tenant_id text not null,
           lane text not null,
           concurrency integer,
           rate_per_s double precision,
           limits_set_by text,
           allowed_at timestamptz,
           state text not null default 'closed',
           failures integer not null default 0,
           openings integer not null default 0,
           opened_at timestamptz,
           probe_at timestamptz,
           probe_lease_id uuid,
           reason text,
           updated_at timestamptz not null default minoots.now(),
           constraint lanes_pkey primary key (tenant_id, lane),
           constraint lanes_tenant_id check (tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_:@-]{0,127}$'),
           constraint lanes_lane check (char_length(lane) between 1 and 2100),
           constraint lanes_concurrency check (concurrency between 1 and 10000),
           constraint lanes_rate check (rate_per_s between 0.001 and 100000),
           constraint lanes_state check (state in ('closed', 'open', 'half_open')),
           constraint lanes_default check (lane <> '*' or (state = 'closed' and failures = 0)),
           constraint lanes_counts check (failures >= 0 and openings >= 0),
           constraint lanes_opened check (
               (opened_at is not null) = (state <> 'closed') and (probe_at is not null) = (state <> 'closed')),
           constraint lanes_probe check (probe_lease_id is null or state = 'half_open')
       ) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)""",
    "comment on table minoots.lanes is 'Destinations with limits or failures; a destination without a row has neither.'",
    "comment on column minoots.lanes.tenant_id is 'Whose it is.'",
    "comment on column minoots.lanes.lane is 'The destination, as deliveries name it; * is what the tenant''s other lanes have.'",
    "comment on column minoots.lanes.concurrency is 'How many deliveries may be under way at once, over all orchestrators; null: the default.'",
    "comment on column minoots.lanes.rate_per_s is 'How many attempts may begin in a second, over all orchestrators; null: no bound.'",
    "comment on column minoots.lanes.limits_set_by is 'Who set the limits.'",
    "comment on column minoots.lanes.allowed_at is 'By when the rate has made up for what was let through; null: long ago.'",
    "comment on column minoots.lanes.state is 'closed: all may go; open: none; half_open: one attempt tries it.'",
    "comment on column minoots.lanes.failures is 'How many attempts have failed in a row.'",
    "comment on column minoots.lanes.openings is 'How often it opened since it last worked.'",
    "comment on column minoots.lanes.opened_at is 'When it opened; null while it is closed.'",
    "comment on column minoots.lanes.probe_at is 'While open: when one attempt may try it; while half_open: when that attempt counts as lost.'",
    "comment on column minoots.lanes.probe_lease_id is 'The lease of the attempt that tries it.'",
    "comment on column minoots.lanes.reason is 'The last failure.'",
    "comment on column minoots.lanes.updated_at is 'When it last changed.'",
    """create function minoots.lane_json(l minoots.lanes) returns json language sql stable parallel safe
       return json_build_object(
           'tenantId', l.tenant_id, 'lane', l.lane, 'state', l.state, 'concurrency', l.concurrency,
           'ratePerS', l.rate_per_s, 'failures', l.failures, 'openedAt', minoots.iso(l.opened_at),
           'nextProbeAt', case when l.state = 'open' then minoots.iso(l.probe_at) end, 'reason', l.reason)""",
    "comment on function minoots.lane_json is 'A lane as REST, gRPC and the events show it, without what it holds.'",
]

# Claimed by lane: what one destination has waiting is never walked for another's sake.
CLAIM = [
    "alter table minoots.deliveries add column holds_place boolean not null default false",
    "comment on column minoots.deliveries.holds_place is 'Whether its lease counts against a limit that was set for its lane.'",
    "drop index minoots.deliveries_next",
    """create index deliveries_lane on minoots.deliveries (tenant_id, lane, next_attempt_at)
       where next_attempt_at is not null and status = 'pending'""",
    """create index deliveries_places on minoots.deliveries (tenant_id, lane)
       where holds_place and lease_id is not null""",
]


def upgrade() -> None:
    for statement in LANES + CLAIM:
        run(statement)


def downgrade() -> None:
    run("drop index minoots.deliveries_lane")
    run("create index deliveries_next on minoots.deliveries (next_attempt_at) where next_attempt_at is not null")
    run("alter table minoots.deliveries drop column holds_place")
    run("drop function minoots.lane_json")
    run("drop table minoots.lanes")
