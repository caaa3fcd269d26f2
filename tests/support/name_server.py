"""A DNS server of the test's own (RFC 1035): each question for a name gets the next of its scripted answers."""

import asyncio
import ipaddress
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Self

A, AAAA = 1, 28


class NameServer(asyncio.DatagramProtocol):
    """`script` has for each name what its answers hold, one list of addresses after the other, round and round.

    Only questions for A take the next answer; those for AAAA get the IPv6 addresses of the same one. `asked` counts.
    A name that is not in the script does not exist, and one whose answer is None is not answered at all.
    """

    def __init__(self, script: Mapping[str, Sequence[Sequence[str] | None]]) -> None:
        self.script = script
        self.asked: Counter[str] = Counter()
        self.port = 0
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        self.port = self._transport.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._transport is not None:
            self._transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        question, name, kind = _read_question(data)
        answers = self.script.get(name)
        if answers is None:
            self._say(data[:2], 0x8183, question, [], addr)
            return
        if kind == A:
            self.asked[name] += 1
        answer = answers[(max(self.asked[name], 1) - 1) % len(answers)]
        if answer is None:
            return
        version = {A: 4, AAAA: 6}.get(kind)
        found = [address for address in map(ipaddress.ip_address, answer) if address.version == version]
        self._say(data[:2], 0x8180, question, [address.packed for address in found], addr)

    def _say(self, number: bytes, flags: int, question: bytes, found: Sequence[bytes], to: Any) -> None:
        assert self._transport is not None
        # The name is a pointer to the question's, and what is answered lives for no second.
        records = b"".join(
            struct.pack("!HHHIH", 0xC00C, A if len(one) == 4 else AAAA, 1, 0, len(one)) + one for one in found
        )
        head = number + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        self._transport.sendto(head + question + records, to)


def _read_question(data: bytes) -> tuple[bytes, str, int]:
    labels, at = [], 12
    while length := data[at]:
        labels.append(data[at + 1 : at + 1 + length].decode())
        at += 1 + length
    (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
    return data[12 : at + 5], ".".join(labels).lower(), kind
