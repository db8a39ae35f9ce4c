"""An MMVAE+ whose every likelihood is known: linear decoders, normal densities, clusters of p(u).

With ``z = [u, w_1, ..., w_M]`` and ``x_m = A_m u + B_m w_m + sigma_m noise``, all modalities
together are a mixture of normal densities, one of each cluster. Closed forms are by scipy.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from helpers.linear_gaussian import DIMS, Data, LinearDecoder, LinearExpert
from scipy.special import logsumexp, softmax
from scipy.stats import multivariate_normal

import mmvae_jax as mm

SIGMA = 0.8
PRIVATE = {"a": 2, "b": 1, "c": 0}
PRIVATE_SCALE = np.array([1.1, 0.7])
NUM_SHARED = 2


@dataclasses.dataclass(frozen=True)
class PrivateGaussian:
    """The parameters, and what follows from them.

    Attributes:
      weight: ``[A_m, B_m]`` in the columns of z, zero for other private latents, ``[size, d]``.
      logits: logits of the clusters.
      loc: locations of the clusters, ``[c, d]``, zero for private latents.
      scale: scales of p(z) in each cluster, ``[c, d]``.
      inflation: variance of an expert over that of its exact posterior.
    """

    weight: Data
    logits: np.ndarray
    loc: np.ndarray
    scale: np.ndarray
    inflation: float = 1.5

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.weight)

    def model(self, **fields) -> mm.MMVAE:
        num_clusters = len(self.logits)
        config = mm.MMVAEConfig(
            input_dims={name: DIMS[name] for name in self.names},
            latent_dim=NUM_SHARED,
            modalities_specific_dim={name: PRIVATE[name] for name in self.names},
            number_of_clusters=num_clusters,
            prior_and_posterior_dist="normal",
            decoder_dist_params={name: {"scale": SIGMA} for name in self.names},
            **fields,
        )
        encoders, decoders = {}, {}
        for number, name in enumerate(self.names):
            columns = [*range(NUM_SHARED), *self._private(number)]
            kernel, shift, log_var = self._expert(name, columns)
            encoders[name] = AffineExpert(kernel, shift, log_var)
            weight = self.weight[name][:, columns]
            decoders[name] = LinearDecoder(weight.T, np.zeros(len(weight)), DIMS[name])
        model = mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))
        raw = 2 * np.log(PRIVATE_SCALE)
        if num_clusters == 1:
            raw = np.concatenate([2 * np.log(self.scale[0, :NUM_SHARED]), raw])
        else:
            model.clusters["logits"].set_value(jnp.asarray(self.logits))
            model.clusters["loc"].set_value(jnp.asarray(self.loc[:, :NUM_SHARED]))
            log_var = 2 * np.log(self.scale[:, :NUM_SHARED])
            model.clusters["log_var"].set_value(jnp.asarray(log_var))
        model.prior_log_var.set_value(jnp.asarray(raw))
        for raw in model.private_log_var.values():  # r_m(w) takes no part in likelihoods
            raw.set_value(jnp.full_like(raw[...], 1.5))
        return model

    def sample(self, num_examples: int, seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        cluster = rng.choice(len(self.logits), num_examples, p=softmax(self.logits))
        z = self.loc[cluster] + self.scale[cluster] * rng.normal(size=self.loc[cluster].shape)
        data = {}
        for name in self.names:
            mean = z @ self.weight[name].T
            x = mean + SIGMA * rng.normal(size=mean.shape)
            data[name] = x.reshape(num_examples, *DIMS[name])
        return data

    def log_prob(self, data: Data, names: Sequence[str]) -> np.ndarray:
        """log p of these modalities together, ``[b]``; 0 for none of them."""
        if not names:
            return np.zeros(len(next(iter(data.values()))))
        return logsumexp(self._log_prob_of_clusters(data, names), axis=0)

    def log_cond(self, data: Data, target: Sequence[str], given: Sequence[str]) -> np.ndarray:
        """log p(x_target|x_given), ``[b]``."""
        return self.log_prob(data, [*target, *given]) - self.log_prob(data, given)

    def posterior_mean(self, data: Data, names: Sequence[str]) -> np.ndarray:
        """Mean of p(z|x of these modalities), ``[b, d]``."""
        w, x = self._joined(data, names)
        weight = softmax(self._log_prob_of_clusters(data, names), axis=0)
        means = []
        for loc, scale in zip(self.loc, self.scale, strict=True):
            covariance = w * scale**2 @ w.T + SIGMA**2 * np.eye(len(w))
            gain = (scale**2)[:, None] * np.linalg.solve(covariance, w).T
            means.append(loc + (x - w @ loc) @ gain.T)
        return np.einsum("cb,cbd->bd", weight, means)

    def _log_prob_of_clusters(self, data: Data, names: Sequence[str]) -> np.ndarray:
        w, x = self._joined(data, names)
        log_pi = np.log(softmax(self.logits))
        return np.stack(
            [
                log_pi[c]
                + np.atleast_1d(
                    multivariate_normal(
                        w @ loc, w * scale**2 @ w.T + SIGMA**2 * np.eye(len(w))
                    ).logpdf(x)
                )
                for c, (loc, scale) in enumerate(zip(self.loc, self.scale, strict=True))
            ]
        )

    def _joined(self, data: Data, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        x = np.concatenate([data[name].reshape(len(data[name]), -1) for name in names], axis=1)
        return np.concatenate([self.weight[name] for name in names]), x

    def _private(self, number: int) -> range:
        sizes = [PRIVATE[name] for name in self.names]
        start = NUM_SHARED + sum(sizes[:number])
        return range(start, start + sizes[number])

    def _expert(self, name: str, columns: list[int]):
        """Kernel, shift and raw scale of an expert: the posterior of a prior of equal moments."""
        pi = softmax(self.logits)
        mean = pi @ self.loc
        variance = pi @ (self.scale**2 + (self.loc - mean) ** 2)
        w, mean, variance = self.weight[name][:, columns], mean[columns], variance[columns]
        covariance = np.linalg.inv(np.diag(1 / variance) + w.T @ w / SIGMA**2)
        kernel = w @ covariance / SIGMA**2
        shift = mean - w @ mean @ kernel
        return kernel, shift, np.log(self.inflation * np.diag(covariance))


class AffineExpert(LinearExpert):
    """``loc = x V + shift`` and one log_var for every x."""

    def __call__(self, x):
        loc = x.reshape(len(x), -1) @ self.kernel[...] + self.shift[None]
        return loc, jnp.broadcast_to(self.log_var[None], loc.shape)


def private_gaussian(num_modalities: int, num_clusters: int = 1, seed: int = 0) -> PrivateGaussian:
    """A random one with private latents of 2, 1 and 0 axes."""
    rng = np.random.default_rng(seed)
    names = list(DIMS)[:num_modalities]
    sizes = [PRIVATE[name] for name in names]
    dim = NUM_SHARED + sum(sizes)
    weight, start = {}, NUM_SHARED
    for name, size in zip(names, sizes, strict=True):
        weight[name] = np.zeros((int(np.prod(DIMS[name])), dim))
        columns = [*range(NUM_SHARED), *range(start, start + size)]
        weight[name][:, columns] = rng.normal(size=(len(weight[name]), len(columns)))
        start += size
    loc = np.zeros((num_clusters, dim))
    scale = np.ones((num_clusters, dim))
    if num_clusters > 1:
        loc[:, :NUM_SHARED] = rng.normal(size=(num_clusters, NUM_SHARED))
    scale[:, :NUM_SHARED] = rng.uniform(0.6, 1.2, (num_clusters, NUM_SHARED))
    scale[:, NUM_SHARED:] = np.concatenate([PRIVATE_SCALE[:size] for size in sizes])
    return PrivateGaussian(weight, rng.normal(size=num_clusters), loc, scale)
