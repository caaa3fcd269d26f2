"""What a person reads, and what a program reads: a table, and one JSON object on the last line."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_FRAME = frozenset(
    {"scenario", "parameters", "machine", "versions", "roles", "measured", "counts", "per_second", "processes"}
    | {"p50_ms", "p95_ms", "p99_ms", "max_ms", "lost", "duplicates", "early", "runs"}
)


def show(result: Mapping[str, Any], console: Console) -> None:
    """The table."""
    table = Table(title=f"minoots bench {result['scenario']}", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in _rows(result):
        table.add_row(name, text)
    console.print(table)


def as_line(result: Mapping[str, Any]) -> str:
    """One line."""
    return json.dumps(result, ensure_ascii=False, default=str)


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    machine, versions = result["machine"], result["versions"]
    yield "machine", f"{machine['cpus']} × {machine['cpu']}, {machine['memory_gb']} GB"
    settings = ", ".join(f"{name} {value}" for name, value in versions["postgres_settings"].items())
    yield "postgres", f"{versions['postgres']}, {versions['servers']}; {settings}"
    yield "parameters", ", ".join(f"{name} {value}" for name, value in result["parameters"].items())
    yield "processes of MINOOTS", "; ".join(result["roles"]) or "none"
    if result["runs"] > 1:
        yield "runs", f"{result['runs']}, medians"
    yield "measured", result["measured"]
    yield from ((name.replace("_", " "), _shown(count)) for name, count in result["counts"].items())
    if result["per_second"] is not None:
        yield "a second", _shown(result["per_second"])
    if result["p50_ms"] is not None:
        spread = (f"{name} {_shown(result[f'{name}_ms'])}" for name in ("p50", "p95", "p99", "max"))
        yield "milliseconds", ", ".join(spread)
    yield "lost, twice, early", ", ".join(_shown(result[name]) for name in ("lost", "duplicates", "early"))
    for name, value in result.items():
        if name not in _FRAME and value is not None:
            yield name.replace("_", " "), _shown(value)
    for name, usage in result["processes"].items():
        yield f"cost of {name}", f"{_shown(usage['cpu_s'])} CPU seconds, {_shown(usage['peak_mb'])} MiB at most"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_shown(inner) for inner in value)
    return str(value)
