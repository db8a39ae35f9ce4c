"""Lower bounds of log p(X): reductions of the log importance weights, ``[m k b] -> [b]``.

Every bound is a mean over groups of particles; its derivative with respect to ``log w`` is
``share * w~``, with ``w~`` the weights normalised inside a group. Estimators of the gradient
need the two factors apart. An example with nothing observed has bound 0 and weights 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Bound(NamedTuple):
    """A bound and the two factors of its derivative.

    Attributes:
      value: ``(log_w [m k b], mask [m b]) -> [b]``.
      normalise: ``(log_w, mask) -> w~ [m k b]``, zero for the particles of missing experts.
      share: ``mask [m b] -> [m b]``, the weight of the group that the expert's particles are in.
      joint: True if all particles of an example are one group, not those of each expert.
    """

    value: Callable[[Array, Array], Array]
    normalise: Callable[[Array, Array], Array]
    share: Callable[[Array], Array]
    joint: bool = False


def expert_bounds(log_w: Float[Array, "m k b"]) -> Float[Array, "m b"]:
    """Returns each expert's K-sample bound, ``logsumexp_k log w - log K`` (Burda et al. 2016)."""
    return jax.nn.logsumexp(log_w, axis=1) - jnp.log(log_w.shape[1])


def looser(log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]) -> Float[Array, " b"]:
    """Returns the mean of the observed experts' K-sample bounds (Shi et al. 2019, eq. 5)."""
    return _mean_observed(expert_bounds(log_w), mask)


def tight(log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]) -> Float[Array, " b"]:
    """Returns ``logsumexp_{m in S, k} log w - log(|S| K)``: all particles in one logarithm."""
    masked, any_observed = _masked(log_w, mask)
    num_particles = jnp.maximum(mask.sum(0), 1) * log_w.shape[1]
    value = jax.nn.logsumexp(masked, axis=(0, 1)) - jnp.log(num_particles.astype(log_w.dtype))
    return jnp.where(any_observed, value, 0)


def elbo(log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]) -> Float[Array, " b"]:
    """Returns the mean of log w over the observed experts and their particles."""
    return _mean_observed(log_w.mean(axis=1), mask)


def normalised_per_expert(
    log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]
) -> Float[Array, "m k b"]:
    """Returns weights that sum to 1 over the particles of each observed expert."""
    return jnp.where(mask[:, None], jax.nn.softmax(log_w, axis=1), 0)


def _normalised_jointly(
    log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]
) -> Float[Array, "m k b"]:
    masked, any_observed = _masked(log_w, mask)
    return jnp.where(any_observed[None, None], jax.nn.softmax(masked, axis=(0, 1)), 0)


def _uniform(log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]) -> Float[Array, "m k b"]:
    uniform = jnp.full_like(log_w, 1 / log_w.shape[1])
    return jnp.where(mask[:, None], uniform, 0)


def _masked(
    log_w: Float[Array, "m k b"], mask: Bool[Array, "m b"]
) -> tuple[Float[Array, "m k b"], Bool[Array, " b"]]:
    """Returns log w with -inf for missing experts, and 0 for examples without any expert."""
    any_observed = mask.any(0)
    kept = jnp.where(mask[:, None], log_w, -jnp.inf)
    return jnp.where(any_observed[None, None], kept, 0), any_observed


def _mean_observed(values: Float[Array, "m b"], mask: Bool[Array, "m b"]) -> Float[Array, " b"]:
    num_observed = jnp.maximum(mask.sum(0), 1).astype(values.dtype)
    return jnp.where(mask, values, 0).sum(0) / num_observed


def _one_over_observed(mask: Bool[Array, "m b"]) -> Float[Array, "m b"]:
    return mask / jnp.maximum(mask.sum(0, keepdims=True), 1)


BOUNDS: dict[str, Bound] = {
    "looser": Bound(looser, normalised_per_expert, _one_over_observed),
    "tight": Bound(tight, _normalised_jointly, lambda mask: jnp.asarray(mask, float), joint=True),
    "elbo": Bound(elbo, _uniform, _one_over_observed),
}
