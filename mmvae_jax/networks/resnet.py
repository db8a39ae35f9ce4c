"""Residual networks for PolyMNIST (Palumbo et al. 2023, MMVAE+, ICLR)."""

import itertools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype
from jax import lax
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv
from mmvae_jax.networks.mlp import EncoderOutput

KERNEL = (3, 3)
GRID = (7, 7)  # Two halvings of 28 x 28 pixels.
RESIDUAL_SCALE = 0.1


class ResidualBlock(nnx.Module):
    """Two convolutions whose output is scaled by 0.1 and added to the input.

    Computes ``shortcut(x) + 0.1 conv(a(conv(a(x))))`` with 3 x 3 kernels and ``a`` a leaky ReLU of
    slope 0.2. The inner convolution has ``min(in_features, out_features)`` channels. The shortcut
    is the identity between equal widths, and a 1 x 1 convolution without bias otherwise.

    Args:
      in_features: channels of the input.
      out_features: channels of the output.
      dtype: type of the computation; by default the common type of input and parameters.
      rngs: source of the initial parameters.

    >>> block = mm.networks.ResidualBlock(4, 8, rngs=nnx.Rngs(0))
    >>> block(jnp.zeros((5, 7, 7, 4))).shape
    (5, 7, 7, 8)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        hidden = min(in_features, out_features)
        self.inner = Conv(in_features, hidden, KERNEL, dtype=dtype, rngs=rngs)
        self.outer = Conv(hidden, out_features, KERNEL, dtype=dtype, rngs=rngs)
        self.shortcut = (
            None
            if in_features == out_features
            else Conv(in_features, out_features, (1, 1), use_bias=False, dtype=dtype, rngs=rngs)
        )

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return shortcut + RESIDUAL_SCALE * self.residual(x)

    def residual(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w f"]:
        """Returns the output of the two convolutions."""
        return self.outer(activation(self.inner(activation(x))))


class PolyMNISTResNetEncoder(nnx.Module):
    """Residual blocks with average pools between, and one linear layer each for loc and log_var.

    Layers and shapes::

        Conv(3, 64, 3 x 3)                      28 x 28 x 3   -> 28 x 28 x 64
        ResidualBlock(64, 64)                   28 x 28 x 64  -> 28 x 28 x 64
        average pool, ResidualBlock(64, 128)    28 x 28 x 64  -> 14 x 14 x 128
        average pool, ResidualBlock(128, 256)   14 x 14 x 128 -> 7 x 7 x 256
        Linear(12544, d) for loc, Linear(12544, d) for log_var

    An average pool covers 3 x 3 pixels with stride 2 and includes a border of zeros. In MMVAE+ this
    network encodes the shared latent; another one of its kind encodes the private latent
    (``TwoLatentEncoder``).

    Args:
      latent_dim: size d of the latent.
      width: channels of the first block; each halving of the image doubles them.
      block: class of the residual blocks.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.PolyMNISTResNetEncoder(20, width=4, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 28, 28, 3)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        width: int = 64,
        block: type[ResidualBlock] = ResidualBlock,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        widest = 4 * width
        self.image = Conv(3, width, KERNEL, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            block(a, b, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((width, width, 2 * width, widest))
        )
        self.loc, self.log_var = (
            nnx.Linear(math.prod(GRID) * widest, latent_dim, dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n 28 28 3"]) -> EncoderOutput:
        first, *others = self.blocks
        h = first(self.image(x))
        for block in others:
            h = block(_average_pool(h))
        h = h.reshape(h.shape[0], math.prod(h.shape[1:]))
        return self.loc(h), self.log_var(h)


class PolyMNISTResNetDecoder(nnx.Module):
    """Mirror image of ``PolyMNISTResNetEncoder``; outputs are unbounded.

    Layers and shapes::

        Linear(d, 12544)                                    -> 7 x 7 x 256
        ResidualBlock(256, 128), upsample     7 x 7 x 256   -> 14 x 14 x 128
        ResidualBlock(128, 64), upsample      14 x 14 x 128 -> 28 x 28 x 64
        ResidualBlock(64, 64), leaky ReLU     28 x 28 x 64  -> 28 x 28 x 64
        Conv(64, 3, 3 x 3)                    28 x 28 x 64  -> 28 x 28 x 3

    Upsampling repeats every pixel along both axes.

    Args:
      latent_dim: size d of the latent.
      width: channels of the last block; each doubling of the image halves them.
      block: class of the residual blocks.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.PolyMNISTResNetDecoder(20, width=4, rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 28, 28, 3)
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        width: int = 64,
        block: type[ResidualBlock] = ResidualBlock,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.start = (*GRID, 4 * width)
        self.grid = nnx.Linear(latent_dim, math.prod(self.start), dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            block(a, b, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((4 * width, 2 * width, width, width))
        )
        self.image = Conv(width, 3, KERNEL, dtype=dtype, rngs=rngs)

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 28 28 3"]:
        h = self.grid(z).reshape(z.shape[0], *self.start)
        *others, last = self.blocks
        for block in others:
            h = jnp.repeat(jnp.repeat(block(h), 2, axis=1), 2, axis=2)
        return self.to_image(last(h))

    def to_image(self, h: Float[Array, "n 28 28 c"]) -> Float[Array, "n 28 28 3"]:
        """Returns the image of the last feature map."""
        return self.image(activation(h))


def activation(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the leaky ReLU of slope 0.2."""
    return jax.nn.leaky_relu(x, 0.2)


def _average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n p q c"]:
    """Returns means over 3 x 3 pixels with stride 2; the image has a border of zeros."""
    # Sums of slices, one axis after the other: on CPU their gradient takes a seventh of the time
    # of the gradient of nnx.avg_pool.
    for axis in (1, 2):
        border = [(int(i == axis),) * 2 for i in range(4)]
        padded = jnp.pad(x, border)
        low, middle, high = (
            lax.slice_in_dim(padded, i, i + x.shape[axis], 2, axis) for i in range(3)
        )
        x = (low + middle + high) / 3
    return x
