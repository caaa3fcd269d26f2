"""What a timer does when it fires: actions, bundles, agent bindings, and the rules they keep."""

import ipaddress
import re
import unicodedata
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from minoots.domain.json_text import describe_mismatch, escape_step
from minoots.domain.limits import (
    ACTION_ID,
    ACTION_TIMEOUT_MS,
    ACTIONS,
    JSON_DEPTH,
    URL_CHARACTERS,
    YEAR_MS,
)
from minoots.domain.retry import RetryPolicy
from minoots.errors import Finding, InvalidTimer

T = TypeVar("T")

Kind = Literal["webhook", "agent_prompt", "command", "workflow_event"]

# RFC 9110, sections 5.1 and 5.5: a field name is a token, a value has no control characters.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_ACTION_ID = re.compile(ACTION_ID)
# As the schema's is_url has it.
_URL = re.compile(
    r"[Hh][Tt][Tt][Pp][Ss]?://(?:(?P<host>[^\x00-\x20\x7f/?#@:\[\]\\]+)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#][^\x00-\x20\x7f\\]*)?"
)
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f\\]")
_USER = re.compile(r"[A-Za-z]+://[^/?#]*@")
_NO_HOST = re.compile(r"[\x00-\x20\x7f-\xa0/?#@:\[\]\\]")
# What the sender sets itself, and what would let a request become another one.
_OWN_HEADERS = {"host", "content-length", "transfer-encoding", "connection", "cookie", "upgrade", "te", "trailer"}
_OWN_PREFIXES = ("webhook-", "proxy-", "x-minoots-")


class Webhook(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Parameters of a `webhook` action. Without `body` the receiver gets `{timer, event}`."""

    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    headers: dict[str, str] | None = None
    body: Any = msgspec.UNSET
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=ACTION_TIMEOUT_MS)] | None = None


class Action(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One thing to do. `parameters` are read by the kind."""

    id: str
    kind: Kind
    parameters: dict[str, Any]
    escalation: Any = None


class ActionBundle(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What to do, how many at once, and how to try again."""

    actions: Annotated[list[Action], msgspec.Meta(max_length=ACTIONS)]
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=ACTIONS)] | None = None
    retry_policy: RetryPolicy | None = None


class AgentBinding(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The agent that a timer wakes."""

    adapter: Literal["mcp", "langchain", "autogen", "custom"]
    target: Annotated[str, msgspec.Meta(min_length=1, max_length=URL_CHARACTERS)]
    payload_template: Any = None
    acknowledgement_timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=YEAR_MS)] | None = None


def check_action_bundle(text: bytes) -> None:
    """Raises InvalidTimer with every rule that the bundle breaks, pointers below /actionBundle."""
    bundle = _decode(text, ActionBundle, "/actionBundle")
    findings: list[Finding] = []
    seen: set[str] = set()
    for index, action in enumerate(bundle.actions):
        pointer = f"/actionBundle/actions/{index}"
        if action.id in seen:
            findings.append(
                Finding(f"{pointer}/id", f'two actions have the id "{action.id}"; ids are unique in a bundle')
            )
        seen.add(action.id)
        findings += check_action(action, pointer)
    if findings:
        raise InvalidTimer(findings)


def check_action(action: Action, pointer: str) -> list[Finding]:
    """What is wrong with one action."""
    findings: list[Finding] = []
    if not _ACTION_ID.fullmatch(action.id):
        findings.append(
            Finding(
                f"{pointer}/id", "an action id has 1 to 63 letters, digits, _ and -, and starts with none of these two"
            )
        )
    elif action.id == "agent":
        findings.append(Finding(f"{pointer}/id", 'the id "agent" is taken by the agent binding; choose another'))
    if action.kind == "webhook":
        findings += _check_webhook(action.parameters, f"{pointer}/parameters")
    if action.escalation is not None:
        # Kept out rather than kept and never acted on.
        findings.append(Finding(f"{pointer}/escalation", "this version does not escalate; leave escalation out"))
    return findings


def _check_webhook(parameters: dict[str, Any], pointer: str) -> list[Finding]:
    try:
        webhook = msgspec.convert(parameters, Webhook)
    except msgspec.ValidationError as mismatch:
        found = describe_mismatch(str(mismatch))
        return [Finding(pointer + found.pointer, found.detail)]
    findings = [Finding(f"{pointer}/url", detail) for detail in _url_faults(webhook.url)]
    for name, value in (webhook.headers or {}).items():
        if detail := _header_fault(name, value):
            findings.append(Finding(f"{pointer}/headers/{escape_step(name)}", detail))
    return findings


def _url_faults(url: str) -> list[str]:
    if len(url) > URL_CHARACTERS:
        return [f"a URL has at most {URL_CHARACTERS} characters"]
    if _NOT_IN_URL.search(url):
        return ["a URL may not hold spaces, backslashes or control characters; encode them as %20 and the like"]
    if _USER.match(url):
        return ["a URL may not carry a user or password; put credentials into headers"]
    found = _URL.fullmatch(url)
    if not found or not 0 < int(found["port"] or 1) < 65536 or not _is_host(found["host"], found["ipv6"]):
        return ["a webhook goes to an http or https URL with a host, as https://example.com/path"]
    return []


def _is_host(name: str | None, address: str | None) -> bool:
    """Refuses also what would be another host once it is written in compatible characters (UTS 46)."""
    if name is not None:
        return name.isascii() or not _NO_HOST.search(unicodedata.normalize("NFKC", name))
    try:
        ipaddress.IPv6Address(address or "")
    except ValueError:
        return False
    return True


def _header_fault(name: str, value: str) -> str | None:
    if not _TOKEN.fullmatch(name) or len(name) > 256:
        return "this is no HTTP header name"
    if name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIXES):
        return f"the header {name} is set by the sender"
    if not _FIELD_VALUE.fullmatch(value) or len(value) > 8_192:
        return "a header value has no control characters, and at most 8,192 characters"
    return None


def check_agent_binding(text: bytes) -> None:
    """Raises InvalidTimer with pointers below /agentBinding."""
    _decode(text, AgentBinding, "/agentBinding")


def _decode(text: bytes, kind: type[T], pointer: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as mismatch:
        raise InvalidTimer([describe_mismatch(str(mismatch))]).below(pointer) from None
    except RecursionError:
        raise InvalidTimer.at(pointer, f"the JSON is nested deeper than {JSON_DEPTH} levels") from None
