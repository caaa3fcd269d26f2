"""What a receiver says about its work: done, failed or still working; and what that means for its delivery."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec

from minoots.domain.json_text import nesting
from minoots.domain.limits import ACK_RESULT_BYTES, JSON_DEPTH, REASON_CHARACTERS, YEAR_MS
from minoots.domain.moment import NOTHING
from minoots.domain.timer import json_text
from minoots.errors import AcknowledgementConflict, InvalidTimer

AckOutcome = Literal["done", "failed", "working"]
OUTCOMES: tuple[str, ...] = get_args(AckOutcome)

# What is to be done with the row: `keep` for the attempt under way to apply, `note` for people to see, others at once.
AckStep = Literal["repeat", "keep", "note", "confirm", "fail", "extend", "await"]


class AckRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a receiver says. `extendMs` belongs to `working`: how long it needs from now on."""

    tenant_id: str | None = None
    outcome: AckOutcome
    note: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS)] | None = None
    result: msgspec.Raw = NOTHING
    extend_ms: Annotated[int, msgspec.Meta(ge=1, le=YEAR_MS)] | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A request that keeps the rules. `result` is JSON text."""

    outcome: AckOutcome
    note: str | None
    result: str | None
    extend_ms: int | None


@dataclass(frozen=True, slots=True)
class AckState:
    """A delivery as an acknowledgement finds it. `is_same`: it has this result already, or this one brings none."""

    status: str
    is_expected: bool
    was_sent: bool
    is_under_way: bool
    outcome: str | None
    is_same: bool


def admit_ack(request: AckRequest) -> Acknowledgement:
    """Apply the rules; raises InvalidTimer."""
    result = json_text(request.result)
    if request.extend_ms is not None and request.outcome != "working":
        raise InvalidTimer.at("/extendMs", "extendMs goes with the outcome working: what has ended needs no more time")
    if result is not None:
        if len(result.encode()) > ACK_RESULT_BYTES:
            raise InvalidTimer.at("/result", f"a result is at most {ACK_RESULT_BYTES // 1024} KiB; keep it elsewhere")
        if nesting(result.encode()) > JSON_DEPTH:
            raise InvalidTimer.at("/result", f"the JSON is nested deeper than {JSON_DEPTH} levels")
    return Acknowledgement(request.outcome, request.note, result, request.extend_ms)


def judge_ack(found: AckState, said: Acknowledgement) -> AckStep:
    """What an acknowledgement means where it finds the delivery; raises AcknowledgementConflict.

    What was said last of this attempt holds: a repetition changes nothing, what contradicts it is refused. A new
    attempt may end otherwise than the one before, so its beginning forgets what was said (but `done` is the end).
    """
    if not found.is_expected and found.was_sent:
        raise AcknowledgementConflict(
            found.status, "this delivery waits for no acknowledgement: its action has no acknowledgementTimeoutMs"
        )
    if found.outcome in ("done", "failed"):
        if found.outcome == said.outcome and found.is_same:
            return "repeat"
        how = "with another result" if found.outcome == said.outcome else f"as {found.outcome}"
        raise AcknowledgementConflict(found.status, f"this delivery was acknowledged already, {how}, and that holds")
    if found.status == "dead":
        raise AcknowledgementConflict(found.status, "this delivery has given up; once it is redriven it can be done")
    if not found.was_sent:
        raise AcknowledgementConflict(found.status, "this delivery was not sent yet: there is nothing to acknowledge")
    if found.status not in ("pending", "awaiting"):
        raise AcknowledgementConflict(found.status, f"this delivery is {found.status}: nothing is awaited any more")
    if found.is_under_way:
        return "keep"
    return (_AWAITING if found.status == "awaiting" else _BETWEEN_ATTEMPTS)[said.outcome]


_AWAITING: dict[AckOutcome, AckStep] = {"done": "confirm", "failed": "fail", "working": "extend"}
# The attempt was recorded as failed (the answer was lost, perhaps), but the receiver has it after all.
_BETWEEN_ATTEMPTS: dict[AckOutcome, AckStep] = {"done": "confirm", "failed": "note", "working": "await"}
