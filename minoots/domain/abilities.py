"""What this installation can run when a timer fires. What it cannot is refused when the timer is made."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from minoots.errors import Finding, InvalidTimer

# Tenant, parameters, where they stand: what keeps the action from being run, none when nothing does.
Check = Callable[[str, Mapping[str, Any], str], list[Finding]]


def runs_all(tenant_id: str, parameters: Mapping[str, Any], pointer: str) -> list[Finding]:
    """The check of a kind that can always be run."""
    return []


@dataclass(frozen=True, slots=True)
class Brought:
    """What extensions bring: a check for each action kind and agent adapter, and why some of them are not there."""

    kinds: Mapping[str, Check] = field(default_factory=dict)
    missing_kinds: Mapping[str, str] = field(default_factory=dict)
    adapters: Mapping[str, Check] = field(default_factory=dict)
    missing_adapters: Mapping[str, str] = field(default_factory=dict)


class _Escalation(msgspec.Struct, rename="camel"):
    escalates_to: "_Action | None" = None


class _Action(msgspec.Struct, rename="camel"):
    kind: str
    parameters: dict[str, Any]
    escalation: _Escalation | None = None


class _Bundle(msgspec.Struct):
    actions: list[_Action]


_read_bundle = msgspec.json.Decoder(_Bundle).decode


@dataclass(frozen=True, slots=True)
class Abilities:
    """`kinds` has a check a kind that is run, `missing` says of a kind that is not why, and what its operator can do.

    `binding` is the check of an agent binding. The same in every process of an installation: they have the same
    settings.
    """

    kinds: Mapping[str, Check]
    missing: Mapping[str, str] = field(default_factory=dict)
    binding: Check = runs_all

    def check(self, tenant_id: str, bundle: str | None, binding: str | None) -> None:
        """Raises InvalidTimer. `bundle` and `binding` are JSON that keeps the rules; None is nothing to run."""
        findings: list[Finding] = []
        if bundle is not None:
            for pointer, action in _actions(_read_bundle(bundle).actions):
                findings += self._faults(tenant_id, action, pointer)
        if binding is not None:
            findings += self.binding(tenant_id, msgspec.json.decode(binding), "/agentBinding")
        if findings:
            raise InvalidTimer(findings)

    def why_not(self, kind: str) -> str | None:
        """A sentence for a kind that is not run; None for one that is."""
        if kind in self.kinds:
            return None
        there = ", ".join(self.kinds)
        return self.missing.get(kind) or f"this installation has no action kind {kind[:64]}; it has {there}"

    def _faults(self, tenant_id: str, action: _Action, pointer: str) -> list[Finding]:
        if why := self.why_not(action.kind):
            return [Finding(f"{pointer}/kind", why)]
        return self.kinds[action.kind](tenant_id, action.parameters, f"{pointer}/parameters")


def _actions(listed: list[_Action]) -> Iterator[tuple[str, _Action]]:
    """Each action with its place, and after it what it escalates to."""
    for nth, first in enumerate(listed):
        pointer, action = f"/actionBundle/actions/{nth}", first
        while True:
            yield pointer, action
            if action.escalation is None or action.escalation.escalates_to is None:
                break
            pointer, action = f"{pointer}/escalation/escalatesTo", action.escalation.escalates_to
