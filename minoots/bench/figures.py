"""What a measurement yields, and what is computed from many: percentiles, the medians of several runs."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from minoots.bench.sampling import Usage


@dataclass(frozen=True, slots=True)
class Result:
    """One run. `samples_ms` is what the percentiles are of, `measured` says in words what that is.

    `counts` are whole numbers; `figures` the scenario's own: numbers, or mappings and lists of them.
    """

    scenario: str
    parameters: Mapping[str, Any]
    roles: Sequence[str]
    measured: str
    counts: Mapping[str, int]
    per_second: float | None
    processes: Mapping[str, Usage]
    samples_ms: Sequence[float] = ()
    lost: int = 0
    duplicates: int = 0
    early: int = 0
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The flat object that `--json` prints; percentiles are null where nothing was timed."""
        spread = percentiles(self.samples_ms)
        return {
            "scenario": self.scenario,
            "parameters": dict(self.parameters),
            "roles": list(self.roles),
            "measured": self.measured,
            "counts": dict(self.counts),
            "per_second": _rounded(self.per_second),
            **spread,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "early": self.early,
            **{name: _rounded(value) for name, value in self.figures.items()},
            "processes": {n: {"cpu_s": u.cpu_s, "peak_mb": u.peak_mb} for n, u in self.processes.items()},
        }


def percentiles(samples: Sequence[float]) -> dict[str, float | None]:
    """p50_ms, p95_ms, p99_ms and max_ms by the nearest rank: each is a value that was really seen."""
    ordered = sorted(samples)
    names = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}
    return {name: round(nearest_rank(ordered, share), 3) if ordered else None for name, share in names.items()}


def nearest_rank(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    return ordered[max(0, min(len(ordered) - 1, -(-int(share * 10_000) * len(ordered) // 10_000) - 1))]


def median_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The median of every number of several runs' JSON objects; what must be zero is the worst run's."""
    merged: dict[str, Any] = _merge([dict(run) for run in runs])
    for name in ("lost", "duplicates", "early"):
        merged[name] = max(run[name] for run in runs)
    merged["parameters"] = dict(runs[0]["parameters"])
    return merged


def _merge(runs: Sequence[Any]) -> Any:
    """Key by key; what is no number is the first run's, and a number that one run lacks is of the others."""
    first = runs[0]
    if isinstance(first, dict):
        keys = dict.fromkeys(key for run in runs for key in run)
        return {key: _merge([run[key] for run in runs if key in run]) for key in keys}
    numbers = [run for run in runs if isinstance(run, int | float) and not isinstance(run, bool)]
    if not numbers or isinstance(first, bool):
        return first
    middle = statistics.median(numbers)
    return round(middle) if all(isinstance(number, int) for number in numbers) else round(middle, 3)


def with_figures(result: Result, **more: Any) -> Result:
    """The result with further figures of its own."""
    return replace(result, figures={**result.figures, **more})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 1) if abs(value) >= 100 else round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
