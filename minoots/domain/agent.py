"""Agents: which adapter brings a prompt where, what the prompt says, and the rules of an `agent_prompt` action."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from minoots.domain.json_text import describe_mismatch, escape_step
from minoots.domain.limits import ACTION_TIMEOUT_MS, URL_CHARACTERS, YEAR_MS
from minoots.domain.template import check_template
from minoots.errors import Finding

ADAPTERS: Final = ("mcp", "langchain", "autogen", "custom")
# What is brought along by others has a dot in its name, so that ours and theirs never meet.
EXTENSION: Final = r"[a-z][a-z0-9_]{0,30}(?:\.[a-z0-9_]{1,31}){1,3}"
ADAPTER_SCHEMA: Final = {"pattern": rf"^(?:{'|'.join(ADAPTERS)}|{EXTENSION})$"}

_EXTENSION: Final = re.compile(EXTENSION)
# As the schema's is_agent_target has it. A subject ends where NATS would, with the tenant and the schema before it.
_SUBJECT: Final = re.compile(r"nats:(?P<subject>[A-Za-z0-9_-]{1,64}(?:\.[A-Za-z0-9_-]{1,64}){0,7})")
_TOOL: Final = re.compile(r"[A-Za-z0-9_./-]{1,128}")

Adapter = Annotated[str, msgspec.Meta(extra_json_schema=ADAPTER_SCHEMA)]
Target = Annotated[str, msgspec.Meta(min_length=1, max_length=URL_CHARACTERS)]
AcknowledgementMs = Annotated[int, msgspec.Meta(ge=1, le=YEAR_MS)]


class AgentParameters(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Parameters of an `agent_prompt` action. Without adapter and target it goes where the timer's agentBinding says.

    `prompt` is a template in short: {"prompt": text}.
    """

    adapter: Adapter | None = None
    target: Target | None = None
    payload_template: Any = None
    prompt: str | None = None
    headers: dict[str, str] | None = None
    acknowledgement_timeout_ms: AcknowledgementMs | None = None
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=ACTION_TIMEOUT_MS)] | None = None

    def template(self) -> Any:
        """What the agent is told; None is `{timer, event}` as it is."""
        return self.payload_template if self.prompt is None else {"prompt": self.prompt}


def subject_of(target: str) -> str | None:
    """`planner.jobs` of `nats:planner.jobs`; None for what is no subject."""
    found = _SUBJECT.fullmatch(target)
    return found["subject"] if found else None


def check_agent_parameters(
    parameters: dict[str, Any],
    pointer: str,
    check_url: Callable[[str], list[str]],
    check_header: Callable[[str, str], str | None],
) -> list[Finding]:
    """What is wrong with an action's parameters; the two checks are those of a webhook."""
    try:
        asked = msgspec.convert(parameters, AgentParameters)
    except msgspec.ValidationError as mismatch:
        found = describe_mismatch(str(mismatch))
        return [Finding(pointer + found.pointer, found.detail)]
    findings: list[Finding] = []
    if asked.prompt is not None and asked.payload_template is not None:
        findings.append(Finding(f"{pointer}/prompt", "give prompt or payloadTemplate, not both"))
    elif asked.prompt is not None:
        findings += check_template(asked.prompt, f"{pointer}/prompt")
    for name, value in (asked.headers or {}).items():
        if detail := check_header(name, value):
            findings.append(Finding(f"{pointer}/headers/{escape_step(name)}", detail))
    if asked.adapter is None and asked.target is None:
        return findings + check_template(asked.payload_template, f"{pointer}/payloadTemplate")
    for name, given in (("adapter", asked.adapter), ("target", asked.target)):
        if given is None:
            where = "give both, or neither: then the timer's agentBinding says where"
            return [*findings, Finding(f"{pointer}/{name}", f"{name} is required beside the other: {where}")]
    return findings + check_agent(asked.adapter or "", asked.target or "", asked.payload_template, pointer, check_url)


def check_agent(
    adapter: str, target: str, template: Any, pointer: str, check_url: Callable[[str], list[str]]
) -> list[Finding]:
    """What is wrong with where a prompt goes and what it says. An extension's target is its own to check."""
    if adapter not in ADAPTERS and not _EXTENSION.fullmatch(adapter):
        names = f"{', '.join(ADAPTERS)}; an adapter of an extension has a dot in its name"
        return [Finding(f"{pointer}/adapter", f"{adapter[:64]} is none of {names}")]
    findings = [Finding(f"{pointer}/target", detail) for detail in _target_faults(adapter, target, check_url)]
    return findings + check_template(template, f"{pointer}/payloadTemplate")


def _target_faults(adapter: str, target: str, check_url: Callable[[str], list[str]]) -> list[str]:
    if adapter not in ADAPTERS:
        return []
    if target.startswith("nats:"):
        if adapter in ("mcp", "langchain"):
            return [f"the adapter {adapter} calls an http or https URL; a NATS subject is for autogen and custom"]
        if subject_of(target) is None:
            return ["a subject is nats: and up to 8 words of letters, digits, _ and -, as nats:planner.jobs"]
        return []
    if faults := check_url(target):
        return faults
    tool = target.partition("#")[2]
    if adapter == "mcp" and tool and not _TOOL.fullmatch(tool):
        return ["after # stands the tool's name: up to 128 letters, digits, _, -, . and /"]
    return []


def complete(parameters: Mapping[str, Any], binding: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parameters with what the binding says, when they name neither adapter nor target: their own go first."""
    own = {name: value for name, value in parameters.items() if value is not None}
    if "adapter" in own or "target" in own:
        return own
    rest = dict(binding or {})
    if "prompt" in own:
        rest.pop("payloadTemplate", None)
    return rest | own
