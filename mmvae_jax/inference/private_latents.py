"""Latents given some modalities, with the private latents of those that are generated."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmvae_jax.generative import components_of
from mmvae_jax.maths.latent_axes import with_own_private, with_private
from mmvae_jax.maths.prior import prior_components
from mmvae_jax.maths.weights import Experts
from mmvae_jax.model import MMVAE


def generated_scale(model: MMVAE) -> Float[Array, " p"]:
    """Returns the scale of all private axes of generated modalities, by ``reconstruction_option``.

    The scale is that of p(w) for ``joint_prior``, and of r_m(w) for ``single_prior``.
    """
    config = model.config
    if config.axes.num_private and config.reconstruction_option == "single_prior":
        return jnp.concatenate(model.private_scales())
    return config.axes.private_part(
        prior_components(config.family, config.axes, model.prior).scale[0]
    )


def generating_prior(model: MMVAE) -> Experts:
    """Returns location and scale ``[c d]`` of the clusters that data are generated from."""
    axes = model.config.axes
    loc, scale = prior_components(model.config.family, axes, model.prior)
    if not axes.num_private:
        return Experts(loc, scale)
    private = jnp.broadcast_to(generated_scale(model), (len(scale), axes.num_private))
    return Experts(loc, jnp.concatenate([axes.shared_part(scale), private], axis=-1))


def with_generated(model: MMVAE, experts: Experts) -> Experts:
    """Returns the table of experts ``[m b d]`` with generated private latents of other modalities.

    Row m keeps the posteriors of u and of its own w_m.
    """
    axes = model.config.axes
    if not axes.num_private:
        return experts
    scale = generated_scale(model)[None]
    is_own = axes.is_own(jnp.arange(len(experts.loc)))[:, None]
    return with_private(axes, experts, Experts(jnp.zeros_like(scale), scale), is_own)


def components_given(
    model: MMVAE, experts: Experts, available: Bool[Array, "m b"]
) -> tuple[Experts, Bool[Array, "c b"]]:
    """Returns the components of q(z|x_given), and True for those that an example has.

    Every component has the private posteriors of all given modalities, and for the others the
    distribution that they are generated from.

    Args:
      model: an MMVAE.
      experts: table of experts ``[m b d]`` from ``model.experts``.
      available: True for the modalities that are given.
    """
    axes, scale = model.config.axes, generated_scale(model)
    return components_of(model, with_own_private(axes, experts, available, scale), available)
