"""Signing by Standard Webhooks 1.0: secrets as people write them, signatures as receivers check them."""

import base64
import binascii
import hmac
from collections.abc import Iterable
from typing import Annotated, Final
from uuid import UUID

import msgspec

from minoots.domain.duration import parse_duration
from minoots.domain.limits import URL_CHARACTERS, YEAR_MS
from minoots.domain.timer import Name
from minoots.errors import Finding, InvalidTimer

PREFIX: Final = "whsec_"
# Standard Webhooks, "Signature scheme": between 24 and 64 bytes.
SECRET_BYTES: Final = (24, 64)
NEW_SECRET_BYTES: Final = 32
OVERLAP_MS: Final = 24 * 3_600_000
# Of one destination at once; each lengthens the header of every webhook there.
SECRETS_MOST: Final = 5

_ORIGIN = 'a destination is an origin, scheme, host and port without a path, as "https://example.com"'


class SecretRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A new signing secret: for one destination or the whole tenant, made here unless it is given."""

    tenant_id: str | None = None
    destination: Annotated[str, msgspec.Meta(max_length=URL_CHARACTERS)] | None = None
    secret: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    requested_by: Name
    overlap: str | int | float | None = None


class SigningSecret(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """A signing secret as it is shown: everything but the secret. `destination` is None for the whole tenant's."""

    id: UUID
    tenant_id: str
    destination: str | None
    created_at: str
    expires_at: str | None
    created_by: str


class NewSigningSecret(SigningSecret, kw_only=True, frozen=True):
    """A signing secret as it is shown once, to whom it was made for."""

    secret: str


class WantedSecret(msgspec.Struct, kw_only=True, frozen=True):
    """A request that keeps the rules. `secret` is None when it is to be made."""

    destination: str | None
    secret: bytes | None
    requested_by: str
    overlap_ms: int


def admit_secret(request: SecretRequest) -> WantedSecret:
    """Apply the rules; raises InvalidTimer with every field that breaks one, and never with the secret."""
    findings: list[Finding] = []
    secret = None
    if request.secret is not None:
        try:
            secret = read_secret(request.secret)
        except ValueError as wrong:
            findings.append(Finding("/secret", str(wrong)))
    overlap_ms = OVERLAP_MS
    try:
        overlap_ms = OVERLAP_MS if request.overlap is None else _read_overlap(request.overlap)
    except ValueError as wrong:
        findings.append(Finding("/overlap", str(wrong)))
    if findings:
        raise InvalidTimer(findings)
    return WantedSecret(
        destination=request.destination, secret=secret, requested_by=request.requested_by, overlap_ms=overlap_ms
    )


def not_an_origin() -> InvalidTimer:
    """What is said of a destination that is none; that it is none, the schema says."""
    return InvalidTimer.at("/destination", _ORIGIN)


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL in small letters, without a port that the scheme implies; as `lane_of` has it."""
    origin = url.partition("?")[0].partition("#")[0]
    scheme, _, rest = origin.partition("://")
    origin = f"{scheme}://{rest.partition('/')[0]}".lower()
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def read_secret(text: str) -> bytes:
    """The bytes of `whsec_…`; ValueError says how one is written."""
    least, most = SECRET_BYTES
    try:
        secret = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except (binascii.Error, ValueError):
        secret = b""
    if not least <= len(secret) <= most:
        raise ValueError(f"a secret is written as {PREFIX} and the base64 of {least} to {most} bytes")
    return secret


def write_secret(secret: bytes) -> str:
    """As receivers' libraries take it."""
    return PREFIX + base64.b64encode(secret).decode()


def context_of(tenant_id: str, destination: str | None) -> bytes:
    """What a secret is wrapped for: in another tenant's row, or another destination's, it cannot be unwrapped."""
    return f"signing secret\n{tenant_id}\n{destination or ''}".encode()


def sign(secrets: Iterable[bytes], webhook_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`: one `v1,…` for each secret, over id, Unix seconds and the bytes sent."""
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return " ".join(f"v1,{base64.b64encode(hmac.digest(s, signed, 'sha256')).decode()}" for s in secrets)


def _read_overlap(value: str | int | float) -> int:
    """Milliseconds; 0 and "0s" are good here."""
    if value in (0, "0", "0s"):
        return 0
    ms = parse_duration(value)
    if ms > YEAR_MS:
        raise ValueError("an overlap is at most 365 days")
    return ms
