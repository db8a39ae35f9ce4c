"""MultiVae's first encoder for PolyMNIST, which only models from MultiVae have."""

import itertools
import math

import jax
from flax import nnx
from jaxtyping import Array, Float

from mmvae_jax.networks.cpu_conv import Conv
from mmvae_jax.networks.mlp import EncoderOutput
from mmvae_jax.networks.strided import FEATURES, GRID


class PolyMNISTDenseEncoder(nnx.Module):
    """MultiVae's ``EncoderConvMMNIST``: three convolutions, a dense layer of d units, two heads.

        Conv(3, 32, 3 x 3, stride 2), ReLU     28 x 28 x 3  -> 14 x 14 x 32
        Conv(32, 64, 3 x 3, stride 2), ReLU    14 x 14 x 32 -> 7 x 7 x 64
        Conv(64, 128, 3 x 3, stride 2), ReLU   7 x 7 x 64   -> 4 x 4 x 128
        Linear(2048, d), ReLU
        Linear(d, d) for loc, Linear(d, d) for log_var

    ``mmvae_jax.networks.polymnist.PolyMNISTEncoder`` has no dense layer; its heads see the feature
    map.

    Args:
      latent_dim: size d of the latent.
      bias: True for heads with a bias.
      rngs: source of the initial parameters.
    """

    def __init__(self, latent_dim: int, *, bias: bool = False, rngs: nnx.Rngs):
        self.convs = nnx.List(
            Conv(a, b, (3, 3), strides=2, padding=1, rngs=rngs)
            for a, b in itertools.pairwise((3, *FEATURES))
        )
        self.dense = nnx.Linear(math.prod(GRID) * FEATURES[-1], latent_dim, rngs=rngs)
        self.loc, self.log_var = (
            nnx.Linear(latent_dim, latent_dim, use_bias=bias, rngs=rngs) for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n 28 28 3"]) -> EncoderOutput:
        """Returns location and raw scale of the posterior."""
        h = x
        for conv in self.convs:
            h = jax.nn.relu(conv(h))
        h = jax.nn.relu(self.dense(h.reshape(h.shape[0], -1)))
        return self.loc(h), self.log_var(h)
