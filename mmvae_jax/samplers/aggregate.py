"""The aggregate posterior: the mean of q(u|X) over the examples of a data set."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmvae_jax.batch import AnyBatch
from mmvae_jax.generative import components_of
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.mixture import draw_mixture
from mmvae_jax.maths.weights import Experts
from mmvae_jax.metrics.expert_posteriors import posteriors_of
from mmvae_jax.model import MMVAE

#: Number of examples per call of the encoders.
_CHUNK = 512


class AggregatePosterior(NamedTuple):
    """The mixture ``1/n sum_b 1/|S_b| sum_{m in S_b} q_m(u|x_m)`` of n examples.

    Attributes:
      experts: locations and scales of the components of q(u|X), ``[m n d]``: those of the experts,
        unless ``aggregation`` differs.
      mask: True for the components that an example has, one or more.
    """

    experts: Experts
    mask: Bool[Array, "m n"]

    @property
    def num_examples(self) -> int:
        """Number of examples."""
        return self.mask.shape[1]

    def draw(
        self, family: Family, index: Int[Array, " e"], key: PRNGKeyArray
    ) -> Float[Array, "e d"]:
        """Returns a draw of q(u|X) of each of these examples."""
        experts = Experts(*(a[:, index] for a in self.experts))
        return draw_mixture(family, experts, self.mask[:, index], key, 1)[:, 0]


def aggregate_posterior(model: MMVAE, data: AnyBatch) -> AggregatePosterior:
    """Returns the aggregate posterior of all examples that observe a modality.

    Raises:
      ValueError: if no example does, the data do not fit the model, or a posterior is not finite.
    """
    locs, scales, masks = [], [], []
    for _, (experts, mask) in posteriors_of(model, data, _CHUNK):
        (loc, scale), mask = jax.device_get(components_of(model, experts, mask))
        kept = mask.any(0)
        locs.append(loc[:, kept])
        scales.append(scale[:, kept])
        masks.append(mask[:, kept])
    loc, scale, mask = (np.concatenate(parts, axis=1) for parts in (locs, scales, masks))
    if not mask.size:
        raise ValueError("data has no example with a modality: give one or more")
    if not np.isfinite(loc[mask]).all() or not np.isfinite(scale[mask]).all():
        raise ValueError("data has posteriors with NaN or infinity: train the model again")
    return AggregatePosterior(Experts(jnp.asarray(loc), jnp.asarray(scale)), jnp.asarray(mask))


def every_example(posterior: AggregatePosterior, num_draws: int) -> Int[Array, " e"]:
    """Returns the number of every example ``num_draws`` times."""
    return jnp.tile(jnp.arange(posterior.num_examples), num_draws)


draw_aggregate = jax.jit(AggregatePosterior.draw, static_argnames=("family",))
