"""The tokens that let a receiver acknowledge the delivery it got, and no other; nothing is stored for them."""

import base64
import hashlib
import hmac

from minoots.access.keyring import Keyring

LABEL = b"acknowledgement"
HEADER = "x-minoots-ack-token"


class AckTokens:
    """A token is the HMAC-SHA256 of the webhook-id, so it is the same in every attempt.

    It is good for as long as its key is still named, and says nothing about whether there is such a delivery.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keys = keyring.derive_all(LABEL)

    def issue(self, webhook_id: str) -> str:
        """The token of this delivery: 43 characters of base64url."""
        return _token(self._keys[0], webhook_id).decode()

    def is_good(self, token: str, webhook_id: str) -> bool:
        """Whether it is this delivery's, by any of the keys; compared in constant time."""
        given = token.encode(errors="surrogateescape")
        return any(hmac.compare_digest(given, _token(key, webhook_id)) for key in self._keys)


def _token(key: bytes, webhook_id: str) -> bytes:
    mac = hmac.digest(key, webhook_id.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(mac).rstrip(b"=")
