"""Logging, set up once a process: readable lines on a terminal, JSON lines elsewhere, on standard error."""

import logging
import sys
from typing import TextIO, cast

import structlog

from minoots.settings import LogSettings


class _StandardError:
    """Standard error as it is when something is logged: who runs us in its own process may replace and close it.

    A line and its end come as one: several processes may share it.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(settings: LogSettings, role: str) -> None:
    """`role` is on every line. Standard library loggers below warning are left out."""
    as_json = settings.format == "json" or (settings.format == "auto" and not sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        # Plain traces: the pretty ones print local variables, and with them URLs with passwords.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S.%f", utc=as_json),
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _StandardError())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    # The client logs each failed reconnect with a trace; what is to be said of it, minoots.broker says.
    logging.getLogger("nats").setLevel(logging.CRITICAL)
