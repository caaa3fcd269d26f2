"""Errors as gRPC statuses: one table from our errors to codes, with the details of google.rpc beside the sentence."""

import re
from collections.abc import Sequence

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from minoots import errors
from minoots.errors import (
    AcknowledgementConflict,
    Finding,
    InvalidTimer,
    MalformedRequest,
    MinootsError,
    TimerStateConflict,
)

DOMAIN = "minoots"

STATUS_OF: dict[type[MinootsError], grpc.StatusCode] = {
    errors.MalformedRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.TimerNotFound: grpc.StatusCode.NOT_FOUND,
    errors.FiringNotFound: grpc.StatusCode.NOT_FOUND,
    errors.DeliveryNotFound: grpc.StatusCode.NOT_FOUND,
    errors.SigningSecretNotFound: grpc.StatusCode.NOT_FOUND,
    errors.SigningSecretConflict: grpc.StatusCode.ALREADY_EXISTS,
    errors.TimerStateConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AcknowledgementConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.DeliveryStateConflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.StaleVersion: grpc.StatusCode.ABORTED,
    errors.IdempotencyInFlight: grpc.StatusCode.ABORTED,
    errors.IdempotencyMismatch: grpc.StatusCode.INVALID_ARGUMENT,
    errors.EventsOff: grpc.StatusCode.FAILED_PRECONDITION,
    # As gRPC itself answers a message that is too large.
    errors.BodyTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.UnsupportedMedia: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidTimer: grpc.StatusCode.INVALID_ARGUMENT,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.StoreUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.BrokerUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.TooManyFollow: grpc.StatusCode.UNAVAILABLE,
    # What was asked is not there in this installation: only its operator can change that.
    errors.ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EmbeddedError: grpc.StatusCode.INTERNAL,
}

# A status travels in metadata, of which clients take 8 KiB in all; the sentence is in it twice, once percent-encoded.
_TEXT_BYTES = 600
_FINDINGS_BYTES = 2_000

_RETRY_S = {errors.IdempotencyInFlight: 1, errors.StoreUnavailable: 2, errors.BrokerUnavailable: 2}


def status_of(error: MinootsError) -> grpc.Status:
    """Code, sentence, and as details an ErrorInfo (`TIMER_NOT_FOUND`), a BadRequest's findings, a RetryInfo.

    An error of a kind that is new here has the code of the kind it is derived from.
    """
    code = next(STATUS_OF[kind] for kind in (*type(error).__mro__, errors.EmbeddedError) if kind in STATUS_OF)
    made = Status(code=code.value[0], message=_clip(error.detail))
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        made.details.append(packed)
    status: grpc.Status = rpc_status.to_status(made)
    return status


def _details(error: MinootsError) -> list[Message]:
    info = ErrorInfo(reason=_screaming(type(error).__name__), domain=DOMAIN)
    details: list[Message] = [info]
    if isinstance(error, TimerStateConflict | AcknowledgementConflict):
        info.metadata["status"] = error.status
    if isinstance(error, InvalidTimer):
        details.append(_bad_request(error.findings))
    elif isinstance(error, MalformedRequest) and error.pointer is not None:
        details.append(_bad_request([Finding(error.pointer, error.detail)]))
    if wait := _RETRY_S.get(type(error)):
        retry = RetryInfo()
        retry.retry_delay.seconds = wait
        details.append(retry)
    return details


def _bad_request(findings: Sequence[Finding]) -> BadRequest:
    """As many findings as there is room for; the first always."""
    made = BadRequest()
    for finding in findings:
        made.field_violations.add(field=_clip(finding.pointer), description=_clip(finding.detail))
        if made.ByteSize() > _FINDINGS_BYTES:
            break
    return made


def _clip(text: str) -> str:
    """What a caller sent may be in it, and metadata has little room."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= _TEXT_BYTES else encoded[: _TEXT_BYTES - 3].decode(errors="ignore") + "…"


def _screaming(name: str) -> str:
    """`TimerNotFound` as TIMER_NOT_FOUND."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
