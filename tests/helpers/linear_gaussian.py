"""An MMVAE whose every likelihood is known: linear decoders, normal prior and likelihoods.

With ``z ~ N(0, P)`` and ``x_m = W_m z + b_m + sigma_m noise``, all modalities together are normal
with covariance ``W P W^T + diag(sigma^2)``. Closed forms are computed by scipy, in 64 bits.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy.linalg import block_diag
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import mmvae_jax as mm

DIMS = {"a": (3,), "b": (2, 2), "c": (2,), "d": (4,), "e": (3, 1)}
SIGMA = {"a": 0.7, "b": 1.0, "c": 1.3, "d": 0.5, "e": 2.0}

# An expert is wider than its exact posterior, so that importance weights have finite variance.
INFLATION = 1.3

Data = Mapping[str, np.ndarray]

# Every estimate of three modalities, as functions of a model, a batch and a key.
EVIDENCE = {
    "joint": mm.compute_joint_nll,
    "paper": mm.compute_joint_nll_paper,
    "marginal": partial(mm.compute_marginal_nll, modality="b"),
    "cond": partial(mm.compute_cond_nll, cond_mod=("a", "c"), pred_mods="b"),
    "ratio": partial(mm.compute_cond_nll_ratio, cond_mod=("a", "c"), pred_mods="b"),
}


class LinearExpert(nnx.Module):
    """``loc = (x - b) V`` and one log_var for every x."""

    def __init__(self, kernel, shift, log_var):
        self.kernel = nnx.Param(jnp.asarray(kernel))
        self.shift = nnx.Param(jnp.asarray(shift))
        self.log_var = nnx.Param(jnp.asarray(log_var))

    def __call__(self, x):
        loc = (x.reshape(len(x), -1) - self.shift[None]) @ self.kernel[...]
        return loc, jnp.broadcast_to(self.log_var[None], loc.shape)


class LinearDecoder(nnx.Module):
    """``z W^T + b`` in the modality's shape."""

    def __init__(self, kernel, bias, dim):
        self.linear = nnx.Linear(*kernel.shape, rngs=nnx.Rngs(0))
        self.linear.kernel.set_value(jnp.asarray(kernel))
        self.linear.bias.set_value(jnp.asarray(bias))
        self.dim = dim

    def __call__(self, z):
        return self.linear(z).reshape(len(z), *self.dim)


