"""From a command line to the body of a request: what can be read at all; whether it is allowed the server says."""

import getpass
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minoots.cli.exits import misused
from minoots.domain.duration import parse_duration, parse_instant


@dataclass(frozen=True, slots=True)
class WhenOptions:
    """The options that say when, as they were typed."""

    at: str | None = None
    cron: str | None = None
    every: str | None = None
    timezone: str | None = None
    schedule: str | None = None

    def are_given(self) -> bool:
        """Whether there is any."""
        return any(value is not None for value in (self.at, self.cron, self.every, self.timezone, self.schedule))


def read_when(words: Sequence[str | None], options: WhenOptions) -> tuple[dict[str, Any], str | None]:
    """`DURATION [NAME]`, or `[NAME]` and one of the options: the body's duration, fireAt or schedule, and the name.

    With one word there is no name, with none no duration.
    """
    first, second = [*words, None, None][:2]
    named = (
        ("--at", options.at),
        ("--cron", options.cron),
        ("--every", options.every),
        ("--schedule", options.schedule),
    )
    given = [name for name, value in named if value is not None]
    if options.timezone is not None and options.cron is None:
        raise misused("--timezone goes with --cron; in a --schedule it stands beside its cron or rrule")
    if not given:
        if first is None:
            ways = "--cron, --every or --schedule" if not words else "30s, or --at, --cron, --every or --schedule"
            raise misused(f"say when: {ways}")
        return {"duration": read_duration(first)}, second
    is_duration = second is not None or (len(words) == 1 and first is not None)
    if len(given) > 1 or is_duration:
        both = [*([f"the duration {first}"] if is_duration else []), *given]
        raise misused(f"give only one of {' and '.join(both)}")
    return _read_option(options), first


def _read_option(options: WhenOptions) -> dict[str, Any]:
    if options.at is not None:
        return {"fireAt": read_instant_option("--at", options.at)}
    if options.cron is not None:
        zone = {} if options.timezone is None else {"timezone": options.timezone}
        return {"schedule": {"cron": options.cron, **zone}}
    if options.every is not None:
        return {"schedule": {"every": read_duration(options.every)}}
    return {"schedule": read_json_or_file("--schedule", options.schedule or "")}


def read_instant_option(name: str, text: str) -> str:
    """An instant that has the form of one."""
    try:
        parse_instant(text)
    except ValueError as wrong:
        raise misused(f"{name} {text}: {wrong}") from None
    return text.strip()


def camel(name: str) -> str:
    """`action-bundle` as REST calls it."""
    first, *others = name.split("-")
    return first + "".join(word.title() for word in others)


def read_duration(text: str) -> str:
    """A duration that has the form of one; how long it may be is the server's rule."""
    text = text.strip()
    if re.fullmatch(r"\d+", text, re.ASCII):
        raise misused(f"{text} has no unit; write {text}s for seconds, {text}ms for milliseconds")
    try:
        # With ones for all its numbers a duration keeps every rule, so what is refused now is its form.
        parse_duration(re.sub(r"\d+(\.\d+)?", "1", text, flags=re.ASCII))
    except ValueError:
        raise misused(f'"{text}" is no duration; write it as 30s, 1h30m or PT30S') from None
    return text


def read_timeout(text: str) -> float:
    """Seconds, of a duration or of a bare number of seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    try:
        return parse_duration(read_duration(text)) / 1000
    except ValueError as wrong:
        raise misused(f"--timeout {text}: {wrong}") from None


def read_labels(pairs: Sequence[str], separators: str) -> dict[str, str]:
    """`k=v` or `k:v`; the first of `separators` that is there divides."""
    labels: dict[str, str] = {}
    for pair in pairs:
        separator = next((s for s in separators if s in pair), None)
        if separator is None:
            raise misused(f'the label "{pair}" has no value; write it as --label {pair}{separators[0]}VALUE')
        key, _, value = pair.partition(separator)
        if key in labels:
            raise misused(f'the label "{key}" is given twice')
        labels[key] = value
    return labels


def read_json_option(name: str, text: str) -> Any:
    """The JSON of an option's text."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as wrong:
        raise misused(f"{name} is no valid JSON: {wrong}") from None


def read_json_or_file(name: str, text: str) -> Any:
    """JSON as it is, or the file that holds it; `-` is standard input."""
    if text.lstrip()[:1] in ("{", "["):
        return read_json_option(name, text)
    try:
        content = sys.stdin.read() if text == "-" else Path(text).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) and wrong.strerror else "it is no UTF-8 text"
        raise misused(f"{name} {text} is neither a JSON object nor a file that can be read: {reason}") from None
    return read_json_option(f"{name} {text}", content)


def webhook_bundle(urls: Sequence[str]) -> dict[str, Any]:
    """A bundle that calls these URLs."""
    return {
        "actions": [
            {"id": "webhook" if nth == 1 else f"webhook-{nth}", "kind": "webhook", "parameters": {"url": url}}
            for nth, url in enumerate(urls, start=1)
        ]
    }


def person() -> str:
    """Who sits here, for `requestedBy`."""
    try:
        return getpass.getuser()[:200] or "cli"
    except (KeyError, OSError):
        return "cli"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not in JSON")
