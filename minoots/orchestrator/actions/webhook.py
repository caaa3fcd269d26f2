"""The webhook: one HTTP request, whose answer is the outcome. Redirects are never followed."""

import asyncio
import os
import ssl
import time
from types import TracebackType
from typing import Any

import aiohttp
import msgspec
from yarl import URL

import minoots
from minoots.domain.limits import ACTION_TIMEOUT_MS
from minoots.domain.outcome import Answer, Delivered, Outcome, Rejected, Retry
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.intake import DEFAULT_TIMEOUT_MS

CONNECT_S = 5.0
DNS_S = 2.0
READ_BYTES = 64 * 1024
EXCERPT_CHARACTERS = 4 * 1024


class WebhookParameters(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """As stored; the rules were applied when the timer was made. `body` stays the bytes that Postgres writes."""

    url: str
    method: str | None = None
    headers: dict[str, str] | None = None
    body: msgspec.Raw = msgspec.Raw(b"")
    timeout_ms: float | None = None


_parameters = msgspec.json.Decoder(WebhookParameters)


class WebhookRunner:
    """Sends webhooks over one pool of connections. Use as an async context manager."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "WebhookRunner":
        self._session = aiohttp.ClientSession(
            # Names are looked up without threads: a few that nobody answers for would take all of a pool.
            connector=aiohttp.TCPConnector(
                limit=self._connections, ttl_dns_cache=30, resolver=aiohttp.AsyncResolver(timeout=DNS_S, tries=2)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers={"Accept-Encoding"},
            headers={"User-Agent": f"minoots/{minoots.__version__}"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def run(self, request: ActionRequest) -> Outcome:
        """One attempt, within the action's time-out (15 s when it says nothing)."""
        assert self._session is not None, "the runner is not open"
        try:
            parameters = _parameters.decode(request.parameters)
        except msgspec.DecodeError as wrong:
            return Rejected(f"the webhook's parameters cannot be read: {wrong}", Answer())
        method, body, headers = _compose(parameters, request)
        timeout_s = min(parameters.timeout_ms or DEFAULT_TIMEOUT_MS, ACTION_TIMEOUT_MS) / 1000
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.request(
                    method,
                    # Byte for byte as it was given, for a signed URL is no other; what is not ASCII has to be encoded.
                    URL(parameters.url, encoded=parameters.url.isascii()),
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, timeout_s)),
                ) as response,
            ):
                excerpt = await _read_excerpt(response)
                return _outcome(response.status, Answer(_since(began), response.status, excerpt))
        except aiohttp.ConnectionTimeoutError:
            return Retry(f"no connection within {min(CONNECT_S, timeout_s):g} s", Answer(_since(began)))
        except TimeoutError:
            return Retry(f"no complete answer within {timeout_s:g} s", Answer(_since(began)))
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError) as failed:
            return Retry(_describe(failed), Answer(_since(began)))


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
    return method, body, headers


def _outcome(status: int, answer: Answer) -> Outcome:
    if 200 <= status < 300:
        return Delivered(answer)
    if status in (301, 302, 303, 307, 308):
        return Retry(f"HTTP {status}: redirects are not followed", answer)
    if status == 410:
        return Rejected("HTTP 410: the receiver is gone for good", answer)
    return Retry(f"HTTP {status}", answer)


async def _read_excerpt(response: aiohttp.ClientResponse) -> str | None:
    """The beginning of the answer, at most 4 KiB of text; of a longer one the connection is given up."""
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) >= READ_BYTES:
            response.close()
            break
    return printable(bytes(read[: EXCERPT_CHARACTERS * 2]))[:EXCERPT_CHARACTERS] or None


def printable(text: bytes) -> str:
    """Control characters and what is no UTF-8 escaped, so that it can be stored and shown; newlines and tabs stay."""
    shown = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in shown)


def _describe(failed: BaseException) -> str:
    """The class of the failure and the system's word for it; never the request."""
    match failed:
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
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP"
        case _:
            return f"the connection failed: {type(failed).__name__}"


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def runners(webhooks: WebhookRunner) -> dict[str, Any]:
    """The action kinds that this version can run."""
    return {"webhook": webhooks}
