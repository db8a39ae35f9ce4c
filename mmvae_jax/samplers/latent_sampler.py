"""A distribution of latents z: a fitted one of the shared part, the prior of private parts."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.checks import check_count
from mmvae_jax.inference.latent_parts import check_latents
from mmvae_jax.inference.private_latents import generated_scale
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.latent_axes import LatentAxes, private_log_probs
from mmvae_jax.model import MMVAE


@struct.dataclass
class LatentSampler:
    """Distribution of a model's latents, which ``sample`` draws from; a pytree.

    Private latents come from the distribution that ``config.reconstruction_option`` names.

    Attributes:
      shared: fitted density of the shared latent u, a ``GaussianMixture`` or a ``Flow``.
      private_scale: scale of all private axes; empty without private latents.
      axes: shared and private axes of z.
      family: family of the private latents.

    >>> sampler = mm.fit_gaussian_mixture(model, batch, jax.random.key(0), num_components=2)
    >>> z = sampler.sample(jax.random.key(1), 7)
    >>> z.shape, sampler.log_prob(z).shape
    ((7, 2), (7,))
    """

    shared: Any
    private_scale: Float[Array, " p"]
    axes: LatentAxes = struct.field(pytree_node=False)
    family: Family = struct.field(pytree_node=False)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draws n latents, which ``mm.decode`` turns into modalities.

        Args:
          key: randomness.
          n: number of draws; static under jit.
        """
        return _sample(self, as_key(key), check_count("n", n))

    def log_prob(self, z: Float[Array, "*n d"]) -> Float[Array, "*n"]:
        """Returns the log density of latents.

        Raises:
          ValueError: for latents of another size.
        """
        check_latents(self.axes, z)
        return _log_prob(self, z)


def sampler_of(model: MMVAE, shared: Any) -> LatentSampler:
    """Returns the distribution of the model's latents with this density of u."""
    config = model.config
    return LatentSampler(shared, generated_scale(model), config.axes, config.family)


# DistraX itself promotes ranks, which a strict JAX refuses.
@partial(jax.jit, static_argnames=("n",))
def _sample(sampler: LatentSampler, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
    shared_key, private_key = jax.random.split(key)
    with jax.numpy_rank_promotion("allow"):
        u = sampler.shared.distribution().sample(seed=shared_key, sample_shape=(n,))
    noise = sampler.family.standard(private_key, (n, sampler.axes.num_private), u.dtype)
    return jnp.concatenate([u, sampler.private_scale[None] * noise], axis=-1)


@jax.jit
def _log_prob(sampler: LatentSampler, z: Float[Array, "*n d"]) -> Float[Array, "*n"]:
    axes, flat = sampler.axes, z.reshape(-1, z.shape[-1])
    with jax.numpy_rank_promotion("allow"):
        log_p = sampler.shared.distribution().log_prob(axes.shared_part(flat))
    if axes.num_private:
        scale = sampler.private_scale[None]
        loc = jnp.zeros_like(scale)
        log_p += private_log_probs(sampler.family, axes, flat, loc, scale).sum(-1)
    return log_p.reshape(z.shape[:-1])
