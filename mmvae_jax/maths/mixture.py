"""The mixture of the available experts: its draws and its mean."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.weights import Experts


def draw_mixture(
    family: Family, experts: Experts, available: Bool[Array, "m b"], key: PRNGKeyArray, N: int
) -> Float[Array, "b N d"]:
    """Draws z from the mixture of the available experts; NaN where there are none."""
    expert_key, noise_key = jax.random.split(key)
    logits = jnp.where(available, 0.0, -jnp.inf)
    num_examples, dim = experts.loc.shape[1:]
    picked = jax.random.categorical(expert_key, logits[None], axis=1, shape=(N, num_examples)).T
    example = jnp.arange(num_examples)[:, None]
    loc, scale = experts.loc[picked, example], experts.scale[picked, example]
    z = loc + scale * family.standard(noise_key, (num_examples, N, dim), loc.dtype)
    return jnp.where(available.any(0)[:, None, None], z, jnp.nan)


def mixture_mean(experts: Experts, available: Bool[Array, "m b"]) -> Float[Array, "b d"]:
    """Returns the average of the available experts' locations; NaN where there are none."""
    total = jnp.where(available[..., None], experts.loc, 0).sum(0)
    return total / available.sum(0).astype(total.dtype)[:, None]
