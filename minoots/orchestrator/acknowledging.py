"""What a receiver gets to acknowledge with: the address of its delivery, and the token for it."""

from minoots.access.ack_tokens import AckTokens
from minoots.orchestrator.actions.request import Acknowledging
from minoots.store.deliveries import Lease


class AckOffers:
    """Addresses below `public_url`, which is how receivers reach REST."""

    def __init__(self, public_url: str, tokens: AckTokens) -> None:
        self._url = public_url.rstrip("/")
        self._tokens = tokens

    def offer(self, lease: Lease) -> Acknowledging | None:
        """The same in every attempt; None when nothing is to be acknowledged."""
        if lease.ack_timeout_ms is None:
            return None
        timer_id, occurrence, action_id = lease.key
        return Acknowledging(
            f"{self._url}/timers/{timer_id}/firings/{occurrence}/deliveries/{action_id}/ack",
            self._tokens.issue(lease.key.webhook_id),
        )
