"""An encoder of nothing but strided convolutions, as for SVHN and PolyMNIST."""

import itertools

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

from mmvae_jax.networks.conv import Conv
from mmvae_jax.networks.mlp import EncoderOutput

FEATURES = (32, 64, 128)
GRID = (4, 4)  # what three halvings leave of an image of 25 to 32 pixels a side


class StridedEncoder(nnx.Module):
    """Three convolutions that halve the image, and two heads that see all that is left of it.

    Args:
      latent_dim: size d of the latent.
      kernel_size: height and width of the kernels.
      dtype: type to compute in; by default that of the images and parameters.
      rngs: source of the initial parameters.
    """

    def __init__(
        self,
        latent_dim: int,
        kernel_size: tuple[int, int],
        *,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.convs = nnx.List(
            Conv(a, b, kernel_size, strides=2, padding=1, dtype=dtype, rngs=rngs)
            for a, b in itertools.pairwise((3, *FEATURES))
        )
        self.loc, self.log_var = (
            Conv(FEATURES[-1], latent_dim, GRID, padding="VALID", dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n h w 3"]) -> EncoderOutput:
        h = x
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        return self.loc(h)[:, 0, 0], self.log_var(h)[:, 0, 0]
