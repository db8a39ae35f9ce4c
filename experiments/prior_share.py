"""Price and gain of drawing a share of the particles from the prior, where p(X) is known.

    python -m experiments.prior_share --out runs/prior_share

Latents are standard normal, and modality m is ``a_m z + noise`` on every axis, so that posteriors
and p(X) have closed forms. Experts are the exact posteriors of one modality each, or narrower.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float
from scipy.stats import multivariate_normal

import mmvae_jax as mm
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.rows import Rows
from mmvae_jax.checks import check_count, check_share

#: Standard deviation of the noise.
NOISE = 0.5


class LinearGaussian(NamedTuple):
    """A linear-Gaussian model.

    Attributes:
      num_experts: number of modalities.
      num_axes: number of latent axes, and of values of a modality.
      narrowing: scale of the exact posterior over that of the expert.
    """

    num_experts: int
    num_axes: int
    narrowing: float = 1.0


PROBLEMS = {
    "two exact experts, 2 axes": LinearGaussian(2, 2),
    "three exact experts, 2 axes": LinearGaussian(3, 2),
    "three exact experts, 8 axes": LinearGaussian(3, 8),
    "one expert ten times too narrow": LinearGaussian(1, 2, narrowing=10.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PriorShareConfig:
    """Measure mean and variance of estimates of p(X), relative to p(X), by share of the prior."""

    shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
    """Shares of the particles that come from the prior."""
    K: int = 100
    """Number of particles per estimate."""
    num_examples: int = 8
    """Number of examples, drawn from the model."""
    num_keys: int = 400
    """Number of estimates of each example."""
    out: Path = Path("runs/prior_share")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for share in self.shares:
            check_share("shares", share)
        for field in ("K", "num_examples", "num_keys"):
            check_count(field, getattr(self, field))


def main(config: PriorShareConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table, and returns all rows."""
    rows = Rows(config.out, config)
    for name, problem in PROBLEMS.items():
        for share in config.shares:
            asked = {"problem": name, "share": share, "K": config.K, "num_keys": config.num_keys}
            if not rows.has(asked):
                ratios = measure(problem, share, config)
                moments = {"mean": float(ratios.mean()), "variance": float(ratios.var(0).mean())}
                rows.add({**asked, "num_examples": config.num_examples, **moments})
    table = [("problem", "share", "mean of estimate / p(X)", "K times its variance")]
    for row in rows.all:
        cells = f"{row['share']:g}", f"{row['mean']:.3f}", f"{row['K'] * row['variance']:.3f}"
        table.append((row["problem"], *cells))
    print(align(table))
    return rows.all


def measure(
    problem: LinearGaussian, share: float, config: PriorShareConfig
) -> Float[np.ndarray, "keys examples"]:
    """Returns estimates of p(X) over p(X), by key and example."""
    model = make_model(problem)
    data, log_prob = draw(problem, config.num_examples)
    batch = mm.Batch(data)

    @jax.jit
    def estimate(keys: Array) -> Float[Array, "keys examples"]:
        def of_key(key: Array) -> Float[Array, " examples"]:
            nll: Any = mm.compute_joint_nll(model, batch, key, K=config.K, prior_share=share)
            return nll

        return jax.lax.map(of_key, keys)

    nll = estimate(jax.random.split(jax.random.key(1), config.num_keys))
    return np.exp(-np.asarray(nll, np.float64) - log_prob)


def slopes(problem: LinearGaussian) -> dict[str, float]:
    """Returns a_m by the name of the modality."""
    return {f"x{m}": 1.0 + 0.5 * m for m in range(problem.num_experts)}


def draw(
    problem: LinearGaussian, num_examples: int
) -> tuple[dict[str, Float[np.ndarray, "n d"]], Float[np.ndarray, " n"]]:
    """Returns examples that the model draws, and log p(X) of each."""
    rng = np.random.default_rng(0)
    a = np.array([*slopes(problem).values()])
    z = rng.normal(size=(num_examples, problem.num_axes, 1))
    x = z * a + NOISE * rng.normal(size=(num_examples, problem.num_axes, len(a)))
    covariance: Any = np.outer(a, a) + NOISE**2 * np.eye(len(a))
    log_prob = multivariate_normal(np.zeros(len(a)), covariance).logpdf(x)
    log_prob = log_prob.reshape(num_examples, problem.num_axes).sum(1)
    return {name: x[..., m].astype(np.float32) for m, name in enumerate(slopes(problem))}, log_prob


def make_model(problem: LinearGaussian) -> mm.MMVAE:
    """Returns the model of a problem, with its exact or narrowed experts."""
    dims = dict.fromkeys(slopes(problem), (problem.num_axes,))
    config = mm.MMVAEConfig(
        input_dims=dims,
        decoder_dist_params={name: {"scale": NOISE} for name in dims},
        latent_dim=problem.num_axes,
        prior_and_posterior_dist="normal",
        learn_prior=False,
    )
    encoders = {name: Posterior(a, problem.narrowing) for name, a in slopes(problem).items()}
    decoders = {name: Scaled(a) for name, a in slopes(problem).items()}
    return mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))


class Posterior(nnx.Module):
    """Posterior of z given ``x = slope z + noise``, divided in scale by ``narrowing``."""

    def __init__(self, slope: float, narrowing: float) -> None:
        self.variance = 1 / (1 + slope**2 / NOISE**2)
        self.gain = self.variance * slope / NOISE**2
        self.narrowing = narrowing

    def __call__(self, x: Float[Array, "n d"]) -> tuple[Float[Array, "n d"], Float[Array, "n d"]]:
        """Returns location and log variance."""
        return self.gain * x, jnp.full_like(x, jnp.log(self.variance / self.narrowing**2))


class Scaled(nnx.Module):
    """Decoder ``z -> slope z``."""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Returns the mean of x."""
        return self.slope * z


if __name__ == "__main__":
    run_command(main, PriorShareConfig, "experiments.prior_share")
