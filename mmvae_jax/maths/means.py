"""Means and minima over examples, in parts that devices and batches put together."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.maths.collectives import Shards


class Mean(NamedTuple):
    """A mean as the two numbers that add up over devices and batches.

    Attributes:
      total: weighted sum of the values.
      weight: sum of their weights.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Any:
        """The mean, of the type of the parts; 0 if nothing was counted."""
        return self.total / (self.weight + (self.weight == 0))

    def merge(self, other: "Mean") -> "Mean":
        """Returns the mean over the examples of both."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def over_devices(self, shards: Shards) -> "Mean":
        """Returns the mean over the examples of all devices."""
        return shards.sum_over_examples(self)


class Minimum(NamedTuple):
    """A minimum over examples.

    Attributes:
      smallest: smallest value; infinity if nothing was counted.
    """

    smallest: Float[Array, ""]

    @property
    def value(self) -> Any:
        """The minimum; 0 if nothing was counted."""
        return jnp.where(jnp.isinf(self.smallest), 0, self.smallest)

    def merge(self, other: "Minimum") -> "Minimum":
        """Returns the minimum over the examples of both."""
        return Minimum(min(self.smallest, other.smallest))

    def over_devices(self, shards: Shards) -> "Minimum":
        """Returns the minimum over the examples of all devices."""
        return shards.min_over_examples(self)


#: Statistics of examples by name.
Means = dict[str, Mean | Minimum]


def over_devices(means: Means, shards: Shards) -> Means:
    """Returns the statistics over the examples of all devices."""
    return {name: mean.over_devices(shards) for name, mean in means.items()}


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
