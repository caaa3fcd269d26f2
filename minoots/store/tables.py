"""The tables as SQLAlchemy knows them: for the statements it builds, and to hold against the migrated schema."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON, JSONB, UUID

metadata = sa.MetaData(schema="minoots")

_INSTANT = sa.DateTime(timezone=True)
_NOW = sa.text("minoots.now()")

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("only_row", sa.Boolean, primary_key=True, server_default=sa.true()),
    sa.Column("events", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
)

timers = sa.Table(
    "timers",
    metadata,
    sa.Column("id", UUID, primary_key=True, server_default=sa.text("minoots.uuid7()")),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("name", sa.Text),
    sa.Column("requested_by", sa.Text, nullable=False, server_default=sa.text("current_user")),
    sa.Column("status", sa.Text, nullable=False, server_default="scheduled"),
    sa.Column("duration_ms", sa.BigInteger),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Column("fire_at", _INSTANT),
    sa.Column("fired_at", _INSTANT),
    sa.Column("settled_at", _INSTANT),
    sa.Column("cancelled_at", _INSTANT),
    sa.Column("cancel_reason", sa.Text),
    sa.Column("cancelled_by", sa.Text),
    sa.Column("failure_reason", sa.Text),
    sa.Column("metadata", JSONB),
    sa.Column("labels", JSONB, nullable=False, server_default="{}"),
    sa.Column("action_bundle", JSONB),
    sa.Column("agent_binding", JSONB),
    sa.Column("occurrence", sa.Integer, nullable=False, server_default="0"),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("traceparent", sa.Text),
    sa.Column("schedule", JSONB),
    sa.Column("not_before", _INSTANT),
    sa.Column("planned", sa.ARRAY(_INSTANT), nullable=False, server_default="{}"),
    sa.Column("planned_to", _INSTANT),
    sa.Column("plan_ends", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("jitter_ms", sa.Integer, nullable=False, server_default="0"),
    sa.Column("is_held", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("skip_to", _INSTANT),
    sa.Column("planned_for", sa.BigInteger),
    sa.Column("extra_firings", sa.Integer, nullable=False, server_default="0"),
    sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
    sa.Column("missed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("is_named", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column(
        "due_at",
        _INSTANT,
        sa.Computed(
            "case when status = 'scheduled' and fire_at is not null and not is_held "
            "then greatest(fire_at, created_at, not_before) end",
            persisted=True,
        ),
    ),
    sa.Column(
        "attention",
        sa.Text,
        sa.Computed(
            "case when schedule is null or status not in ('scheduled', 'paused') then null "
            "when extra_firings > 0 then 'extra' when status = 'paused' then null "
            "when fire_at is not null and jsonb_hash_extended(schedule, 0) is distinct from planned_for then 'changed' "
            "when is_held then 'held' "
            "when fire_at is null then case when plan_ends then 'ending' else 'unplanned' end end",
            persisted=True,
        ),
    ),
    sa.Column(
        "unique_name",
        sa.Text,
        sa.Computed("case when is_named and status in ('scheduled', 'paused') then name end", persisted=True),
    ),
    sa.Column(
        "retained_from",
        _INSTANT,
        sa.Computed(
            "case when status = 'cancelled' then cancelled_at when status in ('settled', 'failed') "
            "and (schedule is not null or fired_at is null) then settled_at end",
            persisted=True,
        ),
    ),
    sa.Index("timers_retained", "retained_from", "id", postgresql_where=sa.text("retained_from is not null")),
    sa.Index("timers_attention", "attention", "id", postgresql_where=sa.text("attention is not null")),
    sa.Index(
        "timers_unique_name",
        "tenant_id",
        "unique_name",
        unique=True,
        postgresql_where=sa.text("unique_name is not null"),
    ),
    sa.Index("timers_due", "due_at", "id", postgresql_where=sa.text("due_at is not null")),
    sa.Index("timers_by_tenant", "tenant_id", "id"),
)

firings = sa.Table(
    "firings",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("timer_id", UUID, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("status", sa.Text, nullable=False, server_default="dispatching"),
    sa.Column("nominal_at", _INSTANT, nullable=False),
    sa.Column("due_at", _INSTANT, nullable=False),
    sa.Column("fired_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Column("settled_at", _INSTANT),
    sa.Column("open_deliveries", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("dead_deliveries", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("timer_version", sa.BigInteger, nullable=False),
    sa.Column("event_id", UUID, nullable=False, server_default=sa.text("minoots.uuid7()")),
    sa.Column("is_scheduled", sa.Boolean),
    sa.Column("timer_shown", JSON),
    sa.Index("firings_nominal", "timer_id", "nominal_at", unique=True, postgresql_where=sa.text("is_scheduled")),
    sa.Index("firings_by_instant", "fired_at"),
)

open_firings = sa.Table(
    "open_firings",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("timer_id", UUID, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("timer_id", UUID, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("position", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("lane", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    sa.Column("gate", sa.SmallInteger),
    sa.Column("next_attempt_at", _INSTANT),
    sa.Column("lease_id", UUID),
    sa.Column("leased_by", sa.Text),
    sa.Column("leased_at", _INSTANT),
    sa.Column("attempt_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("unknown_count", sa.Integer, nullable=False, server_default="0"),
    sa.Column("delivered_at", _INSTANT),
    sa.Column("dead_at", _INSTANT),
    sa.Column("dead_reason", sa.Text),
    sa.Column("redrives", sa.Integer, nullable=False, server_default="0"),
    sa.Column("escalated_from", sa.Text),
    sa.Column("opened_at", _INSTANT),
    sa.Column("charged_before", sa.Integer),
    sa.Column("unknown_before", sa.Integer),
    sa.Column("escalated_at", _INSTANT),
    sa.Column("ack_timeout_ms", sa.BigInteger),
    sa.Column("ack_outcome", sa.Text),
    sa.Column("ack_note", sa.Text),
    sa.Column("ack_result", JSONB),
    sa.Column("ack_at", _INSTANT),
    sa.Column("ack_deadline_at", _INSTANT),
    sa.Column("holds_place", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index(
        "deliveries_lane",
        "tenant_id",
        "lane",
        "next_attempt_at",
        postgresql_where=sa.text("next_attempt_at is not null and status = 'pending'"),
    ),
    sa.Index(
        "deliveries_places", "tenant_id", "lane", postgresql_where=sa.text("holds_place and lease_id is not null")
    ),
    sa.Index("deliveries_awaited", "next_attempt_at", postgresql_where=sa.text("status in ('awaiting', 'overdue')")),
    sa.Index("deliveries_dead", "tenant_id", "dead_at", postgresql_where=sa.text("dead_at is not null")),
)

lanes = sa.Table(
    "lanes",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("lane", sa.Text, primary_key=True),
    sa.Column("concurrency", sa.Integer),
    sa.Column("rate_per_s", sa.Double),
    sa.Column("limits_set_by", sa.Text),
    sa.Column("allowed_at", _INSTANT),
    sa.Column("state", sa.Text, nullable=False, server_default="closed"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("openings", sa.Integer, nullable=False, server_default="0"),
    sa.Column("opened_at", _INSTANT),
    sa.Column("probe_at", _INSTANT),
    sa.Column("probe_lease_id", UUID),
    sa.Column("reason", sa.Text),
    sa.Column("updated_at", _INSTANT, nullable=False, server_default=_NOW),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("timer_id", UUID, primary_key=True),
    sa.Column("occurrence", sa.Integer, primary_key=True),
    sa.Column("action_id", sa.Text, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("started_at", _INSTANT, nullable=False),
    sa.Column("duration_ms", sa.Integer),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("excerpt", sa.Text),
    sa.Column("node", sa.Text),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column(
        "shard", sa.SmallInteger, sa.Computed("get_byte(uuid_send(timer_id), 15) % 8", persisted=True), primary_key=True
    ),
    sa.Column("id", sa.BigInteger, sa.Identity(always=True, cache=1), primary_key=True),
    sa.Column("event_id", UUID, nullable=False, server_default=sa.text("minoots.uuid7()")),
    sa.Column("tenant_id", sa.Text, nullable=False),
    sa.Column("timer_id", UUID, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Column("traceparent", sa.Text),
    sa.Column("data", JSON, nullable=False),
)

outbox_shards = sa.Table(
    "outbox_shards", metadata, sa.Column("shard", sa.SmallInteger, primary_key=True, autoincrement=False)
)

tenants = sa.Table(
    "tenants",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Index("idempotency_keys_by_age", "created_at"),
)

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Column("last_seen_at", _INSTANT, nullable=False, server_default=_NOW),
)

signing_secrets = sa.Table(
    "signing_secrets",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("secret_id", UUID, primary_key=True, server_default=sa.text("minoots.uuid7()")),
    sa.Column("destination", sa.Text),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("created_at", _INSTANT, nullable=False, server_default=_NOW),
    sa.Column("expires_at", _INSTANT),
    sa.Column("tenant_until", _INSTANT),
    sa.Column("created_by", sa.Text, nullable=False, server_default=sa.text("current_user")),
    sa.Index(
        "signing_secrets_current",
        "tenant_id",
        "destination",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("expires_at is null"),
    ),
    sa.Index("signing_secrets_by_destination", "tenant_id", "destination"),
    sa.Index("signing_secrets_ending", "expires_at", postgresql_where=sa.text("expires_at is not null")),
)

retention = sa.Table(
    "retention",
    metadata,
    sa.Column("tenant_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, primary_key=True),
    sa.Column("keep", sa.Interval),
)
