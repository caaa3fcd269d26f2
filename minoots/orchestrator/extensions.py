"""Adapters and action kinds of others, through Python entry points (docs/extending.md).

One that cannot be loaded is said in the log, and refused wherever it is asked for; all else goes on without it.
"""

import importlib.metadata
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import structlog

from minoots.domain.abilities import Brought
from minoots.domain.agent import EXTENSION
from minoots.domain.limits import ACTION_TIMEOUT_MS
from minoots.domain.outcome import Answer, Outcome, Rejected
from minoots.errors import Finding
from minoots.orchestrator.actions import ActionRunner, Refusing
from minoots.orchestrator.actions.adapters import Adapter, Prompt, mcp
from minoots.orchestrator.actions.bounded import bounded
from minoots.orchestrator.actions.request import ActionRequest
from minoots.orchestrator.actions.webhook import WebhookRunner

log = structlog.get_logger("minoots.extensions")

ADAPTERS: Final = "minoots.agent_adapters"
KINDS: Final = "minoots.action_kinds"
_NAME: Final = re.compile(EXTENSION)


@dataclass(frozen=True, slots=True)
class Tools:
    """What an extension may use. `webhooks.run` sends signed HTTP, `webhooks.session` is an aiohttp session; both dial
    allowed addresses alone."""

    webhooks: WebhookRunner


class AdapterExtension(Protocol):
    """What an entry point of `minoots.agent_adapters` names: a class. Without `check_target` every target is taken."""

    def __init__(self, tools: Tools) -> None: ...

    async def send(self, prompt: Prompt) -> Outcome: ...


class KindExtension(ActionRunner, Protocol):
    """What an entry point of `minoots.action_kinds` names: a class. Without `check_parameters` all are taken."""

    def __init__(self, tools: Tools) -> None: ...


@dataclass(frozen=True, slots=True)
class Extensions:
    """What there is by name, and why something is not."""

    adapters: Mapping[str, type[AdapterExtension]] = field(default_factory=dict)
    kinds: Mapping[str, type[KindExtension]] = field(default_factory=dict)
    missing_adapters: Mapping[str, str] = field(default_factory=dict)
    missing_kinds: Mapping[str, str] = field(default_factory=dict)

    def brought(self) -> Brought:
        """As the doors need it: what is asked of an action before its timer is made."""
        return Brought(
            {name: partial(_check_parameters, found) for name, found in self.kinds.items()},
            self.missing_kinds,
            {name: partial(_check_target, found) for name, found in self.adapters.items()},
            self.missing_adapters,
        )

    def make_adapters(self, tools: Tools) -> dict[str, Adapter]:
        """One of each, ready to send."""
        made: dict[str, Adapter] = {name: _Missing(why) for name, why in self.missing_adapters.items()}
        for name, found in self.adapters.items():
            try:
                made[name] = _Adapter(found(tools))
            except Exception:
                log.exception("extension.broken", name=name)
                made[name] = _Missing(_cannot(name))
        return made

    def make_kinds(self, tools: Tools) -> dict[str, ActionRunner]:
        """One of each, ready to run."""
        made: dict[str, ActionRunner] = {name: Refusing(why) for name, why in self.missing_kinds.items()}
        for name, found in self.kinds.items():
            try:
                made[name] = _Kind(found(tools))
            except Exception:
                log.exception("extension.broken", name=name)
                made[name] = Refusing(_cannot(name))
        return made


class _Adapter:
    """Somebody else's adapter, within our bounds."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    async def send(self, prompt: Prompt) -> Outcome:
        return await bounded(self._adapter.send(prompt), prompt.timeout_ms / 1000)


class _Kind:
    """Somebody else's action kind, within our bounds."""

    def __init__(self, kind: ActionRunner) -> None:
        self._kind = kind

    async def run(self, request: ActionRequest) -> Outcome:
        return await bounded(self._kind.run(request), ACTION_TIMEOUT_MS / 1000)


class _Missing:
    """Stands in for an adapter that cannot be loaded here."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def send(self, prompt: Prompt) -> Outcome:
        return Rejected(self._why, Answer())


def load_extensions() -> Extensions:
    """Everything that is installed beside MINOOTS; never raises for what is wrong with it."""
    adapters, missing_adapters = _load(ADAPTERS, "send")
    kinds, missing_kinds = _load(KINDS, "run")
    if not mcp.is_installed():
        missing_adapters["mcp"] = mcp.MISSING
    return Extensions(adapters, kinds, missing_adapters, missing_kinds)


def _load(group: str, verb: str) -> tuple[dict[str, Any], dict[str, str]]:
    loaded: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=group):
        if not _NAME.fullmatch(point.name):
            log.error("extension.refused", group=group, name=point.name, note="its name needs a dot, as acme.crew")
        elif point.name in loaded or point.name in missing:
            log.error("extension.refused", group=group, name=point.name, note="two packages bring one of this name")
            loaded.pop(point.name, None)
            missing[point.name] = f"two installed packages bring {point.name}; its operator can remove one"
        else:
            try:
                found = point.load()
                if not callable(getattr(found, verb, None)):
                    raise TypeError(f"{point.value} has no method {verb}")
            except Exception:
                log.exception("extension.broken", group=group, name=point.name)
                missing[point.name] = _cannot(point.name)
            else:
                loaded[point.name] = found
    return loaded, missing


def _cannot(name: str) -> str:
    return f"{name} is installed here but cannot be loaded; its operator finds the reason in the log"


def _check_target(found: Any, tenant_id: str, parameters: Mapping[str, Any], pointer: str) -> list[Finding]:
    check = getattr(found, "check_target", None)
    if check is None:
        return []
    try:
        fault = check(parameters.get("target"))
    except Exception:
        log.exception("extension.check_broke", extension=found.__name__)
        fault = "its adapter could not check this target"
    return [Finding(f"{pointer}/target", str(fault))] if fault else []


def _check_parameters(found: Any, tenant_id: str, parameters: Mapping[str, Any], pointer: str) -> list[Finding]:
    check = getattr(found, "check_parameters", None)
    if check is None:
        return []
    try:
        faults: Iterable[tuple[str, str]] = check(parameters)
        return [Finding(f"{pointer}{where}", str(fault)) for where, fault in faults]
    except Exception:
        log.exception("extension.check_broke", extension=found.__name__)
        return [Finding(pointer, "its kind could not check these parameters")]
