"""Active units: how many latent axes carry anything about the data."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from mmvae_jax.batch import AnyBatch
from mmvae_jax.inference import mixture_mean
from mmvae_jax.metrics.moments import MeanVariance, mean_variance
from mmvae_jax.metrics.posteriors import posteriors_of
from mmvae_jax.model import MMVAE

#: Of the variance of posterior means, in squared units of z (Burda et al. 2016, appendix C).
THRESHOLD = 0.01


class PosteriorMeans(NamedTuple):
    """How the means of posteriors are spread over examples, by latent axis.

    Attributes:
      experts: of every modality's own posterior, over the examples that have it.
      mixture: of the mixture of those observed, over the examples that have any.
    """

    experts: dict[str, MeanVariance]
    mixture: MeanVariance


def active_units(
    variance: Float[Array | np.ndarray, "*n d"], threshold: float = THRESHOLD
) -> Bool[np.ndarray, "*n d"]:
    """Returns which axes are active: ``Var_x(E[z|x]) > threshold`` (Burda et al. 2016).

    Args:
      variance: over examples x of the posterior's mean, by latent axis.
      threshold: in squared units of z, whose prior has scale 1 or so.

    >>> active_units(np.array([0.9, 1e-4, 0.02])).sum()
    np.int64(2)
    """
    return np.asarray(variance) > threshold


def measure_posterior_means(
    model: MMVAE, data: AnyBatch, *, batch_size: int = 512
) -> PosteriorMeans:
    """Returns mean and variance over a data set of the means of posteriors, for ``active_units``.

    Args:
      model: an MMVAE.
      data: examples; incomplete ones count where they are observed.
      batch_size: examples that go through the encoders at a time.

    Raises:
      ValueError: for data that do not fit the model.

    >>> active_units(measure_posterior_means(model, arrays).mixture.variance).shape
    (2,)
    """
    parts = []
    for _, (experts, mask) in posteriors_of(model, data, batch_size):
        loc, rows = np.asarray(experts.loc), np.asarray(mask)
        own = dict(zip(model.config.modalities, map(mean_variance, loc, rows), strict=True))
        mixture = mean_variance(mixture_mean(experts, mask), np.asarray(mask.any(0)))
        parts.append(PosteriorMeans(own, mixture))
    return functools.reduce(_merge, parts)


def _merge(a: PosteriorMeans, b: PosteriorMeans) -> PosteriorMeans:
    experts = {name: own.merge(b.experts[name]) for name, own in a.experts.items()}
    return PosteriorMeans(experts, a.mixture.merge(b.mixture))
