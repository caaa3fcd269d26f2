"""From a command line to the body of a request: what can be read at all; whether it is allowed the server says."""

import getpass
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minoots.cli.exits import misused
from minoots.domain.duration import parse_duration, parse_instant


def read_instant_words(first: str | None, second: str | None, at: str | None) -> tuple[dict[str, str], str | None]:
    """`DURATION [NAME]`, or `--at INSTANT [NAME]`: the body's instant and the name."""
    if at is None:
        if first is None:
            raise misused("say when: `minoots timer create 30s [NAME]`, or --at 2030-01-31T09:00:00Z")
        return {"duration": read_duration(first)}, second
    if second is not None:
        raise misused(f"give either the duration {first} or --at, not both")
    try:
        parse_instant(at)
    except ValueError as wrong:
        raise misused(f"--at {at}: {wrong}") from None
    return {"fireAt": at.strip()}, first


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
