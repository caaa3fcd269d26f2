"""The whole error tree; every door translates it once (`rest/problems.py`, `rpc/status.py`).

MinootsError
├── ClientError                 the caller can mend it
│   ├── MalformedRequest        not readable at all: bad JSON, a bad parameter, a contradiction
│   ├── Unauthenticated         no key, or none that we know
│   ├── Forbidden               the key may not do this, or not for this tenant
│   ├── TimerNotFound           no such timer of this tenant
│   ├── FiringNotFound          the timer has no such occurrence
│   ├── DeliveryNotFound        the firing has no such delivery
│   ├── SigningSecretNotFound   the tenant has no such secret, or it has ended
│   ├── TimerStateConflict      the timer is in a state that has no such step
│   ├── AcknowledgementConflict the delivery cannot be acknowledged like this
│   ├── DeliveryStateConflict   the delivery is in a state that has no such step
│   ├── SigningSecretConflict   it signs already, or too many do
│   ├── StaleVersion            it has changed since the caller saw it
│   ├── NameTaken               another waiting timer that was made by name has it
│   ├── IdempotencyInFlight     a request with the same key has not ended yet
│   ├── IdempotencyMismatch     the key was used with another body
│   ├── EventsOff               this installation, or this server, has no events to show
│   ├── BodyTooLarge            the body is over its limit
│   ├── UnsupportedMedia        the body is not JSON
│   └── InvalidTimer            readable, but breaks a rule; carries a finding per bad field
├── Unavailable                 try again: Postgres or NATS is away
│   ├── StoreUnavailable
│   ├── TooManyFollow           this server holds as many streams and waits as it can
│   └── BrokerUnavailable
├── ConfigError                 this process cannot work as it is set up
└── EmbeddedError               a server of `minoots up` cannot start
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MinootsError(Exception):
    """Something went wrong."""

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.detail)


class ClientError(MinootsError):
    """The request cannot be carried out."""


class MalformedRequest(ClientError):
    """The request cannot be read."""

    def __init__(self, detail: str | None = None, pointer: str | None = None) -> None:
        super().__init__(detail)
        self.pointer = pointer


class Unauthenticated(ClientError):
    """Give an API key in the header X-API-Key, or as Authorization: Bearer."""


class Forbidden(ClientError):
    """This API key may not do that."""


class TimerNotFound(ClientError):
    """There is no such timer in this tenant."""


class FiringNotFound(ClientError):
    """This timer has no such firing."""


class SigningSecretNotFound(ClientError):
    """There is no such signing secret in this tenant, or it has ended."""


class SigningSecretConflict(ClientError):
    """This signing secret cannot be added to those that sign."""


class DeliveryNotFound(ClientError):
    """This firing has no such delivery."""


class DeliveryStateConflict(ClientError):
    """The delivery is in a state that does not allow this."""


class TimerStateConflict(ClientError):
    """The timer is in a state that does not allow this."""

    def __init__(self, status: str, detail: str | None = None) -> None:
        super().__init__(detail)
        self.status = status


class AcknowledgementConflict(ClientError):
    """The delivery is in a state that does not allow this acknowledgement. `status` is the delivery's."""

    def __init__(self, status: str, detail: str | None = None) -> None:
        super().__init__(detail)
        self.status = status


class StaleVersion(ClientError):
    """The timer is not in the version that was asked for; get it again and decide on what it is now."""


class NameTaken(ClientError):
    """Another waiting timer of this tenant was made by this name; choose another name, or change that timer."""


class IdempotencyInFlight(ClientError):
    """A request with this Idempotency-Key is still being worked on; try again in a moment."""


class IdempotencyMismatch(ClientError):
    """This Idempotency-Key was used with another body; use a new key for a new request."""


class EventsOff(ClientError):
    """Events are off in this installation; its operator can say: minoots events on"""


class BodyTooLarge(ClientError):
    """The body is too large."""


class UnsupportedMedia(ClientError):
    """Send the body as JSON with Content-Type: application/json."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One field that breaks a rule: where (an RFC 6901 pointer into the body) and what to do."""

    pointer: str
    detail: str


class InvalidTimer(ClientError):
    """The timer breaks a rule."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(f.detail for f in self.findings[:3]) or None)

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidTimer":
        """The common case of one finding."""
        return cls([Finding(pointer, detail)])

    def below(self, prefix: str) -> "InvalidTimer":
        """The same findings seen from further out: `/duration` below `/items/3`."""
        return InvalidTimer([Finding(prefix + f.pointer, f.detail) for f in self.findings])


class Unavailable(MinootsError):
    """A part that MINOOTS needs is away; try again."""


class StoreUnavailable(Unavailable):
    """The database cannot be reached at the moment; nothing was changed, try again.

    `is_refusal`: it answers, but does not let us in. A process that starts gives up then; one that runs waits.
    """

    def __init__(self, detail: str | None = None, *, is_refusal: bool = False) -> None:
        super().__init__(detail)
        self.is_refusal = is_refusal


class TooManyFollow(Unavailable):
    """This server holds as many streams and waits as it can; try again, another server may have room."""


class BrokerUnavailable(Unavailable):
    """NATS cannot be reached at the moment; try again."""


class ConfigError(MinootsError):
    """The configuration does not work."""


class EmbeddedError(MinootsError):
    """An embedded server cannot start."""
