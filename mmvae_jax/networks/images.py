"""Convolutional networks for images of any size, channels last."""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose
from mmvae_jax.networks.mlp import EncoderOutput

# A multiple of the stride, so that all outputs of a decoder sum up equally many products.
KERNEL = (4, 4)


class ConvEncoder(nnx.Module):
    """Strided convolutions, a dense layer, and one linear layer each for loc and log_var.

    For 32 x 32 x 3 images and the default features::

        Conv(3, 32, 4 x 4, stride 2), ReLU     32 x 32 x 3  -> 16 x 16 x 32
        Conv(32, 64, 4 x 4, stride 2), ReLU    16 x 16 x 32 -> 8 x 8 x 64
        Linear(4096, hidden), ReLU
        Linear(hidden, d) for loc, Linear(hidden, d) for log_var

    Halves of odd sides are rounded up: 7 becomes 4.

    Args:
      input_dim: height, width and channels of an image.
      latent_dim: size d of the latent.
      features: channels after each convolution.
      hidden: width of the dense layer.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.

    Raises:
      ValueError: if ``input_dim`` is not an image of at least ``2 ** len(features)`` pixels a side.

    >>> encoder = mm.networks.ConvEncoder((28, 28, 1), 20, features=(8, 16), rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 28, 28, 1)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self,
        input_dim: tuple[int, ...],
        latent_dim: int,
        *,
        features: Sequence[int] = (32, 64),
        hidden: int = 256,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        *_, (height, width) = _halvings("input_dim", input_dim, len(features))
        channels = (input_dim[2], *features)
        self.convs = nnx.List(
            Conv(a, b, KERNEL, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(channels)
        )
        self.dense = nnx.Linear(height * width * channels[-1], hidden, dtype=dtype, rngs=rngs)
        self.loc = nnx.Linear(hidden, latent_dim, dtype=dtype, rngs=rngs)
        self.log_var = nnx.Linear(hidden, latent_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> EncoderOutput:
        h = x
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        h = jax.nn.relu(self.dense(h.reshape(h.shape[0], math.prod(h.shape[1:]))))
        return self.loc(h), self.log_var(h)


class ConvDecoder(nnx.Module):
    """Mirror image of ``ConvEncoder``: two dense layers and transposed convolutions.

    For 32 x 32 x 3 images and the default features::

        Linear(d, hidden), ReLU
        Linear(hidden, 4096), ReLU                     -> 8 x 8 x 64
        ConvTranspose(64, 32, 4 x 4, stride 2), ReLU   -> 16 x 16 x 32
        ConvTranspose(32, 3, 4 x 4, stride 2)          -> 32 x 32 x 3

    Where a side of the target is odd, the last row or column of the doubled image is dropped.

    Args:
      latent_dim: size d of the latent.
      output_dim: height, width and channels of an image.
      features: channels before each transposed convolution.
      hidden: width of the first dense layer.
      sigmoid: True to squash outputs into (0, 1), for intensities under a normal or Laplace
        likelihood; False for logits and unbounded data.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    Raises:
      ValueError: if ``output_dim`` is not an image of at least ``2 ** len(features)`` pixels a
        side.

    >>> decoder = mm.networks.ConvDecoder(20, (28, 28, 1), features=(16, 8), rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 28, 28, 1)
    """

    def __init__(
        self,
        latent_dim: int,
        output_dim: tuple[int, ...],
        *,
        features: Sequence[int] = (64, 32),
        hidden: int = 256,
        sigmoid: bool = False,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        *sizes, (height, width) = _halvings("output_dim", output_dim, len(features))
        channels = (*features, output_dim[2])
        self.sizes = tuple(reversed(sizes))
        self.start = (height, width, channels[0])
        self.sigmoid = sigmoid
        self.dense = nnx.Linear(latent_dim, hidden, dtype=dtype, rngs=rngs)
        self.grid = nnx.Linear(hidden, math.prod(self.start), dtype=dtype, rngs=rngs)
        self.convs = nnx.List(
            ConvTranspose(a, b, KERNEL, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise(channels)
        )

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n h w c"]:
        h = self.grid(jax.nn.relu(self.dense(z))).reshape(z.shape[0], *self.start)
        for conv, (height, width) in zip(self.convs, self.sizes, strict=True):
            h = conv(jax.nn.relu(h))[:, :height, :width]
        return jax.nn.sigmoid(h) if self.sigmoid else h


def _halvings(field: str, dim: tuple[int, ...], times: int) -> list[tuple[int, int]]:
    """Returns height and width of the image, before and after every halving."""
    if len(dim) != 3 or min(dim) < 1:
        raise ValueError(f"{field} is {dim}: give height, width and channels of an image")
    height, width, _ = dim
    if times < 1 or min(height, width) < 2**times:
        raise ValueError(
            f"{field} is {dim}: {times} features halve the image {times} times; give at least one "
            f"feature, and images of at least {2**times} pixels a side"
        )
    return [(-(-height // 2**i), -(-width // 2**i)) for i in range(times + 1)]
