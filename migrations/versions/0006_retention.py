"""Retention: how long what ended is kept, and the ways to what is past it."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def run(statement: str) -> None:
    """Statements are written for the schema `minoots`; the installation's own name is put in its place."""
    schema = op.get_context().version_table_schema
    op.execute(sa.text(statement.replace("minoots.", f'"{schema}".').replace(":", r"\:")))


RULES = [
    """create table minoots.retention (
           tenant_id text not null,
           status text not null,
           keep interval,
           constraint retention_pkey primary key (tenant_id, status),
           constraint retention_tenant_id check (tenant_id = '*' or tenant_id ~ '^[A-Za-z0-9][A-Za-z0-9_:@-]{0,127}$'),
           constraint retention_status check (status in ('settled', 'failed', 'cancelled', 'fired')),
           constraint retention_keep check (keep between interval '1 second' and interval '100 years'))""",
    """comment on table minoots.retention is
       'How long ended timers and firings are kept, for those who want another time than MINOOTS_RETENTION says: a tenant''s row comes first, then the row of the tenant *, then the setting (settled, fired and cancelled 30 days, failed 90 days unless set). `minoots retention show` says what is in force; kernels look again within a minute.'""",
    "comment on column minoots.retention.tenant_id is 'Whose; * is every tenant without a row of its own.'",
    "comment on column minoots.retention.status is 'What ended as settled, failed, cancelled, or fired (a timer without actions).'",
    "comment on column minoots.retention.keep is 'How long after its end it is kept, 1 second to 100 years; null: for ever.'",
]

TIMERS = [
    # Generated and null for a timer that settles or fails by its firing, so that settling touches no indexed column and
    # stays HOT.
    """alter table minoots.timers add column retained_from timestamptz generated always as (
           case when status = 'cancelled' then cancelled_at
                when status in ('settled', 'failed') and (schedule is not null or fired_at is null) then settled_at end) stored""",
    "create index timers_retained on minoots.timers (retained_from, id) where retained_from is not null",
    """comment on column minoots.timers.retained_from is
       'From when its retention counts where no firing tells: cancelled, failed before it fired, or the end of a recurring timer. Follows by itself.'""",
    # A plan of an empty table, or one with old statistics, must not read whole tables for the few rows that go.
    """alter function minoots.forget_timers() set enable_seqscan = off""",
    """alter function minoots.forget_timers() set enable_hashjoin = off""",
    """alter function minoots.forget_timers() set enable_mergejoin = off""",
]

# A block range index knows the oldest row that a range ever had: where pruning makes room and new firings take it, every
# range seems to reach from the beginning to today. Firings of a batch share their instant, so the tree costs 6 bytes a row.
FIRINGS = [
    "drop index minoots.firings_by_instant",
    "create index firings_by_instant on minoots.firings (fired_at)",
]


def upgrade() -> None:
    for statement in (*RULES, *TIMERS, *FIRINGS):
        run(statement)


def downgrade() -> None:
    run("drop index minoots.firings_by_instant")
    run("create index firings_by_instant on minoots.firings using brin (fired_at) with (autosummarize = on)")
    run("alter function minoots.forget_timers() reset all")
    run("drop index minoots.timers_retained")
    run("alter table minoots.timers drop column retained_from")
    run("drop table minoots.retention")
