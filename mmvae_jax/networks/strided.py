"""Networks of strided convolutions only, shared by SVHN, PolyMNIST and CUB."""

import itertools
from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv, ConvTranspose
from mmvae_jax.networks.mlp import EncoderOutput

#: Channels after each convolution for SVHN and PolyMNIST.
FEATURES = (32, 64, 128)
#: Height and width of the last feature map: three halvings of an image of 25 to 32 pixels a side.
GRID = (4, 4)


class StridedEncoder(nnx.Module):
    """Convolutions that halve the image down to 4 x 4 pixels, and a 4 x 4 convolution per head.

    Args:
      latent_dim: size d of the latent.
      kernel_size: height and width of the halving kernels.
      features: channels after each halving.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        latent_dim: int,
        kernel_size: tuple[int, int],
        features: Sequence[int] = FEATURES,
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            Conv(a, b, kernel_size, strides=2, padding=1, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((3, *features))
        )
        self.loc, self.log_var = (
            Conv(features[-1], latent_dim, GRID, padding="VALID", dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n h w 3"]) -> EncoderOutput:
        h = x
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        return self.loc(h)[:, 0, 0], self.log_var(h)[:, 0, 0]


class StridedDecoder(nnx.Module):
    """A transposed convolution to 4 x 4 pixels, others that double the image, and a sigmoid.

    Args:
      latent_dim: size d of the latent.
      kernel_size: height and width of all kernels.
      features: channels before each doubling.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        latent_dim: int,
        kernel_size: tuple[int, int],
        features: Sequence[int],
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.grid = ConvTranspose(
            latent_dim, features[0], kernel_size, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.convs = nnx.List(
            ConvTranspose(a, b, kernel_size, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((*features, 3))
        )

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n h w 3"]:
        h = self.grid(z[:, None, None])
        for conv in self.convs:
            h = conv(jax.nn.relu(h))
        return jax.nn.sigmoid(h)
