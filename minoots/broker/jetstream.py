"""The connection to NATS and the stream of events; makes the stream again whenever it is missing."""

import asyncio
import contextlib
import ssl
from typing import Any

import nats
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import BadRequestError, NotFoundError

from minoots.errors import BrokerUnavailable, ConfigError
from minoots.settings import BrokerSettings

log = structlog.get_logger("minoots.broker")

MAX_AGE_S = 72 * 3600
DUPLICATE_WINDOW_S = 120


class Broker:
    """One connection to NATS, kept up in the background: being without it is normal, and said once.

    `is_connected` says how it is; `js` raises BrokerUnavailable while it is away.
    """

    def __init__(self, settings: BrokerSettings, name: str) -> None:
        if settings.url is None:
            raise ConfigError("set NATS_URL to the NATS that carries the events, or turn them off: minoots events off")
        self._servers = [server.strip() for server in settings.url.split(",")]
        self._name = name
        self.subject = settings.subject
        self.stream = settings.stream
        self._max_bytes = settings.max_bytes
        self.client = Client()
        self._js: JetStreamContext | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._was_away = False
        self._is_closing = False
        self._is_refused = False
        self._has_fitted = False

    async def __aenter__(self) -> "Broker":
        self._connecting = asyncio.create_task(self._connect(), name="broker-connect")
        # Most often NATS is there: give it a moment, so that a start without it is the exception and not the rule.
        await asyncio.wait([self._connecting], timeout=2)
        if self._connecting.done():
            self._connecting.result()
        elif self._is_refused:
            raise ConfigError("NATS refuses the credentials in NATS_URL")
        else:
            await self._on_away()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_closing = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        # One that never was connected cannot be closed.
        if self._js is not None and not self.client.is_closed:
            # Closing a connection that is gone already has nothing to say.
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self.client.close()

    @property
    def is_connected(self) -> bool:
        """Whether NATS answers at this moment; a server that is gone is noticed within seconds."""
        return self._js is not None and self.client.is_connected

    @property
    def js(self) -> JetStreamContext:
        """JetStream; raises BrokerUnavailable while NATS is away."""
        if self._js is None or not self.client.is_connected:
            raise BrokerUnavailable
        return self._js

    async def _connect(self) -> None:
        """Until it worked once; from then on the client reconnects by itself."""
        while True:
            # A new one each time: a client that could not connect keeps half of its state.
            client = Client()
            try:
                await client.connect(
                    self._servers,
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.25,  # type: ignore[arg-type]  # seconds, used as any number
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    drain_timeout=5,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_away,
                    reconnected_cb=self._on_back,
                    closed_cb=self._on_closed,
                )
            except (OSError, TimeoutError, ssl.SSLError, nats.errors.Error):
                await self._on_away()
                await asyncio.sleep(0.5)
            else:
                self.client = client
                self._js = client.jetstream(timeout=2)
                await self._on_back()
                return

    async def _on_error(self, error: Exception) -> None:
        if "authorization" in str(error).lower() and not self._is_refused:
            self._is_refused = True
            log.error("broker.refused", note="NATS refuses the credentials in NATS_URL")
        log.debug("broker.error", error=type(error).__name__)

    async def _on_closed(self) -> None:
        """The client gives up for good at most errors that a server can say; this process does not."""
        if self._is_closing or self._js is None:
            return
        self._js = None
        await self._on_away()
        self._connecting = asyncio.create_task(self._connect(), name="broker-connect")

    async def _on_away(self) -> None:
        if not self._was_away and not self._is_closing:
            self._was_away = True
            log.warning("broker.away", note="NATS does not answer; events wait in the outbox, deliveries go on")

    async def _on_back(self) -> None:
        log.info("broker.connected" if not self._was_away else "broker.back")
        self._was_away = self._is_refused = False

    async def stream_info(self) -> StreamInfo:
        """The stream as it is; NotFoundError when it is missing."""
        return await self.js.stream_info(self.stream)

    async def ensure_stream(self) -> StreamInfo:
        """Make the stream, or bring ours to the settings; ConfigError when one of that name is something else."""
        wanted = StreamConfig(
            name=self.stream,
            description="Lifecycle events of MINOOTS",
            subjects=[f"{self.subject}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=MAX_AGE_S,
            max_bytes=self._max_bytes,
            discard=DiscardPolicy.OLD,
            duplicate_window=DUPLICATE_WINDOW_S,
        )
        try:
            info = await self.stream_info()
        except NotFoundError:
            info = await self._add(wanted)
        if misfits := _misfits(info, wanted):
            raise self._unfit(
                f"the NATS stream {self.stream} does not fit: {'; '.join(misfits)}. "
                "Remove it, or set another NATS_SUBJECT and MINOOTS_SCHEMA"
            )
        self._has_fitted = True
        config = info.config
        if (config.max_age, config.max_bytes, config.duplicate_window) != (
            wanted.max_age,
            wanted.max_bytes,
            wanted.duplicate_window,
        ):
            config.max_age, config.max_bytes = wanted.max_age, wanted.max_bytes
            config.duplicate_window = wanted.duplicate_window
            return await self.js.update_stream(config)
        return info

    async def _add(self, wanted: StreamConfig) -> StreamInfo:
        try:
            info = await self.js.add_stream(wanted)
        except BadRequestError as refused:
            # Another process may have been first; a stream of another name may hold the subject.
            try:
                return await self.stream_info()
            except NotFoundError:
                what = f"NATS refuses the stream {self.stream} on {self.subject}.>: {refused.description}"
                raise self._unfit(what) from None
        log.info("broker.stream_made", stream=self.stream)
        return info

    def _unfit(self, what: str) -> ConfigError | BrokerUnavailable:
        """At the start a mistake in the set-up; later something that came between, and may go again: firing goes on."""
        return BrokerUnavailable(what) if self._has_fitted else ConfigError(what)


def _misfits(info: StreamInfo, wanted: StreamConfig) -> list[str]:
    config = info.config
    rows: list[tuple[str, Any, Any]] = [
        ("subjects", sorted(config.subjects or []), sorted(wanted.subjects or [])),
        ("retention", config.retention, wanted.retention),
        ("storage", config.storage, wanted.storage),
        ("discard", config.discard, wanted.discard),
    ]
    return [
        f"its {name} is {_word(is_)} and must be {_word(must)}" for name, is_, must in rows if _word(is_) != _word(must)
    ]


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return str(getattr(value, "value", value))
