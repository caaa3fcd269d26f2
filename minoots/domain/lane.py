"""A lane as every door shows it, and what may be set for one."""

from typing import Annotated

import msgspec

from minoots.domain.timer import Name

CONCURRENCY_MOST = 10_000
RATE_LEAST = 0.001
RATE_MOST = 100_000
LANE_CHARACTERS = 2_100
# The row of a tenant that says what its other lanes have.
DEFAULT_LANE = "*"


class Lane(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """One destination of a tenant. `concurrency` and `rate_per_s` are what was set; null is the default.

    `waiting` is what is due and has not begun, counted up to a bound; `under_way` what has begun.
    """

    tenant_id: str
    lane: str
    state: str
    concurrency: int | None
    rate_per_s: float | None = msgspec.field(name="ratePerS")
    waiting: int
    under_way: int
    failures: int
    opened_at: str | None
    next_probe_at: str | None
    reason: str | None


class LimitsRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Limits of a lane; without `lane` those of the tenant's lanes that have none of their own. Null is no limit."""

    tenant_id: str | None = None
    lane: Annotated[str, msgspec.Meta(min_length=1, max_length=LANE_CHARACTERS)] | None = None
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=CONCURRENCY_MOST)] | None = None
    rate_per_s: Annotated[float, msgspec.Meta(ge=RATE_LEAST, le=RATE_MOST)] | None = msgspec.field(
        name="ratePerS", default=None
    )
    requested_by: Name | None = None
