"""What all figures have in common: three colours, and axes that step back behind the data."""

from matplotlib.axes import Axes

INK, FAINT, PAPER = "#1f2430", "#8a90a0", "#f1f2f5"


def quiet(axes: Axes, *, left: bool = True) -> None:
    """Leaves the axes their bottom line and, if wanted, their left one, in a faint colour."""
    hidden = ["top", "right"] if left else ["top", "right", "left"]
    axes.tick_params(color=FAINT, labelcolor=INK, left=left)
    axes.spines[hidden].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def bare(axes: Axes) -> None:
    """Leaves the axes nothing but what is drawn in them."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
