"""Divergences between the posteriors of the experts, in closed form."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.weights import Experts, observed_experts


def _normal(
    distance: Float[Array, "*#n d"], p_scale: Float[Array, "*#n d"], q_scale: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """Returns ``log(q/p) + (p^2 + distance^2) / (2 q^2) - 1/2`` for the scales p and q."""
    excess = jnp.square(p_scale / q_scale) - 1
    return (_convex(excess) + jnp.square(distance / q_scale)) / 2


def _laplace(
    distance: Float[Array, "*#n d"], p_scale: Float[Array, "*#n d"], q_scale: Float[Array, "*#n d"]
) -> Float[Array, "*n d"]:
    """Returns ``log(q/p) + (p exp(-distance/p) + distance) / q - 1`` for the scales p and q."""
    ratio, steps = p_scale / q_scale, distance / p_scale
    return _convex(ratio - 1) + ratio * (jnp.expm1(-steps) + steps)


def _convex(excess: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    """Returns ``u - log(1 + u)``, the term of the scales, which does not cancel near u = 0."""
    return excess - jnp.log1p(excess)


#: KL(p||q) per axis by family, a function of ``abs(loc_p - loc_q)`` and of the scales of p and q.
KL: dict[str, Callable[[Array, Array, Array], Array]] = {
    "normal": _normal,
    "normal_with_softplus": _normal,
    "laplace_with_softmax": _laplace,
}


def closed_form(family: str | Family) -> Callable[[Array, Array, Array], Array]:
    """Returns KL(p||q) per axis, the entry of ``KL`` for a config's ``prior_and_posterior_dist``.

    Raises:
      ValueError: if the family has no closed form.

    >>> closed_form("normal")(jnp.array([2.0]), jnp.ones(1), jnp.ones(1)).tolist()
    [2.0]
    """
    if not isinstance(family, str) or family not in KL:
        raise ValueError(
            f"family is {family!r}: choose one of {sorted(KL)}, which have a closed form"
        )
    return KL[family]


def kl_between_experts(
    family: str | Family, experts: Experts, mask: Bool[Array, "m b"]
) -> Float[Array, "m j b"]:
    """Returns KL(q_m||q_j) of each example, in nats.

    Args:
      family: family of the posteriors, such as ``config.prior_and_posterior_dist``.
      experts: locations and scales of the posteriors, ``[m b d]``; components of q(z|X) serve, too.
      mask: True where a modality is observed.

    Returns:
      ``[m j b]``, 0 for m = j, NaN where either modality is missing.

    Raises:
      ValueError: if the family has no closed form.

    >>> from mmvae_jax.metrics import posteriors
    >>> kl_between_experts("normal", *posteriors(model, batch)).shape
    (2, 2, 5)
    """
    kl = closed_form(family)
    loc, scale = observed_experts(experts, mask)
    axes = kl(jnp.abs(loc[:, None] - loc[None]), scale[:, None], scale[None])
    return jnp.where(mask[:, None] & mask[None], axes.sum(-1), jnp.nan)
