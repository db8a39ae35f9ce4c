"""The figure of a sweep."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from experiments.figure_style import ACCENT, INK, style_axes

#: What was measured at one value with one kind of backward pass.
Row = Mapping[str, Any]

#: How each kind is drawn; where two lines lie on each other, both are seen.
STYLES: dict[str, dict[str, Any]] = {
    "dense": {"color": "#8a90a0", "linestyle": "-", "marker": "s", "markersize": 5},
    "sparse": {"color": "#2f6fde", "linestyle": "-", "marker": "o", "markersize": 7},
    "sampled": {"color": ACCENT, "linestyle": (0, (4, 3)), "marker": "D", "markersize": 4},
}
MARGIN = 1.3  # of the vertical axes: what hardly changes is not blown up
AXIS_NAMES = {"K": "particles per expert, K", "batch": "examples per step"}


def draw(rows: Sequence[Row], swept: str, title: str) -> Figure:
    """Time and temporary memory of each kind against what was swept.

    Bands of the left panel go from the fastest to the slowest repetition; hollow marks of the right
    one are programs that were compiled and, for want of memory, not run.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    for kind, style in STYLES.items():
        compiled = [row for row in rows if row["name"] == kind]
        ran = [row for row in compiled if "skipped" not in row]
        x = [row[swept] for row in ran]
        low, middle, high = (
            [1e3 * row["seconds"][name] for row in ran] for name in ("min", "median", "max")
        )
        time_axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        time_axes.plot(x, middle, label=kind, **style)
        memory = {row[swept]: row["temp_bytes"] / 1e6 for row in compiled}
        hollow = {**style, "markerfacecolor": "white"}
        memory_axes.plot(list(memory), list(memory.values()), **hollow)
        memory_axes.plot(x, [memory[value] for value in x], **{**style, "linestyle": ""})
    _dress(time_axes, swept, rows, "time of a step, ms")
    note = " (hollow: too large to run)" if any("skipped" in row for row in rows) else ""
    _dress(memory_axes, swept, rows, f"temporary memory of a step, MB{note}")
    legend = {"ncols": len(STYLES), "frameon": False, "labelcolor": INK, "fontsize": 10}
    figure.legend(loc="outside upper right", **legend)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK)
    return figure


def _dress(axes: Axes, swept: str, rows: Sequence[Row], title: str) -> None:
    axes.set(xscale="log", yscale="log")
    style_axes(axes, title, AXIS_NAMES[swept])
    axes.set_xticks(sorted({row[swept] for row in rows}))
    low, high = axes.get_ylim()
    axes.set_ylim(low / MARGIN, high * MARGIN)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_locator(NullLocator())
