"""Counts and times each request, and tells of it in the log at debug level. Names routes, never tenants or keys."""

import time
from collections.abc import Callable
from functools import lru_cache

import structlog
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram

log = structlog.get_logger("minoots.rest")

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Observed:
    """The application, observed from outside, so that refusals of the router count as well."""

    def __init__(self, inner: ASGIApp, registry: CollectorRegistry) -> None:
        self._inner = inner
        labels = ("method", "route", "status")
        requests = Counter("minoots_http_requests_total", "Requests answered.", labels, registry=registry)
        seconds = Histogram(
            "minoots_http_request_seconds",
            "Seconds from a request's head to its answer.",
            labels,
            registry=registry,
            buckets=_BUCKETS,
        )

        # Methods, routes and statuses are few; their names stay few where a client makes up its own.
        @lru_cache(maxsize=4096)
        def note(method: str, route: str, status: int) -> Callable[[float], None]:
            named = (method if method in _METHODS else "other", route.replace(":str}", "}"), str(status))
            count, observe = requests.labels(*named).inc, seconds.labels(*named).observe

            def both(took: float) -> None:
                count()
                observe(took)

            return both

        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._inner(scope, receive, noted)
        finally:
            took = time.perf_counter() - started
            method, route = str(scope.get("method", "")), str(scope.get("path_template") or "unmatched")
            self._note(method, route, status)(took)
            log.debug("rest.answered", method=method, route=route, status=status, ms=round(took * 1000, 2))
