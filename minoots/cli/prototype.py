"""The JSON store of the prototype: reading it, and putting its timers into the words of `POST /timers`. No I/O beyond
the file."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from minoots.cli.exits import misused
from minoots.domain.duration import format_instant, parse_instant
from minoots.domain.timer import TimerRequest, admit
from minoots.errors import InvalidTimer

MARK: Final = "imported-from"
"""The label that says which old timer a new one was, so that a second import finds it."""

_WAITING = {"scheduled", "armed", "pending"}
_ENDED = {
    "fired": "it has fired",
    "settled": "it has settled",
    "failed": "it has failed",
    "cancelled": "it was cancelled",
}
# Milliseconds since 1970 that name an instant before 1980 are seconds, or something else: nothing to fire by.
_EARLIEST_MS = 315_532_800_000
_WEBHOOK_WORDS = ("url", "method", "headers", "body", "timeoutMs")


class NotTaken(Exception):
    """This timer stays behind; the message is the reason."""


class Ended(NotTaken):
    """It has nothing left to do."""


@dataclass(frozen=True, slots=True)
class OldTimer:
    """A timer that still waits. `body` is what to POST, without an instant; `fire_at` is when it was due."""

    old_id: str
    tenant_id: str | None
    body: dict[str, Any]
    fire_at: datetime

    def request(self, now: datetime) -> dict[str, Any]:
        """The body with its instant; what fell due while nobody was there fires at once."""
        when = {"duration": "1ms"} if self.is_overdue(now) else {"fireAt": format_instant(self.fire_at)}
        return {**self.body, **when}

    def is_overdue(self, now: datetime) -> bool:
        return self.fire_at <= now

    def idempotency_key(self) -> str:
        """The same for the same old timer; any text as an id becomes one that fits into a header."""
        if re.fullmatch(r"[!-~]{1,200}", self.old_id, re.ASCII):
            return f"import:{self.old_id}"
        return f"import:sha256:{hashlib.sha256(self.old_id.encode(errors='surrogatepass')).hexdigest()}"


def read_store(path: Path) -> list[tuple[str, Any]]:
    """The timers of the file with their ids ("" where one has none), as they are."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as unreadable:
        raise misused(f"{path} cannot be read: {unreadable.strerror or unreadable}") from None
    except UnicodeDecodeError:
        raise misused(f"{path} is not UTF-8 text; give the JSON file that the prototype wrote") from None
    try:
        content = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as broken:
        raise misused(f"{path} is no valid JSON ({broken}); give the file that the prototype wrote") from None
    found = list(_timers(content))
    if not found and content not in ([], {}) and not (isinstance(content, dict) and not content.get("timers", True)):
        raise misused(f"{path} is no store of timers: it must be a list of timers, or an object of timers by id")
    return found


def convert(key: str, old: Any, tenant: str | None) -> OldTimer:
    """One timer in our words; raises NotTaken with the reason, Ended when there is nothing left to do.

    `tenant` goes before the one in the file. Its rules are those of POST /timers; the server has the last word.
    """
    if not isinstance(old, dict):
        raise NotTaken("it is no JSON object")
    fields = _camel(old)
    _check_status(fields.get("status"))
    old_id = str(fields.get("id") or key)
    if not old_id:
        raise NotTaken("it has no id, so a second import could not tell it from a new one")
    if len(old_id) > 255:
        raise NotTaken("its id is longer than 255 characters")
    body: dict[str, Any] = {
        "requestedBy": fields.get("requestedBy") or "import",
        "labels": {**_labels(fields.get("labels")), MARK: old_id},
    }
    for name in ("name", "metadata"):
        if fields.get(name) not in (None, ""):
            body[name] = fields[name]
    if fields.get("actionBundle"):
        try:
            body["actionBundle"] = convert_bundle(fields["actionBundle"])
        except RecursionError:
            raise NotTaken("its actionBundle is nested too deep") from None
    if fields.get("agentBinding"):
        body["agentBinding"] = _convert_binding(fields["agentBinding"])
    fire_at = _fire_at(fields)
    chosen = tenant or fields.get("tenantId")
    if chosen is not None and not isinstance(chosen, str):
        raise NotTaken("its tenantId is no text")
    timer = OldTimer(old_id, chosen or None, body, fire_at)
    _check_rules(timer)
    return timer


def convert_bundle(bundle: Any) -> Any:
    """A bundle, or a bare list of actions, with the names that the prototype used put into ours."""
    if isinstance(bundle, list):
        bundle = {"actions": bundle}
    if not isinstance(bundle, dict):
        return bundle
    converted = _without_nulls(_camel(bundle))
    actions = converted.get("actions")
    if not isinstance(actions, list):
        return converted
    taken = {a["id"] for a in actions if isinstance(a, dict) and isinstance(a.get("id"), str)}
    free = (f"action-{n}" for n in itertools.count(1) if f"action-{n}" not in taken)
    converted["actions"] = [_convert_action(action, free) for action in actions]
    return converted


