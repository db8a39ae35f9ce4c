"""Noise of the gradient estimators at posterior scales far below and up to the target's width.

    python -m experiments.estimator_noise --out runs/estimator_noise

The target is N(0, 1) on one latent axis. The posterior is a mixture of two Laplace experts of one
scale, the same for all examples of a batch. Gradients are those of the looser bound.
"""

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from matplotlib.figure import Figure

from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.figure_style import INK, style_axes
from experiments.rows import Rows
from mmvae_jax.checks import check_count
from mmvae_jax.maths.bounds import BOUNDS
from mmvae_jax.maths.distributions import family_of
from mmvae_jax.maths.estimators import ESTIMATORS
from mmvae_jax.maths.gradients import bound
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.particles import Inputs
from mmvae_jax.maths.problem import Objective
from mmvae_jax.maths.weights import Experts

PARAMETERS = ("location", "log scale")
#: Standard deviations by estimator, ``[scales, parameters]``.
Noise = dict[str, Float[np.ndarray, "s 2"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatorNoiseConfig:
    """Print and draw the standard deviation of each estimator's gradient by posterior scale."""

    scales: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    """Scales of the posterior, relative to the target's width."""
    offset: float = 0.5
    """Location of the experts, to both sides of the target's mean."""
    K: int = 5
    """Number of particles per expert."""
    batch: int = 64
    """Number of examples per gradient."""
    num_gradients: int = 1000
    """Number of batches to take the standard deviation over."""
    out: Path = Path("runs/estimator_noise")
    """Folder of the numbers and the figure, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for field in ("K", "batch", "num_gradients"):
            check_count(field, getattr(self, field))
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales is {self.scales}: give positive numbers")


def main(config: EstimatorNoiseConfig) -> Noise:
    """Computes the rows that ``out`` lacks, prints a table, and draws ``estimator_noise.png``.

    Returns:
      The standard deviations of all estimators.
    """
    rows = Rows(config.out, config)
    settings = {name: getattr(config, name) for name in ("offset", "K", "batch", "num_gradients")}
    noise = {name: np.empty((len(config.scales), 2)) for name in ESTIMATORS}
    for name in ESTIMATORS:
        for i, scale in enumerate(config.scales):
            asked = {"estimator": name, "scale": scale, **settings}
            if not rows.has(asked):
                loc, log_scale = map(float, deviation(config, name, scale))
                rows.add({**asked, "location": loc, "log scale": log_scale})
            (row,) = (row for row in rows.all if asked.items() <= row.items())
            noise[name][i] = [row[parameter] for parameter in PARAMETERS]
    ratio = noise["adaptive_dreg"] / np.minimum(noise["reparam"], noise["mixture_dreg"])
    table = [("scale", "parameter", *noise, "adaptive / quieter")]
    for i, scale in enumerate(config.scales):
        for p, parameter in enumerate(PARAMETERS):
            cells = (f"{x[i, p]:.2g}" for x in noise.values())
            table.append((f"{scale:g}", parameter, *cells, f"{ratio[i, p]:.2f}"))
    print(align(table))
    draw(config.scales, noise).savefig(config.out / "estimator_noise.png", dpi=150)
    return noise


def deviation(config: EstimatorNoiseConfig, estimator: str, scale: float) -> np.ndarray:
    """Returns the standard deviation of an example's gradient, ``[2]``: location, log scale."""
    sides = jnp.array([config.offset, -config.offset]).reshape(2, 1, 1)
    loc = jnp.broadcast_to(sides, (2, config.batch, 1))
    experts = Experts(loc, jnp.full_like(loc, scale))
    mask = jnp.ones(loc.shape[:2], bool)
    keys = jax.random.split(jax.random.key(0), config.num_gradients)
    found = _gradients(objective(estimator, config.K), experts, mask, keys)
    return np.asarray(found.std(0).mean((1, 2, 3)))


@cache
def objective(estimator: str, K: int, bound_name: str = "looser", dim: int = 1) -> Objective:
    """Returns an objective of two Laplace experts without data, whose target is N(0, I)."""
    return Objective(
        log_likelihood=_no_data,
        log_prior=_standard_normal,
        family=family_of("laplace_with_softmax"),
        axes=LatentAxes(dim),
        bound=BOUNDS[bound_name],
        estimator=ESTIMATORS[estimator],
        num_particles=K,
    )


def _no_data(theta: Any, state: Any, rows: Any, z: Float[Array, "g e d"]) -> Array:
    return jnp.zeros((2, *z.shape[:2]), z.dtype)


def _standard_normal(theta: Any, z: Float[Array, "g e d"], source: Array) -> Array:
    return jax.scipy.stats.norm.logpdf(z).sum(-1)


def relative_gradients(
    objective: Objective, experts: Experts, mask: Bool[Array, "m b"], keys: PRNGKeyArray
) -> Float[Array, "n 2 m b d"]:
    """Returns gradients of each example's bound for the location and the log scale, by key."""
    ones = jnp.ones(len(mask))

    def of_key(key: PRNGKeyArray) -> Float[Array, "2 m b d"]:
        inputs = Inputs((), mask, key, ones, jnp.ones(()), jnp.ones(mask.shape[1]))

        def total(experts: Experts) -> Float[Array, ""]:
            result: Any = bound(objective, (), experts, inputs)
            return result[0]

        loc, scale = jax.grad(total)(experts)
        return jnp.stack([loc, scale * experts.scale])

    return jax.lax.map(of_key, keys, batch_size=50)


_gradients = jax.jit(relative_gradients, static_argnums=0)


def draw(scales: tuple[float, ...], noise: Mapping[str, np.ndarray]) -> Figure:
    """Draws a panel per parameter, and a line per estimator."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels: Any = figure.subplots(1, 2, sharex=True)
    for p, parameter in enumerate(PARAMETERS):
        axes = panels[p]
        for number, (name, values) in enumerate(noise.items()):
            is_ours = name == "adaptive_dreg"
            colour, width = (INK, 2.5) if is_ours else (f"C{number}", 1.2)
            axes.loglog(scales, values[:, p], ".-", label=name, color=colour, linewidth=width)
        style_axes(axes, f"gradient of the {parameter}", "posterior scale / target width")
    panels[0].set_ylabel("standard deviation")
    panels[1].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    run_command(main, EstimatorNoiseConfig, "experiments.estimator_noise")
