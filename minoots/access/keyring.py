"""The keys from MINOOTS_SECRETS_KEY: they wrap secrets before these are stored, and make keys for other uses."""

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from minoots.errors import ConfigError, MinootsError
from minoots.settings import Environment

SETTING: Final = "MINOOTS_SECRETS_KEY"
KEY_BYTES: Final = 32
# What development uses when no key is given. Everybody can read it here: it hides nothing.
DEVELOPMENT_KEY: Final = b"MINOOTS development key, UNSAFE!"

# A wrapped secret: this byte, the id of the key, a nonce, the ciphertext with its tag. All before the ciphertext is
# authenticated with it.
_FORM: Final = b"\x01"
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = len(_FORM) + _ID_BYTES


class CannotUnwrap(MinootsError):
    """It was wrapped by a key that MINOOTS_SECRETS_KEY does not name, or was changed since."""


class Keyring:
    """Up to a few keys of 32 bytes: the first wraps, all unwrap, so that a new one can be put before the old ones."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        assert keys, "a keyring has a key"
        assert all(len(key) == KEY_BYTES for key in keys), "a key has 32 bytes"
        self._keys = tuple(dict.fromkeys(keys))
        self._first = _key_id(self._keys[0])
        # A key for each use, so that what one of them gives away says nothing about another (RFC 5869, section 3.2).
        self._ciphers: Mapping[bytes, AESGCM] = {_key_id(key): AESGCM(_expand(key, b"wrap")) for key in self._keys}

    def wrap(self, secret: bytes, context: bytes = b"") -> bytes:
        """Encrypt by AES-256-GCM with the first key; only the same `context` unwraps it."""
        head = _FORM + self._first
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._first].encrypt(nonce, secret, head + context)

    def unwrap(self, wrapped: bytes, context: bytes = b"") -> bytes:
        """What was wrapped with this context, by any of the keys; raises CannotUnwrap."""
        head, nonce, ciphertext = (
            wrapped[:_HEAD_BYTES],
            wrapped[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES],
            wrapped[_HEAD_BYTES + _NONCE_BYTES :],
        )
        cipher = self._ciphers.get(head[len(_FORM) :]) if head.startswith(_FORM) else None
        if cipher is None or len(ciphertext) < 16:
            raise CannotUnwrap(f"a stored secret was wrapped by a key that {SETTING} does not name: add that key to it")
        try:
            return cipher.decrypt(nonce, ciphertext, head + context)
        except InvalidTag:
            raise CannotUnwrap("a stored secret is not as it was stored; revoke it and create a new one") from None

    def is_current(self, wrapped: bytes) -> bool:
        """Whether the first key wrapped it, so that the others are not needed for it."""
        return wrapped.startswith(_FORM + self._first)

    def derive(self, label: bytes) -> bytes:
        """A key of 32 bytes for this use, of the first key: what is made now is made with it (HKDF-SHA256, RFC 5869).

        It changes when a new key comes first. Check what was made earlier against all of `derive_all`: then it is good
        for as long as the former key is still named.
        """
        return _expand(self._keys[0], b"derive " + label)

    def derive_all(self, label: bytes) -> list[bytes]:
        """The same of every key, the first one's first."""
        return [_expand(key, b"derive " + label) for key in self._keys]


def load_keyring(env: Environment, text: str | None) -> Keyring:
    """The configured keys, else the open development key; raises ConfigError, which never repeats a key."""
    if text is None:
        if env == "production":
            raise ConfigError(
                f"set {SETTING}, which wraps the signing secrets, to a key of your own: openssl rand -base64 32; give "
                "the same one to every process of the roles api, grpc and orchestrator, and keep it"
            )
        return Keyring([DEVELOPMENT_KEY])
    return Keyring([_read_key(part.strip(), nth) for nth, part in enumerate(text.split(","), 1)])


def make_key() -> str:
    """A new key as the setting takes it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def _read_key(text: str, nth: int) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(
            f"key {nth} in {SETTING} is no base64 of 32 bytes; make one with: openssl rand -base64 32 "
            "(several are separated by commas, the one that wraps comes first)"
        )
    return key


def _key_id(key: bytes) -> bytes:
    return _expand(key, b"id")[:_ID_BYTES]


def _expand(key: bytes, use: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"minoots " + use).derive(key)
