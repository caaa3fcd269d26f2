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


def cut(data: str) -> str:
    """`data` without what makes it large, marked `truncated`: for an event that NATS refuses for its size."""
    whole = msgspec.json.decode(data)
    timer = whole.get("timer") or {}
    for field in ("metadata", "actionBundle", "agentBinding"):
        if field in timer:
            timer[field] = None
    return msgspec.json.encode({**whole, "timer": timer, "truncated": True}).decode()
