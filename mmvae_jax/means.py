"""What a user watches during training: means over examples, of a bound's report."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.maths.bounds import expert_bounds, normalised_per_expert
from mmvae_jax.maths.gradients import Report
from mmvae_jax.maths.weights import effective_sample_size

OF_BACKWARD = ("backward_share", "dropped_mass")  # metrics that tell about a gradient
PER_MODALITY = ("bound", "log_likelihood")

Metrics = dict[str, Float[Array, ""]]


class Mean(NamedTuple):
    """A mean, as the two numbers that add up over devices and batches.

    Attributes:
      total: sum of the values.
      weight: how many there are, or what they weigh.
    """

    total: Float[Array, ""]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, ""]:
        """The mean; 0 of nothing."""
        return self.total / jnp.where(self.weight > 0, self.weight, 1)


Means = dict[str, Mean]


def report_means(
    config: MMVAEConfig,
    report: Report,
    mask: Bool[Array, "m b"],
    weight: Float[Array, " b"] | None = None,
) -> Means:
    """Means over examples of what a user watches during training."""
    w = normalised_per_expert(report.log_w, mask)
    bounds = expert_bounds(report.log_w)
    mean = partial(mean_over_examples, weight=weight)
    per_example = partial(_mean_per_example, weight=weight)
    means = {"kl": per_example(report.log_posterior - report.log_prior, mask)}
    for m, name in enumerate(config.modalities):
        means[f"bound/{name}"] = mean(bounds[m], mask[m])
        both = mask & mask[m][None]
        means[f"log_likelihood/{name}"] = per_example(report.log_likelihood[m], both)
    means["ess"] = mean(effective_sample_size(w), mask)
    means["max_weight"] = mean(w.max(1), mask)
    means["backward_share"] = mean(report.backward_share, mask)
    dropped, mass = (_weighted(x, weight).sum() for x in (report.dropped_mass, report.mass))
    means["dropped_mass"] = Mean(dropped, mass)
    return means


def metric_names(config: MMVAEConfig) -> tuple[str, ...]:
    """Names of the metrics of an evaluation."""
    of_modalities = (f"{kind}/{m}" for m in config.modalities for kind in PER_MODALITY)
    return ("loss", "kl", *of_modalities, "ess", "max_weight")


def mean_over_examples(
    values: Float[Array, "*m b"], mask: Bool[Array, "*m b"], weight: Float[Array, " b"] | None
) -> Mean:
    """Mean of the values whose mask is on, each with the weight of its example."""
    kept, counted = jnp.where(mask, values, 0), mask.astype(values.dtype)
    return Mean(_weighted(kept, weight).sum(), _weighted(counted, weight).sum())


def _weighted(
    values: Float[Array, "*m b"], weight: Float[Array, " b"] | None
) -> Float[Array, "*m b"]:
    if weight is None:
        return values
    return values * weight.astype(values.dtype).reshape(*[1] * (values.ndim - 1), -1)


def _mean_per_example(
    values: Float[Array, "m b"], mask: Bool[Array, "m b"], weight: Float[Array, " b"] | None
) -> Mean:
    """Mean over examples of the mean over each one's experts."""
    num_experts = mask.sum(0)
    means = jnp.where(mask, values, 0).sum(0) / jnp.maximum(num_experts, 1)
    return mean_over_examples(means.astype(values.dtype), num_experts > 0, weight)
