"""Experts of a mixture: their divergences, their responsibilities, the weights of their particles.

The figures answer three questions about a trained model. Do the posteriors of the modalities agree
(``divergence_bars``)? Is a draw of one expert likely under the others, as a shared latent should be
(``responsibilities``)? Do K particles do more than one (``weight_histogram``)?
"""

import textwrap
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mmvae_jax.maths.bounds import normalised_per_expert
from mmvae_jax.maths.weights import effective_sample_size
from mmvae_jax.plots.style import INK, PAPER, color, name_row, quiet


def divergence_bars(
    divergence: Mapping[str, Mapping[str, float]],
    *,
    xlabel: str = "KL divergence in nats, mean over examples",
) -> Figure:
    """Draws divergences of each modality's posterior from others and from the prior, as bars.

    The bar of KL(a || b) is the divergence of b from a, with the expectation under a.

    Args:
      divergence: ``divergence[a][b]``, the number for KL(a || b). The axis is logarithmic if the
        largest number is more than 30 times the smallest.
      xlabel: quantity and unit of the numbers.

    Raises:
      ValueError: if there is no number, or one is negative.

    >>> figure = divergence_bars({"m0": {"m1": 2.0, "prior": 9.0}})
    """
    pairs = {(a, b): value for a, row in divergence.items() for b, value in row.items()}
    if not pairs or min(pairs.values()) < 0:
        raise ValueError(f"divergence is {dict(divergence)}: give one number or more, none below 0")
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    colors = {name: color(i) for i, name in enumerate(divergence)}
    values = list(pairs.values())
    # A half bar of space sets the rows of different posteriors apart.
    places = np.arange(len(pairs))[::-1] - 0.5 * np.repeat(
        np.arange(len(divergence)), [len(row) for row in divergence.values()]
    )
    bars = axes.barh(places, values, height=0.8, color=[colors[source] for source, _ in pairs])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=INK)
    names = [f"KL({a} \N{DOUBLE VERTICAL LINE} {b})" for a, b in pairs]
    axes.set_yticks(places, names, fontsize=8)
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(xlabel, color=INK)
    axes.margins(x=0.12)
    quiet(axes, left=False)
    return figure


def responsibilities(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws the mean responsibility of each expert for the draws of each expert, as a heat map.

    A row is the expert m that latents are drawn from, a column an expert j, and a cell the mean
    over draws and examples of ``r_j(z) = q_j(z|x_j) / sum_i q_i(z|x_i)``. All cells are 1 / M if
    the posteriors agree. The diagonal is 1, and all else 0, if they do not overlap.

    Args:
      shares: ``shares[m][j]``, such as ``metrics.measure_responsibilities`` by name.

    Raises:
      ValueError: if rows have different experts, or a row does not sum to 1.

    >>> figure = responsibilities({"m0": {"m0": 0.9, "m1": 0.1}, "m1": {"m0": 0.2, "m1": 0.8}})
    """
    experts = list(next(iter(shares.values()), ()))
    sums = {source: sum(row.values()) for source, row in shares.items()}
    if not experts or any(list(row) != experts for row in shares.values()):
        rows = {source: list(row) for source, row in shares.items()}
        raise ValueError(f"shares has experts {rows}: give every row the same, at least one")
    if not np.allclose(list(sums.values()), 1, rtol=0, atol=1e-3):
        raise ValueError(f"rows of shares sum to {sums}: divide each row by its sum")
    table = np.array([list(row.values()) for row in shares.values()])
    num_rows, num_columns = table.shape
    size = max(3.2, 0.8 + 0.09 * max(map(len, shares)) + 0.7 * num_columns), 1.5 + 0.7 * num_rows
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    tint = LinearSegmentedColormap.from_list("shares", [PAPER, color(0)])
    axes.pcolormesh(table, cmap=tint, vmin=0, vmax=1, edgecolors="white", linewidth=3)
    for (row, column), share in np.ndenumerate(table):
        axes.text(column + 0.5, row + 0.5, f"{share:.2f}", ha="center", va="center", color=INK)
    axes.set_xticks(np.arange(num_columns) + 0.5, experts)
    axes.set_yticks(np.arange(num_rows) + 0.5, list(shares))
    axes.set_xlabel("mean responsibility of expert", color=INK)
    axes.set_ylabel("latents drawn from", color=INK)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    caption = (
        f"{1 / num_columns:.2f} everywhere: the posteriors agree. "
        "1.00 on the diagonal: no expert covers draws of another."
    )
    figure.supxlabel(textwrap.fill(caption, int(13 * size[0])), fontsize=8, color=INK)
    return figure


def weight_histogram(
    log_w: Float[Array | np.ndarray, "m k b"],
    names: Sequence[str],
    mask: Bool[Array | np.ndarray, "m b"] | None = None,
) -> Figure:
    """Draws a histogram of the effective number of particles for each modality.

    There is one value per example, the effective sample size ``1 / sum_k w~_k^2`` of the weights
    ``w~`` normalised over the expert's K particles (Kong 1992). It is K if all weights are equal,
    and 1 if one particle has all the weight. Near K, fewer particles would do. Near 1, the expert
    is a poor proposal, and the bound rests on its luckiest particle.

    Args:
      log_w: log importance weights of every expert's particles, such as those of
        ``metrics.measure_log_weights``.
      names: names of the modalities, in the order of the experts.
      mask: True where a modality is observed; other examples do not count in its histogram.

    Raises:
      ValueError: if there is not one name per expert.

    >>> figure = weight_histogram(np.zeros((2, 10, 50)), ["m0", "m1"])
    """
    num_experts, K, num_examples = log_w.shape
    if len(names) != num_experts:
        raise ValueError(f"names is {list(names)}, log_w has {num_experts} experts: name each one")
    if mask is None:
        mask = np.ones((num_experts, num_examples), bool)
    mask = jnp.asarray(mask)
    ess = effective_sample_size(normalised_per_expert(jnp.asarray(log_w), mask))
    sizes = np.clip(np.asarray(ess, float), 1, K)  # rounding leaves the range by a little
    bins = np.geomspace(1, max(K, 2), 41)
    figure = Figure(figsize=(6.4, 1.0 + 0.62 * num_experts), layout="constrained")
    rows = figure.subplots(num_experts, sharex=True, squeeze=False)[:, 0]
    for m, (axes, name) in enumerate(zip(rows, names, strict=True)):
        observed = sizes[m, np.asarray(mask[m])]
        weights = np.full(observed.shape, 1 / max(observed.size, 1))
        counts, _, _ = axes.hist(observed, bins=bins, weights=weights, color=color(m))
        median = f"median {np.median(observed):.3g}" if observed.size else "never observed"
        axes.text(1.01, 0.5, median, transform=axes.transAxes, va="center", fontsize=8, color=INK)
        axes.set_yticks([counts.max()], [f"{counts.max():.0%}" if observed.size else ""])
        axes.tick_params(axis="y", labelsize=8)
        quiet(axes, left=False)
        name_row(axes, name)
    rows[0].set_title("share of examples", loc="left", fontsize=8, color=INK)
    ticks = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500) if n < 0.75 * K] + [K]
    rows[-1].set_xscale("log")
    rows[-1].set_xticks(ticks, [f"{n}" for n in ticks])
    rows[-1].minorticks_off()
    rows[-1].set_xlabel(
        f"effective number of particles, K = {K}\n"
        f"(1: one particle has all the weight; {K}: all have the same)",
        color=INK,
    )
    return figure
