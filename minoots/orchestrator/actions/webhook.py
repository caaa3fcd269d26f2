"""The webhook: one HTTP request, whose answer is the outcome. Redirects are never followed."""

import asyncio
import errno
import os
import ssl
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver
from yarl import URL

from minoots.domain.limits import ACTION_TIMEOUT_MS
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.domain.signing import origin_of
from minoots.domain.target import Targets
from minoots.orchestrator.actions.answer import excerpt_of, failure_of, read_after, read_answer, read_directive
from minoots.orchestrator.actions.connect import CONNECT_S, DNS_KEPT_S, NotResolved, TargetRefused, open_session
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.intake import DEFAULT_TIMEOUT_MS
from minoots.orchestrator.signing import CannotSign, Signer

URLS_REMEMBERED = 2_048


class WebhookParameters(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """As stored; the rules were applied when the timer was made. `body` stays the bytes that Postgres writes."""

    url: str
    method: str | None = None
    headers: dict[str, str] | None = None
    body: msgspec.Raw = msgspec.Raw(b"")
    timeout_ms: float | None = None
    accept_directives: bool | None = None


_parameters = msgspec.json.Decoder(WebhookParameters)


class Reply:
    """What has come of an answer so far; a failure in the middle of it is told with that."""

    __slots__ = ("began", "body", "status")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.status: int | None = None
        self.body = bytearray()

    def answer(self) -> Answer:
        return Answer(round((time.monotonic() - self.began) * 1000), self.status, excerpt_of(bytes(self.body)))


class WebhookRunner:
    """Sends webhooks over one pool of connections. Use as an async context manager."""

    def __init__(
        self,
        connections: int,
        targets: Targets,
        resolver: AbstractResolver | None = None,
        dns_kept_s: int = DNS_KEPT_S,
        signer: Signer | None = None,
    ) -> None:
        self._connections = connections
        self._targets = targets
        self._resolver = resolver
        self._dns_kept_s = dns_kept_s
        self._signer = signer
        self._session: aiohttp.ClientSession | None = None
        self._url = lru_cache(URLS_REMEMBERED)(self._read_url)
        self._origin = lru_cache(URLS_REMEMBERED)(origin_of)

    async def __aenter__(self) -> "WebhookRunner":
        self._session = open_session(self._targets, self._connections, self._resolver, self._dns_kept_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For other kinds that speak HTTP: the same pool, the same checks."""
        assert self._session is not None, "the runner is not open"
        return self._session

    def refusal_of(self, url: str) -> Outcome | None:
        """What comes of a URL that may not be called, for who calls by `session`. Names are checked when dialled."""
        read = self._url(url)
        return None if isinstance(read, URL) else read

    async def run(self, request: ActionRequest) -> Outcome:
        """One attempt, within the action's time-out (15 s when it says nothing)."""
        try:
            parameters = _parameters.decode(request.parameters)
        except msgspec.DecodeError as wrong:
            return Rejected(f"the webhook's parameters cannot be read: {wrong}", Answer())
        url = self._url(parameters.url)
        if not isinstance(url, URL):
            return url
        method, body, headers = _compose(parameters, request)
        try:
            headers |= await self._sign(parameters.url, request, body or b"")
        except CannotSign as refused:
            return Retry(refused.detail, Answer(), is_ours=True)
        timeout_s = min(parameters.timeout_ms or DEFAULT_TIMEOUT_MS, ACTION_TIMEOUT_MS) / 1000
        heard = Reply()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(
                    (method, url, body, headers), min(CONNECT_S, timeout_s), heard, parameters.accept_directives is True
                )
        except aiohttp.ConnectionTimeoutError:
            return Retry(f"no connection within {min(CONNECT_S, timeout_s):g} s", heard.answer())
        except TimeoutError:
            return Retry(f"no complete answer within {timeout_s:g} s", heard.answer())
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as failed:
            return Retry(describe(failed), heard.answer(), is_ours=_has_no_file_left(failed))

    async def _sign(self, url: str, request: ActionRequest, body: bytes) -> dict[str, str]:
        """This attempt's time, and the signature where there is a secret for it; raises CannotSign."""
        timestamp = int(time.time())
        headers = {"webhook-timestamp": str(timestamp)}
        if self._signer is not None:
            signature = await self._signer.sign(
                request.tenant_id, self._origin(url), request.webhook_id, timestamp, body
            )
            if signature is not None:
                headers["webhook-signature"] = signature
        return headers

    async def _exchange(
        self,
        sent: tuple[str, URL, bytes | None, Mapping[str, str]],
        connect_s: float,
        heard: Reply,
        is_steered: bool,
    ) -> Outcome:
        method, url, body, headers = sent
        async with self.session.request(
            method,
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=_connecting_within(connect_s),
        ) as response:
            heard.status = status = response.status
            is_whole = await read_answer(response, heard.body)
        if 200 <= status < 300:
            return Delivered(heard.answer(), read_directive(bytes(heard.body)) if is_steered and is_whole else None)
        return failure_of(status, heard.answer(), read_after(status, response.headers, datetime.now(UTC)))

    def _read_url(self, text: str) -> URL | Outcome:
        """The URL as it is called, or why it is not. A name is looked up, and checked, when it is dialled."""
        try:
            # Byte for byte as it was given, for a signed URL is no other; what is not ASCII has to be encoded.
            url = URL(text, encoded=text.isascii())
        except ValueError:
            return Retry("the URL cannot be called", Answer())
        if self._targets.fault_of(url.raw_host or "") is not None:
            return Rejected("the target is refused: its address is not open to webhooks", Answer())
        return url


@lru_cache(128)
def _connecting_within(seconds: float) -> aiohttp.ClientTimeout:
    """Only to connect and to agree on TLS; the whole attempt has a time-out of its own around it."""
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


def _compose(parameters: WebhookParameters, request: ActionRequest) -> tuple[str, bytes | None, dict[str, str]]:
    """Method, body and headers. Without a body of its own the receiver gets `{timer, event}`; text goes as it is."""
    method = parameters.method or "POST"
    own = bytes(parameters.body)
    body: bytes | None
    content_type = "application/json"
    if not own:
        body = None if method in ("GET", "DELETE") else request.body.encode()
    elif own[:1] == b'"':
        body, content_type = str(msgspec.json.decode(own)).encode(), "text/plain; charset=utf-8"
    else:
        body = own
    headers: dict[str, str] = {} if body is None else {"content-type": content_type}
    headers |= {name.lower(): value for name, value in (parameters.headers or {}).items()}
    headers |= {
        "x-minoots-timer-id": request.timer_id,
        "x-minoots-tenant-id": request.tenant_id,
        "webhook-id": request.webhook_id,
    }
    if request.traceparent:
        headers["traceparent"] = request.traceparent
    if request.redrives:
        headers["x-minoots-redrive"] = str(request.redrives)
    if request.ack:
        headers |= {"x-minoots-ack-url": request.ack.url, "x-minoots-ack-token": request.ack.token}
    return method, body, headers


def _has_no_file_left(failed: BaseException) -> bool:
    """Whether this process or machine can open no more sockets, which says nothing of the other end."""
    cause = failed.os_error if isinstance(failed, aiohttp.ClientConnectorError) else failed
    return isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)


def describe(failed: BaseException) -> str:
    """The class of the failure and the system's word for it; never the request, an address, or an answer."""
    match failed:
        case aiohttp.ClientConnectorError(os_error=TargetRefused()):
            return "the target is refused: its name has an address that is not open to webhooks"
        case aiohttp.ClientConnectorDNSError(os_error=NotResolved() as why):
            return str(why)
        case aiohttp.ClientConnectorDNSError():
            return "the host's name cannot be resolved"
        case aiohttp.ClientConnectorCertificateError():
            return "TLS: the certificate is not valid for this host"
        case aiohttp.ClientConnectorSSLError():
            return "TLS: the other end does not speak it, or no version that both know"
        case aiohttp.ClientConnectorError(os_error=OSError() as cause):
            # Of the number, for the text is the event loop's own and names the address.
            return f"cannot connect: {os.strerror(cause.errno) if cause.errno else type(cause).__name__}"
        case aiohttp.InvalidURL() | ValueError():
            return "the URL cannot be called"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ClientPayloadError():
            return "the connection was closed in the middle of the answer"
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP that can be read"
        case _:
            return f"the connection failed: {type(failed).__name__}"


def runners(webhooks: WebhookRunner) -> dict[str, Any]:
    """The action kinds that this version can run."""
    return {"webhook": webhooks}
