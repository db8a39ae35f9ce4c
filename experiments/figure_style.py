"""Colours and axes of the figures that compare several runs."""

from matplotlib.axes import Axes

INK, FAINT, ACCENT = "#1f2430", "#e4e6eb", "#e2703a"


def style_axes(axes: Axes, title: str, xlabel: str) -> None:
    """Puts the title on the left and a faint grid behind the data, and removes the frame."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.tick_params(colors=INK, length=0, which="both")
    axes.grid(color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
