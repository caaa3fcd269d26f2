"""Many timers in one body, each read and admitted by itself, so that every finding has its place."""

import asyncio
from dataclasses import dataclass

import msgspec

from minoots.domain.json_text import check_bounds, describe_mismatch, read_json
from minoots.domain.limits import BATCH_TIMERS, BODY_BYTES
from minoots.domain.moment import NOTHING
from minoots.domain.timer import Name, NewTimer, TimerRequest, admit
from minoots.errors import Finding, InvalidTimer, MalformedRequest
from minoots.service.plans import beside

FINDINGS_SHOWN = 20
# Reading 10,000 timers takes a good part of a second; other requests are let in between so many.
_AT_ONCE = 200


class BatchRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The outside of a batch. What items leave out of `requestedBy` is taken from here."""

    tenant_id: str | None = None
    requested_by: Name | None = None
    items: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Batch:
    """What was asked: new timers in their order, and every tenant that was named, with the first place that did."""

    tenants: list[tuple[str, str | None]]
    new: list[NewTimer]


async def read_batch(body: bytes, traceparent: str | None) -> Batch:
    """Raises MalformedRequest, or InvalidTimer with the first 20 findings below /items."""
    outside = _read_outside(body)
    places: dict[str, str] = {}
    if outside.tenant_id:
        places[outside.tenant_id] = "the body's tenantId"
    new: list[NewTimer] = []
    findings: list[Finding] = []
    known: set[str] = set()
    for index, raw in enumerate(outside.items):
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        try:
            wanted = _read_item(bytes(raw))
            if wanted.requested_by is None:
                wanted.requested_by = outside.requested_by
            if wanted.tenant_id:
                places.setdefault(wanted.tenant_id, f"items/{index}/tenantId")
            new.append(await beside(wanted.schedule is not NOTHING, admit, wanted, traceparent, known))
        except InvalidTimer as refused:
            findings += refused.below(f"/items/{index}").findings
            if len(findings) >= FINDINGS_SHOWN:
                break
    if findings:
        raise InvalidTimer(findings[:FINDINGS_SHOWN])
    return Batch([(where, tenant) for tenant, where in places.items()], new)


def _read_outside(body: bytes) -> BatchRequest:
    """The items stay bytes: the bounds of JSON are looked at item by item, as if each had come alone."""
    try:
        outside = msgspec.json.decode(body, type=BatchRequest)
    except msgspec.ValidationError as mismatch:
        raise InvalidTimer([describe_mismatch(str(mismatch))]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise MalformedRequest(f"the body is no valid JSON: {broken}") from None
    if not 1 <= len(outside.items) <= BATCH_TIMERS:
        raise InvalidTimer.at("/items", f"a batch has 1 to {BATCH_TIMERS:,} items")
    check_bounds(msgspec.json.encode([outside.tenant_id, outside.requested_by]))
    return outside


def _read_item(raw: bytes) -> TimerRequest:
    if len(raw) > BODY_BYTES:
        raise InvalidTimer.at("", f"one timer is at most {BODY_BYTES // 1024} KiB")
    return read_json(raw, TimerRequest)
