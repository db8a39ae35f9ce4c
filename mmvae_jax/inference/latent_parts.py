"""The parts of a latent: u, shared by all modalities, and a private w of each one."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from mmvae_jax.checks import check_modalities
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.model import MMVAE


class Latents(NamedTuple):
    """The parts of a latent ``z = [u, w_1, ..., w_M]``.

    Attributes:
      shared: u, ``[*n, latent_dim]``.
      private: w of each modality, ``{modality: [*n, p]}``; empty without private latents.

    >>> private = mm.MMVAE(config.replace(modalities_specific_dim=3), rngs=nnx.Rngs(0))
    >>> latents = mm.split_latents(private, mm.generate_from_prior(private, jax.random.key(0), 7))
    >>> latents.private["sound"].shape
    (7, 3)
    """

    shared: Float[Array, "*n d"]
    private: dict[str, Float[Array, "*n p"]]


def split_latents(model: MMVAE, z: Float[Array, "*n d"]) -> Latents:
    """Returns the shared and the private parts of latents.

    Args:
      model: an MMVAE.
      z: latents from ``encode`` or ``generate_from_prior``.

    Raises:
      ValueError: for latents of another size.

    >>> shared, private = mm.split_latents(model, jnp.zeros((6, 2)))
    >>> shared.shape, private
    ((6, 2), {})
    """
    axes = model.config.axes
    check_latents(axes, z)
    names = model.config.modalities if axes.num_private else ()
    return Latents(
        axes.shared_part(z), {name: axes.private_of(z, j) for j, name in enumerate(names)}
    )


def join_latents(
    model: MMVAE, shared: Float[Array, "*n d"], private: Mapping[str, Float[Array, "*n p"]]
) -> Float[Array, "*n e"]:
    """Returns the latents with these parts, the inverse of ``split_latents``.

    With the private latents of other examples, ``decode`` gives them the content of ``shared`` and
    the style of these.

    Args:
      model: an MMVAE.
      shared: u.
      private: w of every modality.

    Raises:
      ValueError: for unknown or absent modalities, and parts of other sizes.

    >>> mm.join_latents(model, jnp.zeros((6, 2)), {}).shape
    (6, 2)
    """
    names = model.config.modalities if model.config.axes.num_private else ()
    check_modalities("private", private, names)
    if missing := [name for name in names if name not in private]:
        raise ValueError(f"private lacks {missing}: give the private latent of every modality")
    named = [("shared", shared), *((f"private[{name!r}]", private[name]) for name in names)]
    sizes = (model.config.axes.num_shared, *model.config.axes.private)
    for (field, part), size in zip(named, sizes, strict=True):
        expected = (*jnp.shape(shared)[:-1], size)
        if jnp.shape(part) != expected:
            raise ValueError(f"{field} has shape {jnp.shape(part)}, expected {expected}")
    return jnp.concatenate([part for _, part in named], axis=-1)


def check_latents(axes: LatentAxes, z: Float[Array, "*n d"]) -> None:
    """Raises ValueError for latents of another size."""
    shape = jnp.shape(z)
    if not shape or shape[-1] != axes.size:
        private = f", and the private latents have {axes.num_private} axes together"
        raise ValueError(
            f"z has shape {shape}, expected (..., {axes.size}): latent_dim is "
            f"{axes.num_shared}{private if axes.num_private else ''}"
        )
