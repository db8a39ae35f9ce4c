"""Defensive mixture: the density that likelihood estimates sample from.

``q(z) = (1 - share) q_mix(z|S) + share p(z)`` with the experts S that an example has. Weights
``p(x|z) p(z) / q(z)`` are then at most ``p(x|z) / share``, however narrow the experts are
(Hesterberg 1995; Owen and Zhou 2000).
"""

import math
from fractions import Fraction
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmvae_jax.maths.distributions import Family, mixture_log_prob
from mmvae_jax.maths.weights import Experts, expert_log_probs, mask_of_mixture


class Proposal(NamedTuple):
    """Components of the mixture and the share of the last one, the prior.

    Attributes:
      components: location and scale of the experts, then of the prior or its clusters,
        ``[m+c b d]``.
      available: True for experts of the mixture.
      prior_share: share of the prior.
    """

    components: Experts
    available: Bool[Array, "m b"]
    prior_share: float

    def at(self, index: Int[Array, " e"]) -> "Proposal":
        """Returns the proposals of the examples with these numbers."""
        components = Experts(*(a[:, index] for a in self.components))
        return self._replace(components=components, available=self.available[:, index])

    def with_clusters(
        self, source: Int[Array, "g e"], cluster: Int[Array, "#g #e"] | int
    ) -> Int[Array, "g e"]:
        """Returns the components of particles, given their clusters for those of the prior.

        Args:
          source: result of ``components_of``.
          cluster: result of ``draw_clusters``.
        """
        return jnp.where(source == len(self.available), source + cluster, source)

    def log_prob(
        self, family: Family, z: Float[Array, "g b d"], log_prior: Float[Array, "g b"]
    ) -> Float[Array, "g b"]:
        """Returns log q(z), given log p(z)."""
        experts = Experts(*(a[: len(self.available), None] for a in self.components))
        log_q = expert_log_probs(family, experts, z)
        mask = jnp.broadcast_to(mask_of_mixture(self.available)[:, None], log_q.shape)
        log_mix = mixture_log_prob(log_q, mask)
        if not self.prior_share:
            return log_mix
        return jnp.logaddexp(
            log_mix + math.log1p(-self.prior_share), log_prior + math.log(self.prior_share)
        )


def with_prior(
    experts: Experts, prior: Experts, available: Bool[Array, "m b"], share: float
) -> Proposal:
    """Returns the mixture of the available experts and a share of the prior's components."""

    def joined(a: Float[Array, "m b d"], of_prior: Float[Array, "c d"]) -> Float[Array, "n b d"]:
        shape = (len(of_prior), *a.shape[1:])
        return jnp.concatenate([a, jnp.broadcast_to(of_prior[:, None].astype(a.dtype), shape)])

    return Proposal(Experts(*map(joined, experts, prior)), available, share)


def particle_ends(
    available: Bool[Array, "m b"], K: int, prior_share: float, offset: Float[Array, ""]
) -> Int[Array, "m b"]:
    """Returns the number of the first particle behind those of the r-th available expert.

    Systematic sampling: particle k has the quantile ``(k + offset) / K`` with one random offset in
    [0, 1). Every component gets K times its share of particles, or that rounded up or down, and
    exactly that on average over the offset. The host computes in fractions, with the decimal
    digits of the share: only the offset has the precision of a float. The prior's particles come
    last.

    Args:
      available: True for experts of the mixture.
      K: number of particles.
      prior_share: share of the prior.
      offset: random offset, the same for all examples.
    """
    num_experts, of_experts = len(available), K * (1 - Fraction(str(prior_share)))
    whole = [[K] * num_experts for _ in range(num_experts)]
    part = [[0.0] * num_experts for _ in range(num_experts)]
    for count in range(1, num_experts + 1):
        for rank in range(count):
            end = of_experts * Fraction(rank + 1, count)
            whole[rank][count - 1] = math.floor(end)
            part[rank][count - 1] = float(end % 1)
    ends = jnp.asarray(whole) + (offset < jnp.asarray(part, offset.dtype))
    return ends[:, jnp.maximum(available.sum(0), 1) - 1]


def components_of(
    number: Int[Array, " g"], ends: Int[Array, "m b"], available: Bool[Array, "m b"]
) -> Int[Array, "g b"]:
    """Returns the expert that each particle is drawn from, or m for the prior.

    Args:
      number: numbers of the particles.
      ends: result of ``particle_ends``.
      available: True for experts of the mixture.
    """
    num_experts = len(available)
    rank = (number[:, None, None] >= ends[None]).sum(1)
    available_first = jnp.argsort(~available, axis=0, stable=True)
    expert = jnp.take_along_axis(available_first, jnp.minimum(rank, num_experts - 1), axis=0)
    is_expert = rank < jnp.maximum(available.sum(0), 1)[None]
    return jnp.where(is_expert, expert, num_experts)
