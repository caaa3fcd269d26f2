"""What a timer does when it fires: actions, bundles, agent bindings, and the rules they keep."""

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from minoots.domain.agent import (
    EXTENSION,
    AcknowledgementMs,
    Adapter,
    Target,
    check_agent,
    check_agent_parameters,
)
from minoots.domain.json_text import describe_mismatch, escape_step
from minoots.domain.limits import (
    ACTION_ID,
    ACTION_TIMEOUT_MS,
    ACTIONS,
    ESCALATIONS,
    JSON_DEPTH,
    URL_CHARACTERS,
)
from minoots.domain.retry import RetryPolicy
from minoots.domain.workflow import check_workflow_event
from minoots.errors import Finding, InvalidTimer

T = TypeVar("T")

KINDS = ("webhook", "agent_prompt", "command", "workflow_event")
# A kind that an extension brings has a dot in its name, so that ours and theirs never meet.
_EXTENSION_KIND = re.compile(EXTENSION)

# Whether this installation can run it is another question, which `Abilities` answers.
Kind = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": rf"^(?:{'|'.join(KINDS)}|{EXTENSION})$"})]

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
    """Parameters of a `webhook` action. Without `body` the receiver gets `{timer, event}`.

    With `accept_directives` its answer may steer the timer: snooze it, or cancel its schedule.
    """

    url: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    headers: dict[str, str] | None = None
    body: Any = msgspec.UNSET
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=ACTION_TIMEOUT_MS)] | None = None
    acknowledgement_timeout_ms: AcknowledgementMs | None = None
    accept_directives: bool | None = None


class Escalation(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Another action that joins in when one has failed so often, or has given up before."""

    after_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)]
    escalates_to: "EscalatedAction"


class EscalatedAction(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What an action escalates to. Its id is for people, and need not be unique: the delivery is `{id}~1`."""

    id: str | None = None
    kind: Kind
    parameters: dict[str, Any]
    escalation: Escalation | None = None


class Action(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One thing to do. `parameters` are read by the kind."""

    id: str
    kind: Kind
    parameters: dict[str, Any]
    escalation: Escalation | None = None


class ActionBundle(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What to do, how many at once, and how to try again."""

    actions: Annotated[list[Action], msgspec.Meta(max_length=ACTIONS)]
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=ACTIONS)] | None = None
    retry_policy: RetryPolicy | None = None


class AgentBinding(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The agent that a timer wakes."""

    adapter: Adapter
    target: Target
    payload_template: Any = None
    acknowledgement_timeout_ms: AcknowledgementMs | None = None


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


def check_action(action: Action | EscalatedAction, pointer: str, depth: int = 0) -> list[Finding]:
    """What is wrong with one action, and with what it escalates to; `depth` is how often it was escalated to."""
    findings: list[Finding] = []
    if action.id is None:
        pass
    elif not _ACTION_ID.fullmatch(action.id):
        findings.append(
            Finding(
                f"{pointer}/id", "an action id has 1 to 63 letters, digits, _ and -, and starts with none of these two"
            )
        )
    elif action.id == "agent":
        findings.append(Finding(f"{pointer}/id", 'the id "agent" is taken by the agent binding; choose another'))
    findings += _check_kind(action, pointer)
    if action.escalation is None:
        return findings
    if depth == ESCALATIONS:
        findings.append(Finding(f"{pointer}/escalation", f"at most {ESCALATIONS} escalations follow one another"))
        return findings
    return findings + check_action(action.escalation.escalates_to, f"{pointer}/escalation/escalatesTo", depth + 1)


def _check_kind(action: Action | EscalatedAction, pointer: str) -> list[Finding]:
    match action.kind:
        case "webhook":
            return _check_webhook(action.parameters, f"{pointer}/parameters")
        case "agent_prompt":
            return check_agent_parameters(action.parameters, f"{pointer}/parameters", _url_faults, _header_fault)
        case "workflow_event":
            return check_workflow_event(action.parameters, f"{pointer}/parameters", _url_faults)
        case kind if kind not in KINDS and not _EXTENSION_KIND.fullmatch(kind):
            names = f"{', '.join(KINDS)}; a kind of an extension has a dot in its name"
            return [Finding(f"{pointer}/kind", f"{kind[:64]!r} is none of {names}")]
    return []


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
    binding = _decode(text, AgentBinding, "/agentBinding")
    if findings := check_agent(binding.adapter, binding.target, binding.payload_template, "/agentBinding", _url_faults):
        raise InvalidTimer(findings)


def check_agents_are_bound(bundle: str) -> list[Finding]:
    """Prompts that leave to an agentBinding where they go, of a timer that has none. The bundle keeps its rules."""
    # Most have none, and one that is spelt with escapes is found when it is run.
    if '"agent_prompt"' not in bundle:
        return []
    actions = msgspec.json.decode(bundle, type=ActionBundle).actions
    return [found for nth, action in enumerate(actions) for found in _unbound(action, f"/actionBundle/actions/{nth}")]


def _unbound(action: Action | EscalatedAction, pointer: str) -> Iterator[Finding]:
    if action.kind == "agent_prompt" and action.parameters.get("target") is None:
        detail = "adapter and target are required: the timer has no agentBinding that says where the agent is"
        yield Finding(f"{pointer}/parameters/target", detail)
    if action.escalation is not None:
        yield from _unbound(action.escalation.escalates_to, f"{pointer}/escalation/escalatesTo")


def _decode(text: bytes, kind: type[T], pointer: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as mismatch:
        raise InvalidTimer([describe_mismatch(str(mismatch))]).below(pointer) from None
    except RecursionError:
        raise InvalidTimer.at(pointer, f"the JSON is nested deeper than {JSON_DEPTH} levels") from None
