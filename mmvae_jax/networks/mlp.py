"""Multi-layer perceptrons on flattened inputs, the default networks (as in MultiVae)."""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

#: Location and raw scale of a posterior, (loc, log_var).
EncoderOutput = tuple[Float[Array, "n d"], Float[Array, "n d"]]


class MLPEncoder(nnx.Module):
    """Hidden layers with ReLU on the flattened input, and a linear layer each for loc and log_var.

    Args:
      input_dim: shape of one example.
      latent_dim: size d of the latent.
      hidden: widths of the hidden layers.
      dtype: type of the computation; by default that of the input and parameters.
      rngs: source of the initial parameters.

    >>> encoder = mm.networks.MLPEncoder((28, 28), 20, hidden=(64,), rngs=nnx.Rngs(0))
    >>> loc, log_var = encoder(jnp.zeros((5, 28, 28)))
    >>> loc.shape
    (5, 20)
    """

    def __init__(
        self,
        input_dim: tuple[int, ...],
        latent_dim: int,
        *,
        hidden: Sequence[int] = (512, 512),
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.hidden = nnx.List(_layers((math.prod(input_dim), *hidden), dtype, rngs))
        self.loc = nnx.Linear(hidden[-1], latent_dim, dtype=dtype, rngs=rngs)
        self.log_var = nnx.Linear(hidden[-1], latent_dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "n *dim"]) -> EncoderOutput:
        h = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            h = jax.nn.relu(layer(h))
        return self.loc(h), self.log_var(h)


class MLPDecoder(nnx.Module):
    """Hidden layers with ReLU, and a linear layer of the output's shape.

    Args:
      latent_dim: size d of the latent.
      output_dim: shape of one example.
      hidden: widths of the hidden layers.
      sigmoid: True to squash outputs into (0, 1), for intensities under a normal or Laplace
        likelihood; False for logits and unbounded data.
      dtype: type of the computation; by default that of z and the parameters.
      rngs: source of the initial parameters.

    >>> decoder = mm.networks.MLPDecoder(20, (28, 28), hidden=(64,), rngs=nnx.Rngs(0))
    >>> decoder(jnp.zeros((5, 20))).shape
    (5, 28, 28)
    """

    def __init__(
        self,
        latent_dim: int,
        output_dim: tuple[int, ...],
        *,
        hidden: Sequence[int] = (512,),
        sigmoid: bool = False,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.hidden = nnx.List(_layers((latent_dim, *hidden), dtype, rngs))
        self.out = nnx.Linear(hidden[-1], math.prod(output_dim), dtype=dtype, rngs=rngs)
        self.output_dim = tuple(output_dim)
        self.sigmoid = sigmoid

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n *dim"]:
        h = z
        for layer in self.hidden:
            h = jax.nn.relu(layer(h))
        x = self.out(h)
        x = jax.nn.sigmoid(x) if self.sigmoid else x
        return x.reshape(z.shape[0], *self.output_dim)


def _layers(widths: Sequence[int], dtype: Dtype | None, rngs: nnx.Rngs) -> list[nnx.Linear]:
    return [nnx.Linear(a, b, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(widths)]
