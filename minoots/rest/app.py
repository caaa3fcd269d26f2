"""Puts the REST application together."""

from collections.abc import Sequence
from typing import Protocol

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from minoots.access.keys import Keys
from minoots.rest.changes import ChangeRoutes
from minoots.rest.docs import DocsRoutes
from minoots.rest.firings import FiringRoutes
from minoots.rest.health import HealthRoutes, Readiness
from minoots.rest.observe import Observed
from minoots.rest.openapi import build_document
from minoots.rest.problems import exception_handlers
from minoots.rest.schedules import ScheduleRoutes
from minoots.rest.timers import TimerRoutes
from minoots.service.changes import TimerChanges
from minoots.service.timers import Timers


class Routes(Protocol):
    """Calls that belong together."""

    def handlers(self) -> list[HTTPRouteHandler]:
        """Each call under its path."""
        ...


def create_app(
    timers: Timers,
    changes: TimerChanges,
    keys: Keys,
    readiness: Readiness,
    public_url: str = "http://127.0.0.1:4000",
    registry: CollectorRegistry | None = None,
    further: Sequence[Routes] = (),
) -> Litestar:
    """The application. `public_url` is what the documentation's examples call; `registry` holds the metrics.

    Without a registry one is made that has the process's own metrics. `further` are the calls that go beyond timers, as
    `wiring.further_routes` has them.
    """
    metrics = process_registry() if registry is None else registry
    app = Litestar(
        [
            # First, for its OPTIONS come before those of Litestar.
            *ChangeRoutes(changes, keys).handlers(),
            *TimerRoutes(timers, keys).handlers(),
            *ScheduleRoutes(changes, keys).handlers(),
            *FiringRoutes(timers, keys).handlers(),
            *(handler for routes in further for handler in routes.handlers()),
            *HealthRoutes(readiness, metrics).handlers(),
            *DocsRoutes(build_document(), public_url).handlers(),
        ],
        # Litestar's own document cannot know bodies that are read as bytes; ours is made from the structs that do it.
        openapi_config=None,
        logging_config=None,
        exception_handlers=exception_handlers(),
        debug=False,
        pdb_on_exception=False,
    )
    app.asgi_handler = Observed(app.asgi_handler, metrics)
    return app


def process_registry() -> CollectorRegistry:
    """A registry with memory, CPU, open files and garbage collection of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
