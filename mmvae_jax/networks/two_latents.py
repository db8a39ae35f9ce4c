"""An encoder of a shared and a private latent from an encoder of each."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mmvae_jax.networks.mlp import EncoderOutput


class TwoLatentEncoder(nnx.Module):
    """Two encoders of the same input, one of the shared and one of the private latent.

    The networks of MMVAE+ (Palumbo et al. 2023) are of this form. A single encoder of
    ``config.network_dim(name)`` latents serves as well, and computes less.

    Args:
      shared: encoder of u.
      private: encoder of w.

    >>> shared = mm.networks.PolyMNISTEncoder(20, rngs=nnx.Rngs(0))
    >>> private = mm.networks.PolyMNISTEncoder(5, rngs=nnx.Rngs(1))
    >>> loc, log_var = mm.networks.TwoLatentEncoder(shared, private)(jnp.zeros((3, 28, 28, 3)))
    >>> loc.shape
    (3, 25)
    """

    def __init__(self, shared: Callable[..., EncoderOutput], private: Callable[..., EncoderOutput]):
        self.shared = shared
        self.private = private

    def __call__(self, x: Float[Array, "n *dim"]) -> EncoderOutput:
        """Returns location and raw scale of ``[u, w]``."""
        outputs = zip(self.shared(x), self.private(x), strict=True)
        loc, log_var = (jnp.concatenate(pair, axis=-1) for pair in outputs)
        return loc, log_var
