"""What the operator of this installation has given it to run: read from the settings, once, at the start."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from minoots.domain.abilities import Abilities, Brought, Check
from minoots.domain.agent import ADAPTERS, subject_of
from minoots.domain.command import Commands
from minoots.domain.command_file import read_commands
from minoots.domain.timer import NewTimer
from minoots.errors import ConfigError, Finding, InvalidTimer
from minoots.settings import Settings

NO_COMMANDS: Final = "this installation runs no commands; its operator can allow some in MINOOTS_COMMANDS_PATH"
NO_EVENTS: Final = (
    "this installation has nowhere to send workflow events: give the action an endpoint, "
    "or its operator can set NATS_URL or MINOOTS_WORKFLOW_ENDPOINT"
)

# A batch of 10,000 takes a tenth of a second; other requests are let in between so many.
_AT_ONCE: Final = 200
NO_SUBJECTS: Final = "this installation has no NATS for agents to listen on; its operator can set NATS_URL"


def load_commands(path: Path | None) -> Commands | None:
    """The commands of MINOOTS_COMMANDS_PATH; None when it is not set. Raises ConfigError with the place."""
    if path is None:
        return None
    source = f"MINOOTS_COMMANDS_PATH={path}"
    try:
        text = path.read_text("utf-8")
    except OSError as unreadable:
        raise ConfigError(f"{source} cannot be read: {unreadable.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{source} cannot be read: it is not UTF-8") from None
    return read_commands(text, source)


def abilities_of(settings: Settings, commands: Commands | None, brought: Brought | None = None) -> Abilities:
    """The same in every role, for they have the same settings. `brought` is what extensions bring."""
    brought = brought or Brought()
    agent = partial(_check_agent, settings, brought)
    workflow = partial(_check_workflow_event, settings)
    kinds: dict[str, Check] = {"webhook": settings.targets.check, "agent_prompt": agent, "workflow_event": workflow}
    missing = dict(brought.missing_kinds)
    if commands is not None:
        kinds["command"] = commands.check
    else:
        missing["command"] = NO_COMMANDS
    return Abilities({**kinds, **brought.kinds}, missing, agent)


def _check_agent(
    settings: Settings, brought: Brought, tenant_id: str, parameters: Mapping[str, Any], pointer: str
) -> list[Finding]:
    """Whether there is such an adapter, and what it says of the target. None named: the timer's binding names one."""
    adapter = parameters.get("adapter")
    if adapter is None:
        return []
    if why := brought.missing_adapters.get(adapter):
        return [Finding(f"{pointer}/adapter", why)]
    if adapter in ADAPTERS and subject_of(str(parameters.get("target"))) is not None:
        return [] if settings.broker.url is not None else [Finding(f"{pointer}/target", NO_SUBJECTS)]
    if adapter in ADAPTERS:
        return settings.targets.check(tenant_id, parameters, pointer, field="target")
    if adapter in brought.adapters:
        return brought.adapters[adapter](tenant_id, parameters, pointer)
    names = ", ".join([*ADAPTERS, *brought.adapters])
    return [Finding(f"{pointer}/adapter", f"there is no adapter {adapter[:64]} here; there are {names}")]


def _check_workflow_event(
    settings: Settings, tenant_id: str, parameters: Mapping[str, Any], pointer: str
) -> list[Finding]:
    if parameters.get("endpoint") is None and settings.broker.url is None and settings.workflow.endpoint is None:
        return [Finding(f"{pointer}/endpoint", NO_EVENTS)]
    return settings.targets.check(tenant_id, parameters, pointer, field="endpoint")


async def check_can_run(abilities: Abilities, tenant_id: str, new: Sequence[NewTimer], *, batch: bool) -> None:
    """Raises InvalidTimer with the first timer that cannot be run, of a batch below /items/N."""
    known: set[tuple[str | None, str | None]] = {(None, None)}
    for nth, timer in enumerate(new):
        if nth % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
        said = (timer.action_bundle, timer.agent_binding)
        if said in known:
            continue
        try:
            abilities.check(tenant_id, *said)
        except InvalidTimer as refused:
            raise refused.below(f"/items/{nth}") if batch else refused from None
        known.add(said)
