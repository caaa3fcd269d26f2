"""Signing secrets as they are asked for, and signatures as Standard Webhooks has them."""

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from standardwebhooks import Webhook

from minoots.domain.signing import (
    SecretRequest,
    admit_secret,
    context_of,
    origin_of,
    read_secret,
    sign,
    write_secret,
)
from minoots.errors import InvalidTimer


def request(**fields: Any) -> SecretRequest:
    return msgspec.convert({"requestedBy": "ann"} | fields, SecretRequest)


def whsec(size: int) -> str:
    return write_secret(bytes(range(size)))


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_secret_is_read_as_it_is_written(size: int) -> None:
    assert read_secret(whsec(size)) == bytes(range(size))


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", whsec(23), whsec(65), whsec(32).removeprefix("whsec_"), whsec(32) + "!", whsec(32)[:-1],
     "WHSEC_" + whsec(32)[6:], "whsec_" + base64.urlsafe_b64encode(b"\xfb\xff" * 16).decode(), "whsec_ä" + "a" * 40],
)  # fmt: skip
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidTimer) as refused:
        admit_secret(request(secret=text))
    (finding,) = refused.value.findings
    assert finding.pointer == "/secret"
    assert "whsec_" in finding.detail
    if len(text) > 10:
        assert text[6:] not in finding.detail


@pytest.mark.parametrize(
    ("overlap", "ms"),
    [(None, 86_400_000), ("24h", 86_400_000), ("1h30m", 5_400_000), ("PT1H", 3_600_000), (1500, 1500), (0, 0),
     ("0s", 0), ("0", 0), ("365d", 31_536_000_000)],
)  # fmt: skip
def test_an_overlap_is_a_duration_or_nothing(overlap: Any, ms: int) -> None:
    assert admit_secret(request(overlap=overlap)).overlap_ms == ms


@pytest.mark.parametrize("overlap", ["soon", -1, "366d", 1.5, "", "-1h"])
def test_an_overlap_that_is_none_has_its_pointer(overlap: Any) -> None:
    with pytest.raises(InvalidTimer) as refused:
        admit_secret(request(overlap=overlap))
    assert [finding.pointer for finding in refused.value.findings] == ["/overlap"]


@pytest.mark.parametrize("body", [b"", b"{}", '{"täg": "☕"}'.encode(), b"x" * 300_000])
def test_the_librarys_signature_is_ours(body: bytes) -> None:
    at = datetime.now(UTC).replace(microsecond=0)
    secrets = [bytes(range(32)), bytes(range(24, 88))]
    value = sign(secrets, "0199_1_call", int(at.timestamp()), body)
    theirs = [Webhook(write_secret(secret)).sign("0199_1_call", at, body.decode()) for secret in secrets]
    assert value.split(" ") == theirs


def test_a_context_belongs_to_one_destination_of_one_tenant() -> None:
    contexts = {
        context_of("a", None),
        context_of("a", "https://b"),
        context_of("a:https", "//b"),
        context_of("b", None),
    }
    assert len(contexts) == 4


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.COM", "https://example.com"),
        ("https://example.com:443/hooks?x=:443#y", "https://example.com"),
        ("HTTP://example.com:80?a=/b", "http://example.com"),
        ("http://example.com:443/", "http://example.com:443"),
        ("https://example.com:80", "https://example.com:80"),
        ("http://example.com:8080/", "http://example.com:8080"),
        ("http://[::1]:80/x://y", "http://[::1]"),
        ("https://Bücher.example#a?b", "https://bücher.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin
