"""The stream of workflow events, apart from MINOOTS' own: made when it is missing, published to with an answer."""

from collections.abc import Mapping

import structlog
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError, BadRequestError, NoStreamResponseError, NotFoundError

from minoots.broker.jetstream import Broker
from minoots.errors import BrokerUnavailable
from minoots.settings import WorkflowSettings

log = structlog.get_logger("minoots.broker")

MAX_AGE_S = 72 * 3600
# Within it a repetition is dropped by NATS: longer than a lost answer and a few tries take, yet every id costs memory.
DUPLICATE_WINDOW_S = 600
PUBLISH_S = 5.0
# JetStream's error code for a message that is over the limit of the stream.
_TOO_LARGE = 10054


class TooLarge(Exception):
    """NATS takes no message of this size."""


class WorkflowStream:
    """Publishes over the connection that is there."""

    def __init__(self, broker: Broker, settings: WorkflowSettings) -> None:
        self._broker = broker
        self._settings = settings
        self._is_fitted = False

    async def publish(
        self, tenant_id: str, name: str, body: bytes, message_id: str | None, headers: Mapping[str, str]
    ) -> None:
        """Return when JetStream has it; repeated under its id it is no second message.

        Raises BrokerUnavailable and TooLarge. A stream that somebody removed is made again: what it kept is gone, and
        what comes is not.
        """
        headers = {**headers, "Nats-Msg-Id": message_id} if message_id is not None else headers
        subject = f"{self._settings.subject}.{tenant_id}.{name}"
        try:
            if not self._is_fitted:
                await self._fit()
            try:
                await self._send(subject, body, headers)
            except NoStreamResponseError:
                await self._fit()
                await self._send(subject, body, headers)
        except MaxPayloadError:
            raise TooLarge from None
        except APIError as refused:
            if refused.err_code == _TOO_LARGE:
                raise TooLarge from None
            raise BrokerUnavailable(f"JetStream refuses it: {refused.description or refused.code}") from refused
        except (NatsError, OSError, TimeoutError) as away:
            raise BrokerUnavailable(f"JetStream does not answer: {type(away).__name__}") from away
        except (ValueError, TypeError, KeyError) as foreign:
            raise BrokerUnavailable(f"what answers on {subject} is not JetStream") from foreign

    async def _send(self, subject: str, body: bytes, headers: Mapping[str, str]) -> None:
        # The stream is named, so that no other one with these subjects takes it.
        stream = self._settings.stream
        await self._broker.js.publish(subject, body, timeout=PUBLISH_S, stream=stream, headers=dict(headers))

    async def _fit(self) -> None:
        """Make the stream if it is missing; of one that is there only its size is brought to the setting."""
        try:
            info = await self._broker.js.stream_info(self._settings.stream)
        except NotFoundError:
            await self._make()
        else:
            if info.config.max_bytes != self._settings.max_bytes:
                info.config.max_bytes = self._settings.max_bytes
                await self._broker.js.update_stream(info.config)
        self._is_fitted = True

    async def _make(self) -> None:
        settings = self._settings
        wanted = StreamConfig(
            name=settings.stream,
            description="Workflow events of MINOOTS",
            subjects=[f"{settings.subject}.>"],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            max_age=MAX_AGE_S,
            max_bytes=settings.max_bytes,
            discard=DiscardPolicy.OLD,
            duplicate_window=DUPLICATE_WINDOW_S,
        )
        try:
            await self._broker.js.add_stream(wanted)
        except BadRequestError:
            # Another process was first; or another stream has the subjects, and then there is still none of this name.
            try:
                await self._broker.js.stream_info(settings.stream)
            except NotFoundError:
                raise BrokerUnavailable(f"another NATS stream holds {settings.subject}.>; remove it") from None
            return
        log.info("broker.stream_made", stream=settings.stream)
