"""Which addresses a webhook may go to: an explicit table of special networks, and what an operator has opened.

`ipaddress.is_global` is no guard: it passes 64:ff9b::7f00:1, 2002:7f00:1::, ::127.0.0.1 and multicast. The table is
that of the IANA registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890 and those that updated it), without
their exceptions that are "globally reachable": no webhook of anybody's is served there.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import unquote

from minoots.errors import Finding

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_SPECIAL_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network (RFC 791)
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carrier-grade NAT (RFC 6598); Alibaba's metadata service
        "127.0.0.0/8",  # loopback (RFC 1122)
        "168.63.129.16/32",  # Azure's host service: a public address that is answered inside
        "169.254.0.0/16",  # link-local (RFC 3927); most clouds' metadata service
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments (RFC 6890); Oracle's metadata service
        "192.0.2.0/24",  # documentation (RFC 5737)
        "192.31.196.0/24",  # AS112 (RFC 7535)
        "192.52.193.0/24",  # AMT (RFC 7450)
        "192.88.99.0/24",  # 6to4 relays (RFC 7526)
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112 (RFC 7534)
        "198.18.0.0/15",  # benchmarking (RFC 2544)
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast (RFC 5771)
        "240.0.0.0/4",  # reserved (RFC 1112), broadcast
    )
)
# Whatever is not global unicast (RFC 4291, section 2.4) is special without being named: ::, ::1, IPv4-mapped and
# -compatible, 64:ff9b::/96, 64:ff9b:1::/48, 100::/64, 5f00::/16 (SRv6), fc00::/7, fe80::/10, fec0::/10, ff00::/8.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_SPECIAL_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments (RFC 2928): Teredo, benchmarking, AMT, AS112, ORCHID, ORCHIDv2, drone ids
        "2001:db8::/32",  # documentation (RFC 3849)
        "2002::/16",  # 6to4 (RFC 3056)
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back (RFC 3701)
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_TEREDO = IPv6Network("2001::/32")
_6TO4 = IPv6Network("2002::/16")
_LAST_32_BITS = (IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96"), _NAT64)
# ::/128 and ::1/128 hold no IPv4 address.
_NO_IPV4 = {IPv6Address("::"), IPv6Address("::1")}

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_HOST = re.compile(r"[A-Za-z]+://(?:\[(?P<ipv6>[^\]/?#]*)\]|(?P<host>[^/?#:\[\]]*))")


@dataclass(frozen=True, slots=True)
class Targets:
    """Where webhooks may go: everywhere but to special addresses, and to those in `opened`."""

    opened: tuple[IpNetwork, ...] = ()

    @classmethod
    def of(cls, opened: Iterable[IpNetwork], *, loopback: bool = False) -> "Targets":
        return cls((*opened, *(_LOOPBACK if loopback else ())))

    def allows(self, address: IpAddress) -> bool:
        """Whether it may be dialled; an IPv4 address that it holds must be allowed too."""
        if address.version == 6 and address.scope_id is not None:
            # A zone belongs to link-local addresses, and means another place on every machine.
            return False
        if _is_special(address) and not any(address in network for network in self.opened):
            return False
        return all(self.allows(held) for held in embedded_ipv4(address))

    def fault_of(self, host: str) -> str | None:
        """What is wrong with a URL's host (without brackets) that is an address; None for a name, or when it is open.

        A spelling that programs read in different ways (127.1, 0x7f000001, 0177.0.0.1) is refused whatever it means.
        """
        plain = _plain(host)
        try:
            address = ip_address(plain)
        except ValueError:
            if ":" not in plain and not _NUMBER.fullmatch(plain.rpartition(".")[2]):
                return None
            return "write the address in its usual form, IPv4 as four decimal numbers without leading zeros"
        if self.allows(address):
            return None
        return (
            "webhooks may not go to this address: it is loopback, private or otherwise special "
            "(an operator opens networks with MINOOTS_WEBHOOK_ALLOW_CIDRS)"
        )

    def fault_of_url(self, url: str) -> str | None:
        """The same of a whole URL that keeps the rules of one."""
        found = _HOST.match(url)
        return _remembered_fault(self, found["ipv6"] or found["host"] or "") if found else None

    def check(self, tenant_id: str, parameters: Mapping[str, Any], pointer: str, field: str = "url") -> list[Finding]:
        """What a new action's parameters have wrong: a literal address that is not open. Names are looked up later."""
        url = parameters.get(field)
        detail = self.fault_of_url(url) if isinstance(url, str) else None
        return [] if detail is None else [Finding(f"{pointer}/{field}", detail)]


@lru_cache(maxsize=4096)
def _remembered_fault(targets: Targets, host: str) -> str | None:
    """Asked for every action of every new timer, and most go to few hosts: 16 µs for each of them, measured."""
    return targets.fault_of(host)


def _is_special(address: IpAddress) -> bool:
    if address.version == 4:
        return any(address in network for network in _SPECIAL_IPV4)
    return address not in _GLOBAL_UNICAST or any(address in network for network in _SPECIAL_IPV6)


def embedded_ipv4(address: IpAddress) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for, by whichever way packets to it may be translated."""
    if address.version == 4 or address in _NO_IPV4:
        return
    number = int(address)
    if any(address in network for network in _LAST_32_BITS):
        yield IPv4Address(number & 0xFFFFFFFF)
    elif address in _NAT64_LOCAL:
        # RFC 6052, section 2.2: behind a prefix of 96 bits the last 32; behind one of 48, around bits 64 to 71.
        yield IPv4Address(number & 0xFFFFFFFF)
        yield IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
    elif address in _6TO4:
        yield IPv4Address(number >> 80 & 0xFFFFFFFF)
    elif address in _TEREDO:
        # RFC 4380, section 4: the server, and the client with its bits turned.
        yield IPv4Address(number >> 64 & 0xFFFFFFFF)
        yield IPv4Address(~number & 0xFFFFFFFF)
    elif number >> 32 & 0xFDFFFFFF == 0x5EFE:
        # ISATAP (RFC 5214, section 6.1), under any prefix.
        yield IPv4Address(number & 0xFFFFFFFF)


def _plain(host: str) -> str:
    """As resolvers see it: compatible characters (UTS 46) and escapes undone, without dots at its end."""
    text = unicodedata.normalize("NFKC", unquote(host)).replace("\u3002", ".")
    seen = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc"))
    return seen.strip("[]").rstrip(".").lower()


def read_networks(text: str) -> tuple[IpNetwork, ...]:
    """`10.0.0.0/8, fd00::/8`; ValueError says what is wrong with the first that is no network."""
    networks = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(part))
        except ValueError:
            raise ValueError(
                f"{part!r} is no network; write it as 10.1.0.0/16 or fd00:1::/32, with no bits after the prefix"
            ) from None
    return tuple(networks)


@lru_cache(maxsize=4096)
def read_address(text: str) -> IpAddress:
    """An address as a resolver answers it."""
    return ip_address(text)
