"""Means over examples, as totals and weights that add up over devices and batches."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Mean(NamedTuple):
    """A mean as the two numbers that add up over devices and batches.

    Attributes:
      total: weighted sum of the values.
      weight: sum of their weights.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; 0 if nothing was counted."""
        return self.total / jnp.where(self.weight > 0, self.weight, 1)


Means = dict[str, Mean]


def mean_over_examples(
    values: Float[Array, "*m b"], mask: Bool[Array, "*m b"], weight: Float[Array, " b"] | None
) -> Mean:
    """Returns the mean of the values where the mask is on, each with the weight of its example."""
    kept, counted = jnp.where(mask, values, 0), mask.astype(values.dtype)
    return Mean(weighted(kept, weight).sum(), weighted(counted, weight).sum())


def mean_over_experts_and_examples(
    values: Float[Array, "m b"], mask: Bool[Array, "m b"], weight: Float[Array, " b"] | None
) -> Mean:
    """Returns the mean over examples of the mean over each example's experts."""
    num_experts = mask.sum(0)
    means = jnp.where(mask, values, 0).sum(0) / jnp.maximum(num_experts, 1)
    return mean_over_examples(means.astype(values.dtype), num_experts > 0, weight)


def weighted(
    values: Float[Array, "*m b"], weight: Float[Array, " b"] | None
) -> Float[Array, "*m b"]:
    """Returns the values times the weights of their examples; as they are without weights."""
    if weight is None:
        return values
    return values * weight.astype(values.dtype).reshape(*[1] * (values.ndim - 1), -1)
