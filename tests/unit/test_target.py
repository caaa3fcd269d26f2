"""Which addresses a webhook may go to, in any spelling; compared with an independent reading of addresses."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minoots.domain.target import Targets, embedded_ipv4, read_networks

NOTHING_OPEN = Targets()
DEVELOPMENT = Targets.of((), loopback=True)

REFUSED = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1",
    "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1",
    "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.175.48.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8",
    "64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "64:ff9b:1:ffff::1", "100::1", "100:0:0:1::1",
    "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1",
    "2001:20::1", "2001:2f::1", "2001:30::1", "2001:1ff::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::1",
    "2620:4f:8000::1", "3ffe::1", "3fff::1", "3fff:fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1",
    "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1", "e000::1", "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:10.0.0.1",
]  # fmt: skip
ALLOWED = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "168.63.129.15", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0",
    "192.0.3.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "203.0.112.255", "203.0.114.0",
    "223.255.255.255",
    "2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700:4700::1111", "2620:4f:8001::1",
    "2a00:1450::1",
    "3000::1", "2606:4700::5efe:8.8.8.8",
]  # fmt: skip
# Ways in which programs have been seen to read 127.0.0.1, 169.254.169.254 and ::1.
SPELLINGS = [
    "127.1", "127.0.1", "2130706433", "0x7f000001", "0X7F.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "017700000001",
    "00000177.1", "127.0.0.01", "0127.0.0.1", "127.0.0.1.", "127.0.0.1..", "127。0。0。1", "１２７.0.0.1", "①②⑦.0.0.1",
    "127．0．0．1", "127｡0｡0｡1", "127.0.0.1\u00ad", "1\u200b27.0.0.1", "%31%32%37.0.0.1", "127%2e0.0.1", "0", "0x0",
    "0x", "00", "127.0.0.0x1", "2852039166", "0xa9fea9fe", "169.16689662", "0251.0376.0251.0376",
    "999.1.1.1", "1.2.3.4.5",
    "256.256.256.256", "127.0.0.1%00", "[::1]", "0:0:0:0:0:0:0:1", "::1.", "::0001", "0000::1", "::ffff:7f00:1",
    "::FFFF:127.0.0.1", "fe80::1%25lo", "fe80::1%1", "::1%lo", ":::", "1::2::3", "12345::",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED)
def test_special_addresses_are_refused(text: str) -> None:
    assert not NOTHING_OPEN.allows(ipaddress.ip_address(text))
    assert NOTHING_OPEN.fault_of(text)


@pytest.mark.parametrize("text", ALLOWED)
def test_public_addresses_are_allowed(text: str) -> None:
    assert NOTHING_OPEN.allows(ipaddress.ip_address(text))
    assert NOTHING_OPEN.fault_of(text) is None


@pytest.mark.parametrize("host", SPELLINGS)
def test_no_spelling_gets_by(host: str) -> None:
    assert NOTHING_OPEN.fault_of(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost",
        "a1.b2",
        "1.2.3.4.example.com",
        "0x7f.example",
        "xn--bcher-kva",
        "127.0.0.1.nip.io",
        "",
    ],
)
def test_names_are_left_to_their_answers(host: str) -> None:
    assert NOTHING_OPEN.fault_of(host) is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1", "http://127.0.0.1:80/x", "HTTPS://[::1]:8443?x", "http://[::ffff:10.0.0.1]#a", "http://0x7f.1/"]
)  # fmt: skip
def test_a_new_webhook_to_such_an_address_is_told_where_it_stands(url: str) -> None:
    (finding,) = NOTHING_OPEN.check("demo", {"url": url}, "/actionBundle/actions/0/parameters")
    assert finding.pointer == "/actionBundle/actions/0/parameters/url"
    assert not NOTHING_OPEN.check("demo", {"url": "https://example.com:8443/127.0.0.1"}, "")
    assert not NOTHING_OPEN.check("demo", {"target": "nats:planner.jobs"}, "", "target")


def test_opened_networks_open_what_they_hold_and_nothing_else() -> None:
    opened = Targets.of(read_networks("10.1.0.0/16, fd00:1::/32"))
    for text, is_open in (
        ("10.1.2.3", True), ("10.2.0.1", False), ("fd00:1::5", True), ("fd00:2::5", False), ("127.0.0.1", False),
        ("::ffff:10.1.2.3", False), ("64:ff9b::10.1.2.3", False), ("8.8.8.8", True),
    ):  # fmt: skip
        assert opened.allows(ipaddress.ip_address(text)) is is_open, text


def test_development_opens_loopback_alone() -> None:
    for text, is_open in (
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
    ):
        assert DEVELOPMENT.allows(ipaddress.ip_address(text)) is is_open, text


def test_an_opened_translation_network_opens_only_what_it_translates_to() -> None:
    nat64 = Targets.of(read_networks("64:ff9b::/96,2002::/16,2001::/32,::ffff:0:0/96,64:ff9b:1::/48"))
    assert nat64.allows(ipaddress.ip_address("64:ff9b::8.8.8.8"))
    for text in ("64:ff9b::7f00:1", "2002:a00:1::", "2001:0:7f00:1::1", "::ffff:10.0.0.1", "64:ff9b:1:a00:0:100::"):
        assert not nat64.allows(ipaddress.ip_address(text)), text
    everything = Targets.of(read_networks("0.0.0.0/0,::/0"))
    assert all(everything.allows(ipaddress.ip_address(text)) for text in REFUSED if "%" not in text)


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0.0/8;1.1.1.1/32", "fd00::1/8"])
def test_what_is_no_network_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="no network"):
        read_networks(text)


def test_networks_may_be_left_out() -> None:
    assert read_networks("") == () == read_networks(" , ")


# An independent reading: bits compared by hand, from the registries' text, and the system's own inet_aton.

_V4 = """0/8 10/8 100.64/10 127/8 168.63.129.16/32 169.254/16 172.16/12 192.0.0/24 192.0.2/24 192.31.196/24
192.52.193/24 192.88.99/24 192.168/16 192.175.48/24 198.18/15 198.51.100/24 203.0.113/24 224/4 240/4"""
_V6 = "2001:0/23 2001:db8/32 2002/16 2620:4f:8000/48 3ffe/16 3fff:0/20"


def _bits(prefix: str, width: int, base: int, dot: str, total: int) -> tuple[int, int]:
    text, _, length = prefix.partition("/")
    value = 0
    for nth, part in enumerate(text.split(dot)):
        value |= int(part, base) << (total - width * (nth + 1))
    return value >> (total - int(length)), int(length)


SPECIAL_4 = [_bits(prefix, 8, 10, ".", 32) for prefix in _V4.split()]
SPECIAL_6 = [_bits(prefix, 16, 16, ":", 128) for prefix in _V6.split()]


def _is_public_4(number: int) -> bool:
    return not any(number >> (32 - length) == value for value, length in SPECIAL_4)


def _is_public_6(packed: bytes) -> bool:
    number = int.from_bytes(packed)
    if number >> 125 != 1 or any(number >> (128 - length) == value for value, length in SPECIAL_6):
        return False
    is_isatap = packed[8] in (0, 2) and packed[9:12] == b"\x00\x5e\xfe"
    return not is_isatap or _is_public_4(int.from_bytes(packed[12:]))


def _around(special: tuple[int, int]) -> st.SearchStrategy[int]:
    """Addresses in a network and just beside it."""
    value, length = special
    first, last = value << 32 - length, (value + 1 << 32 - length) - 1
    return st.integers(max(first - 2, 0), min(last + 2, 2**32 - 1))


PREFIXES = st.sampled_from([b" \x01", b" \x02", b"& \x00O\x80\x00", b"?\xfe", b"?\xff", b" "])
INTERFACES = st.sampled_from([b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"])
RANDOM = st.binary(min_size=16, max_size=16)
SOME_IPV6 = (
    RANDOM
    | st.tuples(PREFIXES, RANDOM).map(lambda p: (p[0] + p[1])[:16])
    | st.tuples(INTERFACES, RANDOM).map(lambda p: b"&\x06" + bytes(6) + p[0] + p[1][:4])
)


@given(st.integers(0, 2**32 - 1) | st.sampled_from(SPECIAL_4).flatmap(_around))
def test_every_ipv4_address_is_judged_as_by_hand(number: int) -> None:
    assert NOTHING_OPEN.allows(ipaddress.IPv4Address(number)) is _is_public_4(number)


@given(SOME_IPV6)
def test_every_ipv6_address_is_judged_as_by_hand(packed: bytes) -> None:
    assert NOTHING_OPEN.allows(ipaddress.IPv6Address(packed)) is _is_public_6(packed)


@given(st.binary(min_size=4, max_size=4))
def test_what_an_address_holds_is_found(packed: bytes) -> None:
    held = ipaddress.IPv4Address(packed)
    turned = bytes(255 - byte for byte in packed)
    for whole in (
        b"\x00\x64\xff\x9b" + b"\x00" * 8 + packed,
        b"\x00\x64\xff\x9b\x00\x01" + packed[:2] + b"\x00" + packed[2:] + b"\x00" * 5,
        b"\x20\x02" + packed + b"\x00" * 10,
        b"\x20\x01\x00\x00" + packed + b"\x00" * 8,
        b"\x20\x01\x00\x00" + b"\x00" * 8 + turned,
        b"\x00" * 10 + b"\xff\xff" + packed,
        b"\x20\x03" + b"\x00" * 8 + b"\x5e\xfe" + packed,
    ):
        assert held in embedded_ipv4(ipaddress.IPv6Address(whole)), whole.hex()


NUMBER_PARTS = st.integers(0, 2**32).flatmap(
    lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}", f"0X{n:X}", f"00{n:o}"])
) | st.integers(0, 256).flatmap(lambda n: st.sampled_from([str(n), hex(n), f"0{n:o}"]))


@given(st.lists(NUMBER_PARTS, min_size=1, max_size=5).map(".".join), st.sampled_from(["", "."]))
@example("134744072", "")
def test_whatever_inet_aton_reads_is_known_for_an_address(text: str, dot: str) -> None:
    """Whatever the C library would dial is either written plainly and public, or refused."""
    fault = NOTHING_OPEN.fault_of(text + dot)
    try:
        (number,) = struct.unpack("!I", socket.inet_aton(text))
    except OSError:
        assert fault, "what ends in a number is no name"
        return
    is_plain = text == str(ipaddress.IPv4Address(number))
    assert (fault is None) is (is_plain and _is_public_4(number))
