"""The picture of a distribution: how many took how long, and how many took longer."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from minoots.bench.failures import BenchFailed
from minoots.bench.figures import nearest_rank
from minoots.errors import ConfigError

BINS_A_DECADE = 24
SHORTEST_MS = 0.1
INK, SOFT, BODY, ACCENT = "#1f2933", "#8a94a0", "#4c78a8", "#d1495b"
# Of any type: matplotlib spells its some 300 names out as a Literal.
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(path: Path, result: Mapping[str, Any], samples: Sequence[float]) -> None:
    """Write the picture (the suffix says in which format); raises BenchFailed when nothing was timed."""
    if not samples:
        raise BenchFailed(f"{result['scenario']} times nothing that could be drawn; leave --plot out")
    # What took less than the shortest has its place at the left edge.
    ordered = sorted(max(sample, SHORTEST_MS) for sample in samples)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        _draw_histogram(upper, ordered)
        _draw_tail(lower, ordered)
        _mark(upper, lower, ordered)
        upper.set_title(_title(result), loc="left", fontsize=12, fontweight="bold", pad=24)
        upper.text(0, 1.03, _subtitle(result, len(samples)), transform=upper.transAxes, fontsize=8.5, color=SOFT)
        try:
            figure.savefig(path)
        except (OSError, ValueError) as refused:
            raise ConfigError(f"--plot {path} cannot be written: {refused}") from None


def _draw_histogram(axes: Axes, ordered: Sequence[float]) -> None:
    first = math.floor(math.log10(ordered[0]) * BINS_A_DECADE)
    last = math.ceil(math.log10(ordered[-1]) * BINS_A_DECADE) + 1
    edges = [10 ** (nth / BINS_A_DECADE) for nth in range(first, last + 1)]
    weights = [100 / len(ordered)] * len(ordered)
    axes.hist(ordered, bins=edges, weights=weights, color=BODY, edgecolor="white", linewidth=0.5)
    axes.set_xscale("log")
    axes.set_ylabel("percent of all")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)


def _draw_tail(axes: Axes, ordered: Sequence[float]) -> None:
    """The share that took longer than x, down to the last one."""
    shares = [(len(ordered) - nth) / len(ordered) * 100 for nth in range(len(ordered))]
    axes.step(ordered, shares, where="post", color=BODY, linewidth=1.8)
    axes.set_yscale("log")
    axes.set_ylabel("took longer")
    axes.set_xlabel("milliseconds")
    axes.yaxis.set_major_locator(LogLocator(base=10, numticks=8))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:g} %"))
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=24))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e4e7eb", linewidth=0.7)
    axes.set_axisbelow(True)


def _mark(upper: Axes, lower: Axes, ordered: Sequence[float]) -> None:
    """p50, p99 and the largest, at different heights so that near ones can be read."""
    for nth, (name, share) in enumerate((("p50", 0.5), ("p99", 0.99), ("max", 1.0))):
        at = nearest_rank(ordered, share)
        for axes in (upper, lower):
            axes.axvline(at, color=ACCENT, linewidth=1.2, linestyle=("-", "--", ":")[nth])
        upper.annotate(
            f"{name}  {at:,.3g} ms",
            (at, 0.96 - 0.1 * nth),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            color=ACCENT,
            fontweight="bold",
            fontsize=9,
            va="top",
            annotation_clip=False,
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )


def _title(result: Mapping[str, Any]) -> str:
    given = result["parameters"]
    rate = f"{given.get('rate', 0):,} a second"
    words = {
        "lateness": f"{given['herd']:,} at one instant" if given.get("herd") else rate,
        "deliver": rate,
        "churn": rate,
        "create": f"by {given.get('door')}",
    }
    return ": ".join(filter(None, (f"minoots bench {result['scenario']}", words.get(result["scenario"]))))


def _subtitle(result: Mapping[str, Any], count: int) -> str:
    waiting = f"{result['parameters'].get('ballast', 0):,} waiting"
    return f"{result['measured'].partition(',')[0].partition(';')[0]}; {count:,} timed, {waiting}"
