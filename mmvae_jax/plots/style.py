"""Shared colours and axis styling."""

from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

INK, FAINT, PAPER = "#1f2430", "#8a90a0", "#f1f2f5"
#: Ten colours that people with colour vision deficiencies can tell apart (Petroff 2021).
COLORS = tuple(to_hex(rgb) for rgb in color_sequences["petroff10"])


def color(index: int) -> str:
    """Returns the colour of a class, modality or line by its number."""
    return COLORS[index % len(COLORS)]


def quiet(axes: Axes, *, left: bool = True) -> None:
    """Removes the frame but for a faint bottom line and, if ``left``, a faint left one."""
    hidden = ["top", "right"] if left else ["top", "right", "left"]
    axes.tick_params(color=FAINT, labelcolor=INK, left=left)
    axes.spines[hidden].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def name_row(axes: Axes, name: str) -> None:
    """Writes the name on the left of the axes."""
    axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, color=INK)
