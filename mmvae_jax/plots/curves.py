"""Curves against the training step."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure

from mmvae_jax.plots.style import INK, PAPER, color, quiet


def training_curve(
    steps: Int[Array | np.ndarray, " t"],
    values: Mapping[str, Float[Array | np.ndarray, " t"]],
    *,
    ylabel: str = "negative bound (nats per example)",
) -> Figure:
    """Draws quantities against the training step, one line per name.

    Args:
      steps: step of each row of a history, such as ``loggers.read_jsonl(file)["step"]``.
      values: quantities by name, such as "training" and "evaluation". NaN entries are skipped: a
        line joins its finite values, and a dot marks a single one.
      ylabel: quantity and unit of the vertical axis.

    >>> figure = training_curve(
    ...     np.arange(3),
    ...     {"training": np.array([3.0, 2.0, 1.5]), "evaluation": np.array([np.nan, 2.2, 1.9])})
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    for i, (name, line) in enumerate(values.items()):
        known = np.isfinite(np.asarray(line))
        x, y = np.asarray(steps)[known], np.asarray(line)[known]
        (drawn,) = axes.plot(x, y, color=color(i), label=name, linewidth=1.8, clip_on=False)
        if len(x) == 1:
            drawn.set(marker="o", linestyle="")
    axes.set_xlabel("training step", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.margins(x=0)
    axes.grid(color=PAPER, linewidth=1.2)
    axes.set_axisbelow(True)
    quiet(axes)
    axes.legend(frameon=False, labelcolor=INK)
    return figure
