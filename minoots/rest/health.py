"""Whether the process lives, whether it can work, and its numbers. None of these needs a key."""

from typing import Protocol

from litestar import Response
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from minoots.rest.answers import Answer, HttpRequest, json_answer
from minoots.rest.problems import PREFIX, Problem, problem_response


class Readiness(Protocol):
    """Knows what keeps this process from working."""

    async def problems(self) -> list[str]:
        """A sentence for each thing that is missing; none when requests can be served."""
        ...


class HealthRoutes:
    """For probes and scrapers."""

    def __init__(self, readiness: Readiness, registry: CollectorRegistry) -> None:
        self._readiness = readiness
        self._registry = registry

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        return [
            HTTPRouteHandler("/healthz", http_method=["GET", "HEAD"])(self.healthz),
            HTTPRouteHandler("/readyz", http_method=["GET", "HEAD"])(self.readyz),
            HTTPRouteHandler("/metrics", http_method=["GET", "HEAD"])(self.metrics),
        ]

    async def healthz(self, request: HttpRequest) -> Answer:
        """The process answers; nothing else is asked."""
        return json_answer({"status": "ok"})

    async def readyz(self, request: HttpRequest) -> Response[bytes]:
        """Whether to send requests here."""
        missing = await self._readiness.problems()
        if not missing:
            return Response(b'{"status":"ready"}', media_type="application/json", headers={"Cache-Control": "no-store"})
        problem = Problem(type=PREFIX + "not-ready", title="Not ready", status=503, detail="; ".join(missing))
        return problem_response(problem, {"Retry-After": "2"})

    async def metrics(self, request: HttpRequest) -> Answer:
        """The process's metrics in Prometheus' text format."""
        kind = CONTENT_TYPE_PLAIN_0_0_4.encode()
        return Answer(generate_latest(self._registry), 200, ((b"content-type", kind),))
