"""Convolutional networks for PolyMNIST (Sutter et al. 2021, arXiv 2105.02470)."""

import itertools
import math

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import ConvTranspose
from mmvae_jax.networks.strided import FEATURES, GRID, StridedEncoder

KERNEL = (3, 3)


class PolyMNISTEncoder(StridedEncoder):
    """Three strided convolutions, and one convolution each for loc and log_var.

    Layers and shapes::

        Conv(3, 32, 3 x 3, stride 2), ReLU     28 x 28 x 3  -> 14 x 14 x 32
        Conv(32, 64, 3 x 3, stride 2), ReLU    14 x 14 x 32 -> 7 x 7 x 64
        Conv(64, 128, 3 x 3, stride 2), ReLU   7 x 7 x 64   -> 4 x 4 x 128
        Conv(128, d, 4 x 4) for loc, Conv(128, d, 4 x 4) for log_var

    Args:
      latent_dim: size d of the latent.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.PolyMNISTEncoder(20, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 28, 28, 3)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        super().__init__(latent_dim, KERNEL, dtype=dtype, rngs=rngs)


class PolyMNISTDecoder(nnx.Module):
    """A dense layer and three transposed convolutions; outputs are unbounded.

    Layers and shapes::

        Linear(d, 2048), ReLU                                        -> 4 x 4 x 128
        ConvTranspose(128, 64, 3 x 3, stride 2), ReLU   4 x 4 x 128  -> 7 x 7 x 64
        ConvTranspose(64, 32, 3 x 3, stride 2), ReLU    7 x 7 x 64   -> 14 x 14 x 32
        ConvTranspose(32, 3, 3 x 3, stride 2)           14 x 14 x 32 -> 28 x 28 x 3

    Args:
      latent_dim: size d of the latent.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.PolyMNISTDecoder(20, rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 28, 28, 3)
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        self.grid = nnx.Linear(latent_dim, math.prod(GRID) * FEATURES[-1], dtype=dtype, rngs=rngs)
        channels = itertools.pairwise((*reversed(FEATURES), 3))
        paddings = ((1, 1), (1, 2), (1, 2))  # The first gives an odd side: 4 -> 7.
        self.convs = nnx.List(
            ConvTranspose(a, b, KERNEL, strides=2, padding=(p, p), dtype=dtype, rngs=rngs)
            for (a, b), p in zip(channels, paddings, strict=True)
        )

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 28 28 3"]:
        h = self.grid(z).reshape(z.shape[0], *GRID, FEATURES[-1])
        for conv in self.convs:
            h = conv(jax.nn.relu(h))
        return h
