"""Convolutional networks for SVHN (Shi et al. 2019, arXiv 1911.03393, Appendix C)."""

from flax import nnx
from flax.typing import Dtype

from mmvae_jax.networks.strided import FEATURES, StridedDecoder, StridedEncoder

KERNEL = (4, 4)


class SVHNEncoder(StridedEncoder):
    """Three strided convolutions, and one convolution each for loc and log_var.

    Layers and shapes::

        Conv(3, 32, 4 x 4, stride 2), ReLU     32 x 32 x 3  -> 16 x 16 x 32
        Conv(32, 64, 4 x 4, stride 2), ReLU    16 x 16 x 32 -> 8 x 8 x 64
        Conv(64, 128, 4 x 4, stride 2), ReLU   8 x 8 x 64   -> 4 x 4 x 128
        Conv(128, d, 4 x 4) for loc, Conv(128, d, 4 x 4) for log_var

    Args:
      latent_dim: size d of the latent.
      dtype: type of the computation; by default that of the images and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.SVHNEncoder(20, rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 32, 32, 3)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        super().__init__(latent_dim, KERNEL, dtype=dtype, rngs=rngs)


class SVHNDecoder(StridedDecoder):
    """Mirror image of ``SVHNEncoder``; outputs are intensities in (0, 1).

    Layers and shapes::

        ConvTranspose(d, 128, 4 x 4), ReLU              1 x 1 x d    -> 4 x 4 x 128
        ConvTranspose(128, 64, 4 x 4, stride 2), ReLU   4 x 4 x 128  -> 8 x 8 x 64
        ConvTranspose(64, 32, 4 x 4, stride 2), ReLU    8 x 8 x 64   -> 16 x 16 x 32
        ConvTranspose(32, 3, 4 x 4, stride 2), sigmoid  16 x 16 x 32 -> 32 x 32 x 3

    Args:
      latent_dim: size d of the latent.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.SVHNDecoder(20, rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 32, 32, 3)
    """

    def __init__(self, latent_dim: int, *, dtype: Dtype | None = None, rngs: nnx.Rngs):
        super().__init__(latent_dim, KERNEL, FEATURES[::-1], dtype=dtype, rngs=rngs)