@dataclasses.dataclass(frozen=True)
class LinearGaussian:
    """The parameters, and what follows from them.

    Attributes:
      weight: W_m, ``[size, d]``.
      bias: b_m, ``[size]``.
      sigma: standard deviation of the likelihoods.
      prior_scale: standard deviations of z, ``[d]``.
      inflation: variance of an expert over that of its exact posterior.
    """

    weight: Data
    bias: Data
    sigma: Mapping[str, float]
    prior_scale: np.ndarray
    inflation: float = INFLATION

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weight)

    def model(self, **fields) -> mm.MMVAE:
        """The MMVAE, in JAX's default precision; `fields` go to its config."""
        config = mm.MMVAEConfig(
            input_dims={name: DIMS[name] for name in self.names},
            latent_dim=len(self.prior_scale),
            prior_and_posterior_dist="normal",
            decoder_dist_params={name: {"scale": self.sigma[name]} for name in self.names},
            **fields,
        )
        encoders, decoders = {}, {}
        for name in self.names:
            gain, log_var = self._gain(name), 2 * np.log(self.expert_scale(name))
            encoders[name] = LinearExpert(gain, self.bias[name], log_var)
            decoders[name] = LinearDecoder(self.weight[name].T, self.bias[name], DIMS[name])
        model = mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))
        model.prior_log_var.set_value(jnp.asarray(2 * np.log(self.prior_scale)))
        return model

    def sample(self, num_examples: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(num_examples, len(self.prior_scale))) * self.prior_scale
        data = {}
        for name in self.names:
            mean = z @ self.weight[name].T + self.bias[name]
            x = mean + self.sigma[name] * rng.normal(size=mean.shape)
            data[name] = x.reshape(num_examples, *DIMS[name])
        return data

    def log_prob(self, data: Data, names: Sequence[str]) -> np.ndarray:
        """log p of these modalities together, ``[b]``; 0 for none of them."""
        if not names:
            return np.zeros(len(next(iter(data.values()))))
        w = np.concatenate([self.weight[name] for name in names])
        bias = np.concatenate([self.bias[name] for name in names])
        noise = block_diag(*(self._noise(name) for name in names))
        x = np.concatenate([_flat(data[name]) for name in names], axis=1)
        return _log_normal(x - bias, w @ np.diag(self.prior_scale**2) @ w.T + noise)

    def log_cond(self, data: Data, target: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """log p(x_target|x_given), ``[b]``."""
        return self.log_prob(data, [*target, *given]) - self.log_prob(data, given)

    def log_average(self, data: Data, target: str, given: Sequence[str]) -> np.ndarray:
        """log of the average of p(x_target|z) over the mixture of the experts given, ``[b]``.

        A mixture of normal densities: each expert is pushed through the decoder.
        """
        w = self.weight[target]
        terms = []
        for name in given:
            cov = w @ np.diag(self.expert_scale(name) ** 2) @ w.T + self._noise(target)
            mean = self.expert_loc(data, name) @ w.T + self.bias[target]
            terms.append(_log_normal(_flat(data[target]) - mean, cov))
        return logsumexp(terms, axis=0) - np.log(len(given))

    def expert_loc(self, data: Data, name: str) -> np.ndarray:
        """Location of the expert, ``[b, d]``: the exact mean of p(z|x_name)."""
        return (_flat(data[name]) - self.bias[name]) @ self._gain(name)

    def expert_scale(self, name: str) -> np.ndarray:
        """Scale of the expert, ``[d]``: by default a little wider than the axes of p(z|x_name)."""
        return np.sqrt(self.inflation * np.diag(self._covariance(name)))

    def _covariance(self, name: str) -> np.ndarray:
        """Covariance of p(z|x_name)."""
        w = self.weight[name] / self.sigma[name]
        return np.linalg.inv(np.diag(self.prior_scale**-2) + w.T @ w)

    def _gain(self, name: str) -> np.ndarray:
        return self.weight[name] @ self._covariance(name) / self.sigma[name] ** 2

    def _noise(self, name: str) -> np.ndarray:
        return self.sigma[name] ** 2 * np.eye(len(self.bias[name]))


def linear_gaussian(num_modalities: int, latent_dim: int = 2, seed: int = 0) -> LinearGaussian:
    """A random one whose modalities tell about as much of z as each other.

    The singular values of ``W_m / sigma_m`` lie between 0.9 and 1.2 and those of the prior's scale
    between 0.9 and 1.1: then any expert covers the posterior of any modalities well enough for
    weights of finite variance.
    """
    rng = np.random.default_rng(seed)
    names = list(DIMS)[:num_modalities]
    weight, bias = {}, {}
    for name in names:
        size = int(np.prod(DIMS[name]))
        u, _, v = np.linalg.svd(rng.normal(size=(size, latent_dim)), full_matrices=False)
        weight[name] = SIGMA[name] * u * rng.uniform(0.9, 1.2, latent_dim) @ v
        bias[name] = rng.normal(size=size)
    sigma = {name: SIGMA[name] for name in names}
    return LinearGaussian(weight, bias, sigma, rng.uniform(0.9, 1.1, latent_dim))


class Problem(NamedTuple):
    """Known parameters, their model, complete data, masks, and the batch with NaN where masked."""

    case: LinearGaussian
    model: mm.MMVAE
    data: dict[str, np.ndarray]
    mask: dict[str, np.ndarray]
    batch: mm.Batch


def make_problem(num_modalities: int, num_patterns: int | None = None, **fields) -> Problem:
    """Examples that miss modalities in every possible way, or in so many ways; one of each."""
    case = linear_gaussian(num_modalities)
    mask = masks(case.names, num_patterns)
    data = case.sample(len(mask["a"]))
    return Problem(case, case.model(**fields), data, mask, mm.Batch(hide(data, mask), mask))


def masks(names: Sequence[str], num_patterns: int | None = None) -> dict[str, np.ndarray]:
    """Every way to observe something of these modalities, or an even choice of the ways."""
    patterns = [p for p in itertools.product([True, False], repeat=len(names)) if any(p)]
    if num_patterns is not None and num_patterns < len(patterns):
        rows = np.linspace(0, len(patterns) - 1, num_patterns).astype(int)
        patterns = [patterns[row] for row in rows]
    return dict(zip(names, np.array(patterns).T, strict=True))


def hide(data: Data, mask: Data, filler: float = np.nan) -> dict[str, np.ndarray]:
    """The data with the filler in the place of what is missing."""
    return {
        name: np.where(mask[name].reshape(-1, *[1] * (x.ndim - 1)), x, filler)
        for name, x in data.items()
    }


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _log_normal(x: np.ndarray, cov: np.ndarray) -> np.ndarray:
    return np.atleast_1d(multivariate_normal(cov=cov).logpdf(x))
