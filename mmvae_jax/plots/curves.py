"""Curves against the training step."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure

from mmvae_jax.plots.style import INK, PAPER, quiet


def training_curve(
    steps: Int[Array | np.ndarray, " t"],
    values: Mapping[str, Float[Array | np.ndarray, " t"]],
    *,
    ylabel: str = "loss",
) -> Figure:
    """Draws quantities against the training step, one line per name.

    >>> figure = training_curve(np.arange(3), {"train": np.array([3.0, 2.0, 1.5])})
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(steps) == 1 else None  # a line from a point to itself is not seen
    for name, line in values.items():
        axes.plot(np.asarray(steps), np.asarray(line), linewidth=1.8, marker=marker, label=name)
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.margins(x=0)
    axes.grid(color=PAPER, linewidth=1.2)
    quiet(axes)
    axes.legend(frameon=False, labelcolor=INK)
    return figure
