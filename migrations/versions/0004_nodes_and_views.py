"""Nodes, and the views that answer an operator's first questions."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


NODES = [
    """create table minoots.nodes (
           node text not null,
           role text not null check (role in ('api', 'grpc', 'kernel', 'relay', 'orchestrator')),
           version text not null,
           started_at timestamptz not null default minoots.now(),
           last_seen_at timestamptz not null default minoots.now(),
           primary key (node, role))""",
    "comment on table minoots.nodes is 'The processes at work, and those that were until a day ago.'",
    "comment on column minoots.nodes.node is 'host:pid and a random part: one process.'",
    "comment on column minoots.nodes.role is 'What it does: api, grpc, kernel, relay, orchestrator.'",
    "comment on column minoots.nodes.version is 'The version of MINOOTS it runs.'",
    "comment on column minoots.nodes.started_at is 'When it started.'",
    "comment on column minoots.nodes.last_seen_at is 'When it last said that it is there.'",
]

VIEWS = [
    """create view minoots.timer_overview as
       select tenant_id, status, count(*) as timers, min(due_at) as next_due_at, min(created_at) as oldest_created_at,
              count(*) filter (where due_at < minoots.now()) as overdue
         from minoots.timers group by tenant_id, status order by tenant_id, status""",
    "comment on view minoots.timer_overview is 'How many timers there are, by tenant and status, and what is overdue.'",
    """create view minoots.due_soon as
       select due_at, due_at - minoots.now() as due_in, tenant_id, id, name, requested_by
         from minoots.timers where due_at < minoots.now() + interval '1 hour' order by due_at, id""",
    "comment on view minoots.due_soon is 'What fires within the hour, the next first; a negative due_in is late.'",
    """create view minoots.dead_letters as
       select d.tenant_id, d.timer_id, d.occurrence, d.action_id, d.kind, d.lane, d.dead_reason, d.dead_at, d.attempt_count,
              a.status_code as last_status_code, a.error as last_error
         from minoots.deliveries d
         left join minoots.attempts a on a.timer_id = d.timer_id and a.occurrence = d.occurrence
              and a.action_id = d.action_id and a.attempt = d.attempt_count
        where d.dead_at is not null order by d.dead_at desc""",
    "comment on view minoots.dead_letters is 'Deliveries that gave up, the latest first, with how the last attempt ended.'",
    """create view minoots.lateness as
       with late as (
           select date_trunc('minute', fired_at) as minute, extract(epoch from fired_at - due_at) * 1000 as ms
             from minoots.firings where fired_at > minoots.now() - interval '1 hour')
       select minute, count(*) as fired,
              round(percentile_cont(0.5) within group (order by ms)::numeric, 2) as p50_ms,
              round(percentile_cont(0.95) within group (order by ms)::numeric, 2) as p95_ms,
              round(percentile_cont(0.99) within group (order by ms)::numeric, 2) as p99_ms,
              round(max(ms)::numeric, 2) as max_ms
         from late group by minute order by minute desc""",
    "comment on view minoots.lateness is 'How late timers fired, minute by minute in the last hour: fired minus due, in milliseconds.'",
]


def upgrade() -> None:
    for statement in (*NODES, *VIEWS):
        run(statement)


def downgrade() -> None:
    for view in ("lateness", "dead_letters", "due_soon", "timer_overview"):
        run(f"drop view minoots.{view}")
    run("drop table minoots.nodes")
