"""Errors as problem details (RFC 9457): one table from our errors to statuses, and what Litestar itself refuses."""

import re
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from minoots import errors
from minoots.errors import (
    AcknowledgementConflict,
    Finding,
    InvalidTimer,
    MalformedRequest,
    MinootsError,
    TimerStateConflict,
)
from minoots.rest.answers import HttpRequest

log = structlog.get_logger("minoots.rest")

PREFIX = "urn:minoots:problem:"
MEDIA_TYPE = "application/problem+json"

STATUS_OF: dict[type[MinootsError], int] = {
    errors.MalformedRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.TimerNotFound: 404,
    errors.FiringNotFound: 404,
    errors.DeliveryNotFound: 404,
    errors.SigningSecretNotFound: 404,
    errors.SigningSecretConflict: 409,
    errors.TimerStateConflict: 409,
    errors.AcknowledgementConflict: 409,
    errors.DeliveryStateConflict: 409,
    errors.NameTaken: 409,
    errors.StaleVersion: 412,
    errors.IdempotencyInFlight: 409,
    errors.EventsOff: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.IdempotencyMismatch: 422,
    errors.InvalidTimer: 422,
    errors.StoreUnavailable: 503,
    errors.BrokerUnavailable: 503,
    errors.TooManyFollow: 503,
    errors.ConfigError: 500,
    errors.EmbeddedError: 500,
}

_HEADERS: dict[type[MinootsError], dict[str, str]] = {
    errors.Unauthenticated: {"WWW-Authenticate": 'Bearer realm="minoots"'},
    errors.IdempotencyInFlight: {"Retry-After": "1"},
    errors.StoreUnavailable: {"Retry-After": "2"},
    errors.BrokerUnavailable: {"Retry-After": "2"},
    errors.TooManyFollow: {"Retry-After": "5"},
}

_ROUTING = {404: "route-not-found", 405: "method-not-allowed", 400: "malformed-request", 413: "body-too-large"}


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What went wrong. `type` is stable; `pointer` is the first of `errors`, which have an RFC 6901 pointer each."""

    type: str
    title: str
    status: int
    detail: str
    pointer: str | None = None
    errors: list[Finding] | None = None
    timer_status: str | None = msgspec.field(default=None, name="timerStatus")
    delivery_status: str | None = msgspec.field(default=None, name="deliveryStatus")


def exception_handlers() -> ExceptionHandlersMap:
    """For Litestar: ours, its own, and what nobody expected."""
    return {MinootsError: _known, HTTPException: _routing, Exception: _unexpected}


def problem_response(problem: Problem, headers: dict[str, str] | None = None) -> Response[bytes]:
    """The problem as an answer."""
    return Response(
        msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def problem_of(error: MinootsError) -> Problem:
    """The error in the words of RFC 9457."""
    name = kebab(type(error).__name__)
    problem = Problem(
        type=PREFIX + name,
        title=name.replace("-", " ").capitalize(),
        status=status_of(error),
        detail=error.detail,
    )
    if isinstance(error, InvalidTimer):
        problem.errors = list(error.findings)
        problem.pointer = error.findings[0].pointer if error.findings else None
    elif isinstance(error, MalformedRequest):
        problem.pointer = error.pointer
    elif isinstance(error, TimerStateConflict):
        problem.timer_status = error.status
    elif isinstance(error, AcknowledgementConflict):
        problem.delivery_status = error.status
    return problem


def status_of(error: MinootsError) -> int:
    """The status of the error, or of the nearest kind above it that has one."""
    return next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)


def kebab(name: str) -> str:
    """`TimerNotFound` as timer-not-found."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


def _known(request: HttpRequest, error: MinootsError) -> Response[bytes]:
    if status_of(error) == 500:
        return _unexpected(request, error)
    return problem_response(problem_of(error), _HEADERS.get(type(error)))


def _routing(request: HttpRequest, error: HTTPException) -> Response[bytes]:
    """What Litestar refuses before a handler of ours runs."""
    status = error.status_code
    if status >= 500:
        return _unexpected(request, error)
    title = HTTPStatus(status).phrase
    name = _ROUTING.get(status) or title.lower().replace(" ", "-")
    details = {
        404: "there is nothing at this path; /docs lists what there is",
        405: "this path has no such method; the header Allow lists those it has",
    }
    problem = Problem(type=PREFIX + name, title=title, status=status, detail=details.get(status, error.detail))
    return problem_response(problem, {key: value for key, value in (error.headers or {}).items() if key == "allow"})


def _unexpected(request: HttpRequest, error: Exception) -> Response[bytes]:
    """Our fault: told in the log, not to the caller."""
    route: Any = request.scope.get("path_template")
    log.error("rest.failed", method=request.scope["method"], route=route, exc_info=error)
    return problem_response(
        Problem(
            type=PREFIX + "internal-error",
            title="Internal server error",
            status=500,
            detail="something went wrong on the server's side; its log says what",
        )
    )
