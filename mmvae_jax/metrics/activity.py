"""Active units: the latent axes that carry information about the data."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from mmvae_jax.batch import AnyBatch
from mmvae_jax.generative import components_of, single_components
from mmvae_jax.maths.mixture import mixture_mean
from mmvae_jax.metrics.expert_posteriors import posteriors_of
from mmvae_jax.metrics.moments import MeanVariance, mean_variance
from mmvae_jax.model import MMVAE

#: Variance of an active axis's posterior means, in squared units of z (Burda et al. 2016).
THRESHOLD = 0.01


class PosteriorMeans(NamedTuple):
    """Moments over examples of the posterior means, by latent axis.

    Attributes:
      experts: moments of the mean of the posterior given each modality by itself, over the examples
        that have it.
      mixture: moments of the mean of q(u|X), over the examples that have any modality.
    """

    experts: dict[str, MeanVariance]
    mixture: MeanVariance


def active_units(
    variance: Float[Array | np.ndarray, "*n d"], threshold: float = THRESHOLD
) -> Bool[np.ndarray, "*n d"]:
    """Returns True for the active axes, ``Var_x(E[z|x]) > threshold`` (Burda et al. 2016).

    Args:
      variance: variance over examples x of the posterior mean, by latent axis.
      threshold: smallest variance of an active axis, in squared units of z.

    >>> active_units(np.array([0.9, 1e-4, 0.02])).sum()
    np.int64(2)
    """
    return np.asarray(variance) > threshold


def measure_posterior_means(
    model: MMVAE, data: AnyBatch, *, batch_size: int = 512
) -> PosteriorMeans:
    """Returns moments of the posterior means over a data set, for ``active_units``.

    Args:
      model: an MMVAE.
      data: examples; incomplete ones count where they are observed.
      batch_size: number of examples per call of the encoders.

    Raises:
      ValueError: if the data do not fit the model.

    >>> active_units(measure_posterior_means(model, arrays).mixture.variance).shape
    (2,)
    """
    parts = []
    for _, (experts, mask) in posteriors_of(model, data, batch_size):
        loc, rows = np.asarray(single_components(model, experts).loc), np.asarray(mask)
        own = dict(zip(model.config.modalities, map(mean_variance, loc, rows), strict=True))
        whole = mixture_mean(*components_of(model, experts, mask))
        mixture = mean_variance(whole, np.asarray(mask.any(0)))
        parts.append(PosteriorMeans(own, mixture))
    return functools.reduce(_merge, parts)


def _merge(a: PosteriorMeans, b: PosteriorMeans) -> PosteriorMeans:
    experts = {name: own.merge(b.experts[name]) for name, own in a.experts.items()}
    return PosteriorMeans(experts, a.mixture.merge(b.mixture))
