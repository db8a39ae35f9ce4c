"""Convolutional networks for MNIST-SVHN-Text (Sutter et al. 2021, arXiv 2105.02470)."""

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose
from mmvae_jax.networks.mlp import EncoderOutput

NUM_CHARACTERS = 71
KERNEL = (1, 4)  # A text is an image one pixel high, one pixel per character.


class TextEncoder(nnx.Module):
    """Convolutions over eight one-hot characters, and a linear layer each for loc and log_var.

    Layers and shapes::

        Linear(71, 128) of each character, ReLU    8 x 71  -> 8 x 128
        Conv(128, 128, 4, stride 2), ReLU          8 x 128 -> 4 x 128
        Conv(128, 128, 4), ReLU                    4 x 128 -> 1 x 128
        Linear(128, d) for loc, Linear(128, d) for log_var

    Args:
      latent_dim: size d of the latent.
      num_characters: size of the alphabet.
      width: channels of every layer.
      dtype: type of the computation; by default that of the text and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.TextEncoder(20, width=16, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 8, 71)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_characters: int = NUM_CHARACTERS,
        width: int = 128,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.characters = nnx.Linear(num_characters, width, dtype=dtype, rngs=rngs)
        self.halve = Conv(width, width, KERNEL, (1, 2), dtype=dtype, rngs=rngs)
        self.join = Conv(width, width, KERNEL, padding="VALID", dtype=dtype, rngs=rngs)
        self.loc, self.log_var = (
            nnx.Linear(width, latent_dim, dtype=dtype, rngs=rngs) for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n 8 c"]) -> EncoderOutput:
        h = self.characters(x)[:, None]
        for conv in (self.halve, self.join):
            h = conv(jax.nn.relu(h))
        h = jax.nn.relu(h[:, 0, 0])
        return self.loc(h), self.log_var(h)


class TextDecoder(nnx.Module):
    """Mirror image of ``TextEncoder``; outputs are logits.

    Layers and shapes::

        Linear(d, 128)                                      -> 1 x 128
        ConvTranspose(128, 128, 4), ReLU            1 x 128 -> 4 x 128
        ConvTranspose(128, 128, 4, stride 2), ReLU  4 x 128 -> 8 x 128
        Linear(128, 71) of each character           8 x 128 -> 8 x 71

    Args:
      latent_dim: size d of the latent.
      num_characters: size of the alphabet.
      width: channels of every layer.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.TextDecoder(20, width=16, rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 8, 71)
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_characters: int = NUM_CHARACTERS,
        width: int = 128,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.dense = nnx.Linear(latent_dim, width, dtype=dtype, rngs=rngs)
        self.split = ConvTranspose(width, width, KERNEL, padding="VALID", dtype=dtype, rngs=rngs)
        self.double = ConvTranspose(width, width, KERNEL, (1, 2), dtype=dtype, rngs=rngs)
        self.characters = nnx.Linear(width, num_characters, dtype=dtype, rngs=rngs)

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 8 c"]:
        h = self.dense(z)[:, None, None]
        for conv in (self.split, self.double):
            h = jax.nn.relu(conv(h))
        return self.characters(h[:, 0])
