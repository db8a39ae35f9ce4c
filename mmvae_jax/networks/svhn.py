"""The convolutional networks for SVHN of Shi et al. 2019 (arXiv 1911.03393), Appendix C."""

import itertools

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.conv import ConvTranspose
from mmvae_jax.networks.strided import FEATURES, StridedEncoder

KERNEL = (4, 4)


class SVHNEncoder(StridedEncoder):
    """Three convolutions and two heads that see all that is left of the image.

        Conv(3, 32, 4 x 4, stride 2), ReLU     32 x 32 x 3  -> 16 x 16 x 32
        Conv(32, 64, 4 x 4, stride 2), ReLU    16 x 16 x 32 -> 8 x 8 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU   8 x 8 x 64   -> 4 x 4 x 128
        Conv(128, d, 4 x 4) for loc, Conv(128, d, 4 x 4) for log_var

    Args:
      latent_dim: size d of the latent.
      dtype: type to compute in; by default that of the images and parameters.
      rngs: source of the initial parameters.
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        super().__init__(latent_dim, KERNEL, dtype=dtype, rngs=rngs)


class SVHNDecoder(nnx.Module):
    """``SVHNEncoder`` mirrored.

        ConvTranspose(d, 128, 4 x 4), ReLU              1 x 1 x d    -> 4 x 4 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU   4 x 4 x 128  -> 8 x 8 x 64
        ConvTranspose(64, 32, 4 x 4, stride 2), ReLU    8 x 8 x 64   -> 16 x 16 x 32
        ConvTranspose(32, 3, 4 x 4, stride 2), sigmoid  16 x 16 x 32 -> 32 x 32 x 3

    Args:
      latent_dim: size d of the latent.
      dtype: type to compute in; by default that of z and the parameters.
      rngs: source of the initial parameters.
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        widest, *others = reversed(FEATURES)
        self.grid = ConvTranspose(
            latent_dim, widest, KERNEL, padding="VALID", dtype=dtype, rngs=rngs
        )
        self.convs = nnx.List(
            ConvTranspose(a, b, KERNEL, strides=2, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((widest, *others, 3))
        )

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n 32 32 3"]:
        h = self.grid(z[:, None, None])
        for conv in self.convs:
            h = conv(jax.nn.relu(h))
        return jax.nn.sigmoid(h)
