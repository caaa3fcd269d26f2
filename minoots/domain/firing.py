"""A firing with its deliveries and their attempts, as every door shows them."""

from uuid import UUID

import msgspec


class Attempt(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One try, as it ended."""

    attempt: int
    started_at: str
    duration_ms: int | None
    outcome: str
    status_code: int | None
    error: str | None
    excerpt: str | None
    node: str | None


class Delivery(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One action of the firing, until it ends."""

    action_id: str
    kind: str
    status: str
    lane: str
    attempt_count: int
    next_attempt_at: str | None
    delivered_at: str | None
    dead_at: str | None
    dead_reason: str | None
    redrives: int
    escalated_from: str | None
    ack: msgspec.Raw
    attempts: list[Attempt] = msgspec.field(default_factory=list)


class Firing(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One coming-due. Lists leave `deliveries` out."""

    tenant_id: str
    timer_id: UUID
    occurrence: int
    status: str
    nominal_at: str
    due_at: str
    fired_at: str
    lateness_ms: float
    settled_at: str | None
    deliveries: list[Delivery] | msgspec.UnsetType = msgspec.UNSET
