"""Who is calling and what they may: API keys from the configuration, tenants, scopes."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from minoots.domain.limits import TENANT
from minoots.errors import ConfigError, Forbidden, InvalidTimer, MalformedRequest, Unauthenticated
from minoots.settings import Environment

Tier = Literal["free", "pro", "team", "unlimited"]
SCOPES = ("timers:read", "timers:write", "secrets:read", "secrets:write")

# What development accepts when no keys are given.
DEMO_KEYS: Mapping[str, Tier] = {
    "mnt_example": "free",
    "mnt_demo_key_free": "free",
    "mnt_demo_key_pro": "pro",
    "mnt_demo_key_team": "team",
}

# The name of a field that there is not: somebody may have put the key there.
_UNKNOWN = re.compile(r"unknown field `.*`(?= - at |$)", re.DOTALL)

_Tenant = Annotated[str, msgspec.Meta(pattern=f"^{TENANT}$")]


class KeyEntry(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One key as it is configured."""

    key: Annotated[str, msgspec.Meta(min_length=8, max_length=500)]
    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    tier: Tier = "free"
    tenants: list[_Tenant] | None = None
    scopes: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key. `tenants` and `scopes` are None where there is no bound."""

    user_id: str
    tier: Tier
    tenants: frozenset[str] | None
    scopes: frozenset[str] | None

    def require(self, scope: str) -> None:
        """Raises Forbidden where the key has scopes, and this is none of them."""
        if self.scopes is not None and scope not in self.scopes:
            raise Forbidden(f"this API key has no scope {scope}")

    def choose_tenant(self, given: Iterable[tuple[str, str | None]]) -> str:
        """The one tenant that the places of a request name, else the key's only one.

        `given` is (where, value). Raises MalformedRequest on a contradiction or when there is none, Forbidden when
        the key may not use it.
        """
        named = [(where, value) for where, value in given if value is not None and value != ""]
        if len({value for _, value in named}) > 1:
            said = " and ".join(f"{where} says {value!r}" for where, value in named)
            raise MalformedRequest(f"the request names two tenants: {said}")
        if named:
            tenant = named[0][1]
        elif self.tenants is not None and len(self.tenants) == 1:
            (tenant,) = self.tenants
        else:
            raise MalformedRequest(
                "say which tenant: in the header x-tenant-id, the parameter tenantId or the body's tenantId"
            )
        if not _is_tenant(tenant):
            raise InvalidTimer.at(
                "/tenantId", "a tenant has 1 to 128 letters, digits and _ : @ -, and starts with a letter or digit"
            )
        if self.tenants is not None and tenant not in self.tenants:
            raise Forbidden(f"this API key may not use the tenant {tenant}")
        return tenant


def _is_tenant(text: str) -> bool:
    try:
        msgspec.convert(text, _Tenant)
    except msgspec.ValidationError:
        return False
    return text.isascii() and not text.endswith("\n")


class Keys:
    """The keys of this process. Only their hashes are kept."""

    def __init__(self, callers: Mapping[bytes, Caller]) -> None:
        self._callers = dict(callers)

    def identify(self, key: str | None) -> Caller:
        """Who has this key; raises Unauthenticated."""
        if not key:
            raise Unauthenticated
        caller = self._callers.get(_digest(key))
        if caller is None:
            raise Unauthenticated("this API key is not known")
        return caller


def load_keys(env: Environment, path: Path | None, text: str | None) -> Keys:
    """The configured keys, else the demo keys in development; raises ConfigError."""
    if path is not None:
        try:
            text = path.read_text("utf-8")
        except OSError as unreadable:
            raise ConfigError(f"API_KEYS_PATH={path} cannot be read: {unreadable.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"API_KEYS_PATH={path} is not usable: it is not UTF-8") from None
    source = "API_KEYS_PATH" if path is not None else "API_KEYS_JSON"
    if text is None:
        if env == "production":
            raise ConfigError("set API_KEYS_PATH or API_KEYS_JSON: production has no demo keys")
        return Keys({_digest(key): Caller("demo", tier, None, None) for key, tier in DEMO_KEYS.items()})
    entries = _entries(source, text)
    if not entries:
        raise ConfigError(f"{source} has no keys: nobody could come in")
    callers: dict[bytes, Caller] = {}
    for index, entry in enumerate(entries):
        if env == "production" and (entry.key in DEMO_KEYS or entry.tenants is None):
            what = "is a demo key" if entry.key in DEMO_KEYS else "names no tenants"
            raise ConfigError(f"{source}: entry {index} {what}; production does not accept that")
        if unknown := sorted(set(entry.scopes or ()) - set(SCOPES)):
            raise ConfigError(
                f"{source}: entry {index} has the unknown scope {unknown[0]}; there are {', '.join(SCOPES)}"
            )
        if _digest(entry.key) in callers:
            raise ConfigError(f"{source}: entry {index} has the key of an entry before it; leave one of them out")
        callers[_digest(entry.key)] = Caller(
            entry.user_id,
            entry.tier,
            None if entry.tenants is None else frozenset(entry.tenants),
            None if entry.scopes is None else frozenset(entry.scopes),
        )
    return Keys(callers)


def _entries(source: str, text: str) -> list[KeyEntry]:
    """Never repeats what it read: a key would be in it."""
    try:
        return msgspec.convert(json.loads(text), list[KeyEntry])
    except ValueError as wrong:
        where = _UNKNOWN.sub("an unknown field", str(wrong))
        where = where if isinstance(wrong, msgspec.ValidationError) else "it is no JSON"
        raise ConfigError(
            f'{source} is not usable: {where}; write [{{"key":"mnt_…","userId":"…","tier":"free","tenants":["…"]}}]'
        ) from None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