def _convert_action(action: Any, free: Iterator[str]) -> Any:
    if not isinstance(action, dict):
        return action
    converted = _without_nulls(_camel(action))
    converted.setdefault("id", None)
    converted["id"] = converted["id"] or next(free)
    if "kind" not in converted and "type" in converted:
        converted["kind"] = converted.pop("type")
    if isinstance(converted.get("kind"), str):
        converted["kind"] = _snake(converted["kind"])
    for former in ("params", "payload"):
        if "parameters" not in converted and former in converted:
            converted["parameters"] = converted.pop(former)
    parameters = converted.setdefault("parameters", {})
    if converted.get("kind") == "webhook" and isinstance(parameters, dict):
        beside = {word: converted.pop(word) for word in _WEBHOOK_WORDS if word in converted and word not in parameters}
        parameters = {**beside, **_camel(parameters)}
        if isinstance(parameters.get("method"), str):
            parameters["method"] = parameters["method"].upper()
        converted["parameters"] = parameters
    escalation = converted.get("escalation")
    if isinstance(escalation, dict):
        escalation = _without_nulls(_camel(escalation))
        if "escalatesTo" in escalation:
            escalation["escalatesTo"] = _convert_action(escalation["escalatesTo"], free)
        converted["escalation"] = escalation
    return converted


def _convert_binding(binding: Any) -> Any:
    if not isinstance(binding, dict):
        return binding
    converted = _without_nulls(_camel(binding))
    if isinstance(converted.get("adapter"), str):
        converted["adapter"] = converted["adapter"].lower()
    return converted


def _check_status(status: Any) -> None:
    if not isinstance(status, str) or not status:
        raise NotTaken("it has no status, so nobody knows whether it still waits")
    word = status.lower().removeprefix("timer_status_").replace("canceled", "cancelled")
    if word in _ENDED:
        raise Ended(_ENDED[word])
    if word not in _WAITING:
        raise NotTaken(f"its status {status!r} is none that the prototype had")


def _fire_at(fields: Mapping[str, Any]) -> datetime:
    """When it is due: its `fireAt`, else `createdAt` and `durationMs`."""
    if fields.get("fireAt") is not None:
        return _instant("fireAt", fields["fireAt"])
    duration = fields.get("durationMs")
    if fields.get("createdAt") is None or isinstance(duration, bool) or not isinstance(duration, int | float):
        raise NotTaken("it has no fireAt, nor createdAt and durationMs to tell it from")
    try:
        return _instant("createdAt", fields["createdAt"]) + timedelta(milliseconds=duration)
    except (OverflowError, ValueError):
        raise NotTaken("its durationMs is out of range") from None


def _instant(name: str, value: Any) -> datetime:
    try:
        if isinstance(value, str) and not re.fullmatch(r"\d+", value, re.ASCII):
            return parse_instant(value)
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            ms = float(value)
            if ms < _EARLIEST_MS:
                raise NotTaken(f"its {name} {value} is no count of milliseconds since 1970 that a timer could have")
            return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
    except (ValueError, OverflowError):
        pass
    raise NotTaken(
        f"its {name} {json.dumps(value)} is no instant: ISO 8601 with its offset, or milliseconds since 1970"
    )


def _labels(labels: Any) -> dict[str, Any]:
    """Labels as text: 1 becomes "1", true "true"; null is none."""
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise NotTaken("its labels are no JSON object")
    return {
        key: json.dumps(value) if isinstance(value, bool | int | float) else value
        for key, value in labels.items()
        if value is not None
    }


def _check_rules(timer: OldTimer) -> None:
    """What the server would refuse, found without it."""
    body = {"tenantId": timer.tenant_id, **timer.request(datetime.now(UTC))}
    try:
        request = msgspec.json.decode(json.dumps(body), type=TimerRequest)
        admit(request)
    except InvalidTimer as refused:
        raise NotTaken(
            "; ".join(f"{f.detail} ({f.pointer})" if f.pointer else f.detail for f in refused.findings)
        ) from None
    except (msgspec.DecodeError, RecursionError) as mismatch:
        raise NotTaken(str(mismatch).replace("`", "")) from None


def _timers(content: Any) -> Iterator[tuple[str, Any]]:
    """A list, an object by id, or an object whose `timers` is one of both."""
    if isinstance(content, dict) and isinstance(content.get("timers"), list | dict):
        content = content["timers"]
    if isinstance(content, list):
        for timer in content:
            yield _id_of(timer), timer
    elif isinstance(content, dict) and all(isinstance(timer, dict) for timer in content.values()):
        for key, timer in content.items():
            yield _id_of(timer) or key, timer


def _id_of(timer: Any) -> str:
    return str(timer.get("id") or "") if isinstance(timer, dict) else ""


def _camel(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The kernel of the prototype wrote some names with underscores."""
    return {re.sub(r"(?<=[a-z0-9])_([a-z])", lambda m: m[1].upper(), name): value for name, value in fields.items()}


def _snake(kind: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", kind).replace("-", "_").lower()


def _without_nulls(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not in JSON")
