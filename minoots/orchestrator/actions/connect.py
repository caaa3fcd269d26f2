"""Connections of whatever sends HTTP: names are resolved once, every answer is checked, and the checked is dialled.

Nothing else opens connections for an action. What it refuses is never told with an address or an answer.
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

import minoots
from minoots.domain.target import Targets, read_address

CONNECT_S = 5.0
# For the whole look-up; a server that does not answer is asked a second time.
DNS_S = 5.0
DNS_TRY_S = 1.5
DNS_TRIES = 2
# Addresses are kept as they were checked, so that a look-up is not made for every connection.
DNS_KEPT_S = 10
IDLE_S = 15.0
# Beyond this an answer's head is no head: aiohttp gives the connection up.
HEAD_LINE_BYTES = 8_190
HEAD_FIELDS = 128
BUFFER_BYTES = 64 * 1024


class TargetRefused(OSError):
    """The address is not open to webhooks."""


class NotResolved(OSError):
    """The name has no address, or nobody told it in time."""


class CheckedResolver(AbstractResolver):
    """Names by c-ares, without threads. One forbidden address among the answers refuses them all.

    `servers` and `port` are those of the system unless they are given.
    """

    def __init__(self, targets: Targets, servers: Sequence[str] | None = None, port: int | None = None) -> None:
        given: dict[str, Any] = {"timeout": DNS_TRY_S, "tries": DNS_TRIES}
        if servers is not None:
            given["nameservers"] = list(servers)
        if port is not None:
            given |= {"udp_port": port, "tcp_port": port}
        self._targets = targets
        self._names = aiohttp.AsyncResolver(**given)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            async with asyncio.timeout(DNS_S):
                answers = await self._names.resolve(host, port, family)
        except TimeoutError:
            raise NotResolved(f"the host's name was not resolved within {DNS_S:g} s") from None
        except OSError:
            raise NotResolved("the host's name cannot be resolved") from None
        if not all(_is_allowed(self._targets, answer["host"]) for answer in answers):
            raise TargetRefused
        return answers

    async def close(self) -> None:
        await self._names.close()


def _is_allowed(targets: Targets, text: str) -> bool:
    try:
        return targets.allows(read_address(text))
    except ValueError:
        return False


def open_session(
    targets: Targets, connections: int, resolver: AbstractResolver | None = None, dns_kept_s: int = DNS_KEPT_S
) -> aiohttp.ClientSession:
    """A session whose every connection goes to an allowed address; proxies of the environment are not asked.

    Redirects are followed unless a request says `allow_redirects=False`. Needs a running loop.
    """

    def open_socket(address: Any) -> socket.socket:
        """The last look before dialling: literals come here without a resolver."""
        family, kind, protocol, _, (host, *_) = address
        if not _is_allowed(targets, host):
            raise TargetRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=connections,
            use_dns_cache=dns_kept_s > 0,
            ttl_dns_cache=dns_kept_s,
            resolver=resolver or CheckedResolver(targets),
            keepalive_timeout=IDLE_S,
            socket_factory=open_socket,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers={"Accept-Encoding"},
        headers={"User-Agent": f"minoots/{minoots.__version__}"},
        read_bufsize=BUFFER_BYTES,
        max_line_size=HEAD_LINE_BYTES,
        max_field_size=HEAD_LINE_BYTES,
        max_headers=HEAD_FIELDS,
    )
