"""Log importance weights of particles, in arrays of any shape."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mmvae_jax.maths.distributions import Family, mixture_log_prob, responsibilities


class Experts(NamedTuple):
    """Location and scale of every expert's posterior: ``[m b d]``, or broadcast to particles."""

    loc: Float[Array, "m *b d"]
    scale: Float[Array, "m *b d"]


class Terms(NamedTuple):
    """The terms of the log weights of particles, or their means over particles.

    Attributes:
      log_likelihood: log p(x_j|z), not rescaled, zero where x_j is missing.
      log_prior: log p(z), with the private latent of the own expert only.
      log_posterior: log q_mix(z|X), plus log q_m(w_m|x_m) of the own private latent.
    """

    log_likelihood: Float[Array, "j *n"]
    log_prior: Float[Array, "*n"]
    log_posterior: Float[Array, "*n"]


def observed_experts(experts: Experts, mask: Bool[Array, "m b"]) -> Experts:
    """Returns the experts with a standard posterior in place of missing ones.

    Placeholder data then cannot affect any value or gradient.
    """
    kept = mask[..., None]
    return Experts(jnp.where(kept, experts.loc, 0), jnp.where(kept, experts.scale, 1))


def mask_of_mixture(mask: Bool[Array, "m b"]) -> Bool[Array, "m b"]:
    """Returns the mask, all True where no expert is observed: a mixture needs a component."""
    return mask | ~mask.any(0, keepdims=True)


def expert_log_probs(
    family: Family, experts: Experts, z: Float[Array, "*n d"]
) -> Float[Array, "j *n"]:
    """Returns log q_j(z_n) of every expert j; ``experts`` have the rank of ``[j *n d]``."""
    return family.log_prob(z[None], experts.loc, experts.scale)


def own_responsibility(
    family: Family,
    experts: Experts,
    mask: Bool[Array, "j *n"],
    own: Bool[Array, "j *n"],
    z: Float[Array, "*n d"],
) -> Float[Array, "*n"]:
    """Returns ``r_m(z)`` of the expert m that each particle was drawn from (``own`` is True)."""
    shares = responsibilities(expert_log_probs(family, experts, z), mask)
    return jnp.where(own, shares, 0).sum(0)


def log_weights(
    log_likelihood: Float[Array, "j *n"],
    log_prior: Float[Array, "*n"],
    log_q: Float[Array, "m *n"],
    mask: Bool[Array, "m *n"],
    factors: Float[ArrayLike, " j"],
    beta: Float[ArrayLike, ""],
    log_private: Float[Array, "*n"] | None = None,
) -> tuple[Float[Array, "*n"], Terms]:
    """Returns the log weights of particles and their terms, given the log densities.

    ``log w = sum_{j in S} rescale_j log p(x_j|z) + beta (log p(z) - log q_mix(z|X))``, where z is u
    in the mixture of a model with private latents, and ``log q_m(w_m|x_m)`` is subtracted, too.

    Args:
      log_likelihood: log p(x_j|z), zero where x_j is missing.
      log_prior: log p(z).
      log_q: log q_m(z) of every component of the mixture.
      mask: True for available components, at least one at every particle.
      factors: rescale factor of each modality.
      beta: weight of the prior and posterior densities.
      log_private: log q_m(w_m|x_m) of the own private latent; None without private latents.
    """
    log_posterior = mixture_log_prob(log_q, mask)
    if log_private is not None:
        log_posterior += log_private
    # TF32, JAX's default for products on a GPU, would round log densities to 11 bits.
    rescaled = jnp.tensordot(factors, log_likelihood, 1, precision="highest")
    log_w = rescaled + beta * (log_prior - log_posterior)
    return log_w, Terms(log_likelihood, log_prior, log_posterior)


def differentiated_where(
    is_differentiated: Bool[Array, "*n"], a: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """Returns values whose gradient is stopped elsewhere."""
    return jnp.where(is_differentiated[..., None], a, jax.lax.stop_gradient(a))


def effective_sample_size(weights: Float[Array, "m k b"]) -> Float[Array, "m b"]:
    """Returns ``1 / sum_k w~^2`` of each expert's weights, between 1 and K; 0 where missing."""
    square = jnp.square(weights).sum(1)
    return jnp.where(square > 0, 1 / jnp.where(square > 0, square, 1), 0)
