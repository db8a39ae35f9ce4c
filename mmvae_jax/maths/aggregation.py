"""Aggregations of experts: the components of ``q(z|X)`` that posteriors of single modalities give.

``q(z|X)`` is always a uniform mixture of components. Every bound, estimator and likelihood draws
from these, one stratum each. They differ by model:

- ``moe``: the experts themselves (MMVAE, Shi et al. 2019).
- ``poe``: one component, the product of the available experts and the prior (MVAE, Wu and Goodman
  2018).
- ``mopoe``: the products of all subsets of the available experts (MoPoE, Sutter et al. 2021).

A product of normal densities is normal; other families have none in closed form.
"""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.maths.weights import Experts, observed_experts

AGGREGATIONS = ("moe", "poe", "mopoe")


def component_members(aggregation: str, num_experts: int) -> tuple[tuple[int, ...], ...]:
    """Returns the numbers of the experts that each component is made of."""
    every = tuple(range(num_experts))
    if aggregation == "moe":
        return tuple((m,) for m in every)
    if aggregation == "poe":
        return (every,)
    sizes = range(1, num_experts + 1)
    return tuple(itertools.chain(*(itertools.combinations(every, size) for size in sizes)))


def aggregate(
    aggregation: str,
    experts: Experts,
    available: Bool[Array, "m b"],
    prior_scale: Float[Array, " d"],
) -> tuple[Experts, Bool[Array, "c b"]]:
    """Returns the components ``[c b d]``, and True for those that an example has.

    A product for ``poe`` leaves unavailable experts out; a subset for ``mopoe`` with an unavailable
    member is no component.

    Args:
      aggregation: one of ``AGGREGATIONS``.
      experts: posteriors ``[m b d]``.
      available: True for the experts to use.
      prior_scale: scale of the prior, an expert of every product for ``poe``.
    """
    if aggregation == "moe":
        return experts, available
    experts = observed_experts(experts, available)
    members = component_members(aggregation, len(available))
    if aggregation == "poe":
        precision = 1 / jnp.square(prior_scale)[None]
        product = _product(experts, available, precision)
        return Experts(*(a[None] for a in product)), available.any(0, keepdims=True)
    products = [_product(Experts(*(a[jnp.array(s)] for a in experts))) for s in members]
    components = Experts(*map(jnp.stack, zip(*products, strict=True)))
    return components, jnp.stack([available[jnp.array(subset)].all(0) for subset in members])


def component_names(aggregation: str, modalities: Sequence[str]) -> tuple[str, ...]:
    """Returns names of the components: ``a``, ``a+b``; ``joint`` for ``poe``."""
    if aggregation == "poe":
        return ("joint",)
    members = component_members(aggregation, len(modalities))
    return tuple("+".join(modalities[m] for m in subset) for subset in members)


def _product(
    experts: Experts,
    available: Bool[Array, "m b"] | None = None,
    precision: Float[Array, "*#b d"] | float = 0.0,
) -> Experts:
    """Returns the normal density proportional to the product of the experts, ``[b d]``.

    Args:
      experts: normal factors.
      available: True for the factors to use; None for all.
      precision: precision of one more factor at 0.
    """
    factors = 1 / jnp.square(experts.scale)
    if available is not None:
        factors = jnp.where(available[..., None], factors, 0)
    precision = factors.sum(0) + precision
    return Experts((factors * experts.loc).sum(0) / precision, 1 / jnp.sqrt(precision))
