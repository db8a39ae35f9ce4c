"""Divergences between the posteriors of the experts: do they say the same of one example?"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.batch import AnyBatch
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.weights import Experts, observed_experts
from mmvae_jax.metrics.posteriors import posteriors
from mmvae_jax.model import MMVAE


class Divergences(NamedTuple):
    """Nats of each example, modalities in the config's order; NaN where either is missing.

    Attributes:
      kl: KL(q_m||q_j), ``[m j b]``.
      jeffreys: KL(q_m||q_j) + KL(q_j||q_m), ``[m j b]``.
    """

    kl: Float[Array, "m j b"]
    jeffreys: Float[Array, "m j b"]


def _normal(
    distance: Float[Array, "*#n d"], p_scale: Float[Array, "*#n d"], q_scale: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """``log(q/p) + (p^2 + distance^2) / (2 q^2) - 1/2``, with the scales p and q."""
    excess = jnp.square(p_scale / q_scale) - 1
    return (_convex(excess) + jnp.square(distance / q_scale)) / 2


def _laplace(
    distance: Float[Array, "*#n d"], p_scale: Float[Array, "*#n d"], q_scale: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """``log(q/p) + (p exp(-distance/p) + distance) / q - 1``, with the scales p and q."""
    ratio, steps = p_scale / q_scale, distance / p_scale
    return _convex(ratio - 1) + ratio * (jnp.expm1(-steps) + steps)


def _convex(excess: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """``u - log(1 + u)``: what scales alone contribute, without the cancellation near equality."""
    return excess - jnp.log1p(excess)


#: KL(p||q) per axis, of the distance of the locations and the scales of p and q.
KL: dict[str, Callable[[Array, Array, Array], Array]] = {
    "normal": _normal,
    "laplace_with_softmax": _laplace,
}


def closed_form(family: str | Family) -> Callable[[Array, Array, Array], Array]:
    """Returns the entry of ``KL`` for a config's ``prior_and_posterior_dist``.

    Raises:
      ValueError: for a family without one.
    """
    if not isinstance(family, str) or family not in KL:
        raise ValueError(
            f"family is {family!r}: choose one of {sorted(KL)}, whose divergences are known"
        )
    return KL[family]


def kl_between_experts(
    family: str | Family, experts: Experts, mask: Bool[Array, "m b"]
) -> Float[Array, "m j b"]:
    """Returns KL(q_m||q_j) of each example, in nats, in closed form.

    Args:
      family: of the posteriors, as ``config.prior_and_posterior_dist`` names it.
      experts: their locations and scales, ``[m b d]``.
      mask: which modalities were observed.

    Returns:
      ``[m j b]``, 0 on the diagonal; NaN where either modality is missing.

    Raises:
      ValueError: for a family without a closed form.

    >>> kl_between_experts("normal", *posteriors(model, batch)).shape
    (2, 2, 5)
    """
    kl = closed_form(family)
    loc, scale = observed_experts(experts, mask)
    axes = kl(jnp.abs(loc[:, None] - loc[None]), scale[:, None], scale[None])
    return jnp.where(mask[:, None] & mask[None], axes.sum(-1), jnp.nan)


def jeffreys_between_experts(
    family: str | Family, experts: Experts, mask: Bool[Array, "m b"]
) -> Float[Array, "m j b"]:
    """Returns KL(q_m||q_j) + KL(q_j||q_m) of each example, in nats (Jeffreys 1946).

    Arguments, result and errors as ``kl_between_experts``; symmetric in m and j.
    """
    kl = kl_between_experts(family, experts, mask)
    return kl + kl.swapaxes(0, 1)


def measure_divergences(model: MMVAE, batch: AnyBatch) -> Divergences:
    """Returns the divergences between a model's posteriors of each example of a batch.

    Raises:
      ValueError: for a batch that does not fit, or a family without a closed form.

    >>> kl, jeffreys = measure_divergences(model, batch)
    >>> np.diagonal(kl).tolist()[0]
    [0.0, 0.0]
    """
    experts, mask = posteriors(model, batch)
    family = model.config.prior_and_posterior_dist
    return Divergences(
        kl_between_experts(family, experts, mask), jeffreys_between_experts(family, experts, mask)
    )
