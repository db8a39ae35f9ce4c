"""The experts of a mixture: how far apart they are, who else covers their draws, and their weights.

Three questions about a trained model. Do the posteriors of the modalities agree
(``divergence_bars``)? Is a draw of one expert likely under the others, as a shared latent should be
(``responsibilities``)? Do K particles do more than one (``weight_histogram``)?
"""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from mmvae_jax.maths.bounds import normalised_per_expert
from mmvae_jax.maths.weights import effective_sample_size
from mmvae_jax.plots.style import FAINT, INK, PAPER, quiet
from mmvae_jax.plots.tiles import name_row


def divergence_bars(
    divergence: Mapping[str, Mapping[str, float]], *, xlabel: str = "KL divergence, nats"
) -> Figure:
    """Draws how far the posterior of each modality is from others and from the prior, as bars.

    Args:
      divergence: ``divergence[source][target]``, one number each, on a logarithmic axis if the
        largest is more than 30 times the smallest.
      xlabel: what the numbers are.

    Raises:
      ValueError: if there is no number, or one is negative.

    >>> figure = divergence_bars({"m0": {"m1": 2.0, "prior": 9.0}})
    """
    pairs = {(a, b): value for a, row in divergence.items() for b, value in row.items()}
    if not pairs or min(pairs.values()) < 0:
        raise ValueError(f"divergence is {dict(divergence)}: give one number or more, none below 0")
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    colors = {name: f"C{i % 10}" for i, name in enumerate(divergence)}
    values = list(pairs.values())
    places = np.arange(len(pairs))[::-1] - 0.5 * np.repeat(
        np.arange(len(divergence)), [len(row) for row in divergence.values()]
    )
    bars = axes.barh(places, values, height=0.8, color=[colors[source] for source, _ in pairs])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=INK)
    axes.set_yticks(places, [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in pairs], fontsize=8)
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(xlabel, color=INK)
    axes.margins(x=0.12)
    quiet(axes, left=False)
    return figure


def responsibilities(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws whose density explains the draws of each expert, as a heat map of mean shares.

    A row is an expert m that latents are drawn from, a column an expert j, and a cell the mean over
    draws and examples of ``r_j(z) = q_j(z|x_j) / sum_i q_i(z|x_i)``. Experts that agree all have
    1 / M; of ones that do not overlap each has 1 for its own draws, and 0 for all others.

    Args:
      shares: ``shares[source][expert]``, every row of the same experts and with the sum 1.

    Raises:
      ValueError: if rows differ in experts, or a row does not sum to 1.

    >>> figure = responsibilities({"m0": {"m0": 0.9, "m1": 0.1}, "m1": {"m0": 0.2, "m1": 0.8}})
    """
    experts = list(next(iter(shares.values()), ()))
    sums = {source: sum(row.values()) for source, row in shares.items()}
    if not experts or any(list(row) != experts for row in shares.values()):
        rows = {source: list(row) for source, row in shares.items()}
        raise ValueError(f"shares has the experts {rows}: give every row the same, at least one")
    if not np.allclose(list(sums.values()), 1, rtol=0, atol=1e-3):
        raise ValueError(f"rows of shares sum to {sums}: divide each row by its sum")
    table = np.array([list(row.values()) for row in shares.values()])
    num_rows, num_columns = table.shape
    size = 0.6 + 0.09 * max(map(len, shares)) + 0.7 * num_columns, 0.6 + 0.7 * num_rows
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots()
    tint = LinearSegmentedColormap.from_list("shares", [PAPER, "#1f77b4"])
    axes.pcolormesh(table, cmap=tint, vmin=0, vmax=1, edgecolors="white", linewidth=3)
    for (row, column), share in np.ndenumerate(table):
        color = "white" if share > 0.6 else INK
        axes.text(column + 0.5, row + 0.5, f"{share:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(np.arange(num_columns) + 0.5, experts)
    axes.set_yticks(np.arange(num_rows) + 0.5, list(shares))
    axes.set_xlabel("mean share of expert", color=INK)
    axes.set_ylabel("z drawn from", color=INK)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)
    return figure


def weight_histogram(
    log_w: Float[Array | np.ndarray, "m k b"],
    names: Sequence[str],
    mask: Bool[Array | np.ndarray, "m b"] | None = None,
) -> Figure:
    """Draws how many of an expert's K particles share its weight, a histogram per modality.

    What is counted, one value per example, is the effective sample size over K,
    ``1 / (K sum_k w~_k^2)`` with weights ``w~`` that sum to 1 over the particles of the expert
    (Kong 1992): 1 where all weigh the same, 1 / K (dotted) where one of them has all the weight.
    Near 1, fewer particles would do; at 1 / K, they are drawn from a poor proposal, and the bound
    rests on the luckiest of them.

    Args:
      log_w: log importance weights of every expert's particles, such as ``gradients.Report.log_w``.
      names: of the modalities, in the order of the experts.
      mask: which modalities were observed; examples that miss one are left out of its histogram.

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
    # Rounding can leave the range by a little, and the histogram would not count it.
    shares = np.clip(np.asarray(ess, float) / K, 1 / K, 1)
    bins = np.linspace(min(1 / K, 0.9), 1, 41)  # of some width for K = 1, too
    figure = Figure(figsize=(6.4, 0.9 + 0.62 * num_experts), layout="constrained")
    rows = figure.subplots(num_experts, sharex=True, squeeze=False)[:, 0]
    for m, (axes, name) in enumerate(zip(rows, names, strict=True)):
        observed = shares[m, np.asarray(mask[m])]
        axes.axvline(1 / K, color=FAINT, linestyle=":", linewidth=1.2)
        axes.hist(observed, bins=bins, color=f"C{m % 10}", alpha=0.85)
        median = f"median {np.median(observed):.2f}" if observed.size else "never observed"
        axes.text(1.01, 0.5, median, transform=axes.transAxes, va="center", fontsize=8, color=INK)
        axes.set(xlim=(0, 1), yticks=[])
        quiet(axes, left=False)
        name_row(axes, name)
    rows[-1].set_xlabel(f"effective sample size / K, K = {K} particles", color=INK)
    return figure
