"""Cost of the dense, the sparse and the sampled step against K."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.benchmark.config import BenchmarkConfig
from experiments.benchmark.contest import measure
from experiments.benchmark.data import make_batches
from experiments.figure_style import ACCENT, INK, style_axes

#: Measurements of one kind of backward pass at one K.
Row = Mapping[str, Any]

#: Line styles that show both of two lines on top of each other.
STYLES: dict[str, dict[str, Any]] = {
    "dense": {"color": "#8a90a0", "linestyle": "-", "marker": "s", "markersize": 5},
    "sparse": {"color": "#2f6fde", "linestyle": "-", "marker": "o", "markersize": 7},
    "sampled": {"color": ACCENT, "linestyle": (0, (4, 3)), "marker": "D", "markersize": 4},
}
MARGIN = 1.3  # of the vertical axes, so that small changes do not fill them
MEMORY_SHARE = 0.5


def sweep(config: BenchmarkConfig) -> dict[str, Any]:
    """Times the three kinds at every K, in turns, and writes the figure.

    Programs that need more than half of the memory are left out.
    """
    rows: list[Row] = []
    for K in config.values:
        print(f"K = {K}", file=sys.stderr)
        at_K = config.replace(K=K)
        entries = {kind: at_K.replace(backward=kind) for kind in STYLES}
        results = measure(entries, make_batches(at_K), memory_share=MEMORY_SHARE)
        rows += [{"K": K, **result} for result in results]
    draw(rows, f"{config.case}, batch {config.num_examples}, {config.data}").savefig(
        config.figure_file, dpi=150
    )
    fixed = {k: v for k, v in config.problem().items() if k not in ("backward", "K")}
    return {**fixed, "sweep": config.sweep, "rows": rows, "figure": str(config.figure_file)}


def draw(rows: Sequence[Row], title: str) -> Figure:
    """Returns a figure of time and temporary memory against K.

    Bands of the left panel span the fastest to the slowest repetition.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for kind, style in STYLES.items():
        ran = [row for row in rows if row["name"] == kind]
        K = [row["K"] for row in ran]
        low, middle, high = (
            [1e3 * row["seconds"][name] for row in ran] for name in ("min", "median", "max")
        )
        time_axes.fill_between(K, low, high, color=style["color"], alpha=0.15, linewidth=0)
        time_axes.plot(K, middle, label=kind, **style)
        memory_axes.plot(K, [row["temp_bytes"] / 1e6 for row in ran], **style)
    ticks = sorted({row["K"] for row in rows})
    _label(time_axes, ticks, "time of a step, ms")
    _label(memory_axes, ticks, "temporary memory of a step, MB")
    legend = {"ncols": len(STYLES), "frameon": False, "labelcolor": INK, "fontsize": 10}
    figure.legend(loc="outside upper right", **legend)
    device = rows[0]["device"]
    figure.suptitle(f"{title}, {device}", x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _label(axes: Axes, ticks: Sequence[int], title: str) -> None:
    """Gives both axes logarithmic scales with plain numbers."""
    axes.set(xscale="log", yscale="log")
    style_axes(axes, title, "particles per expert, K")
    axes.set_xticks(ticks)
    low, high = axes.get_ylim()
    axes.set_ylim(low / MARGIN, high * MARGIN)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
