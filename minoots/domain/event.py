"""The envelope of an event: CloudEvents 1.0, structured JSON."""

from uuid import UUID

import msgspec

TIMER_KINDS = ("scheduled", "rescheduled", "paused", "resumed", "cancelled", "fired", "missed", "settled", "failed")
DELIVERY_KINDS = ("delivered", "retrying", "dead", "escalated", "confirmed", "overdue")
LANE_KINDS = ("opened", "half_opened", "closed")
KINDS = tuple(
    f"{family}.{kind}"
    for family, kinds in (("timer", TIMER_KINDS), ("delivery", DELIVERY_KINDS), ("lane", LANE_KINDS))
    for kind in kinds
)
TYPE_PREFIX = "minoots."


def envelope(
    event_id: UUID, tenant_id: str, timer_id: UUID, kind: str, at: str, data: str, traceparent: str | None
) -> bytes:
    """The event as bytes. `data` is JSON text and goes in as it is; tenants, kinds and instants need no escaping."""
    trace = f'"traceparent":{msgspec.json.encode(traceparent).decode()},' if traceparent else ""
    return (
        f'{{"specversion":"1.0","id":"{event_id}","source":"/minoots/tenants/{tenant_id}",'
        f'"type":"{TYPE_PREFIX}{kind}","subject":"{timer_id}","time":"{at}",'
        f'"datacontenttype":"application/json",{trace}"data":{data}}}'
    ).encode()


class _Data(msgspec.Struct, omit_defaults=True):
    """Event data whose parts stay the text they are: a number in it may be more than a reader of JSON takes."""

    timer: dict[str, msgspec.Raw]
    firing: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    delivery: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reason: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    missed: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    truncated: bool = False


def cut(data: str) -> str:
    """`data` without what makes it large, marked `truncated`: for an event that NATS refuses for its size."""
    whole = msgspec.json.decode(data, type=_Data)
    for field in ("metadata", "actionBundle", "agentBinding"):
        if field in whole.timer:
            whole.timer[field] = msgspec.Raw(b"null")
    whole.truncated = True
    return msgspec.json.encode(whole).decode()


def bare(data: str) -> str:
    """Nothing of `data` but which timer it is, and what it missed: for where even the cut event is too large."""
    whole = msgspec.json.decode(data, type=_Data)
    timer = whole.timer
    kept: dict[str, msgspec.Raw] = {
        field: timer[field] for field in ("id", "tenantId", "status", "version") if field in timer
    }
    return msgspec.json.encode(_Data(timer=kept, missed=whole.missed, truncated=True)).decode()
