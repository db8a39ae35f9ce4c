"""The default networks: multi-layer perceptrons on flattened inputs, as in MultiVae."""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype
from jaxtyping import Array, Float

EncoderOutput = tuple[Float[Array, "n d"], Float[Array, "n d"]]


class MLPEncoder(nnx.Module):
    """Flatten, hidden layers with ReLU, and one linear head each for loc and log_var.

    Args:
      input_dim: shape of one example.
      latent_dim: size d of the latent.
      hidden: widths of the hidden layers.
      dtype: type to compute in; by default that of the input and parameters.
      rngs: source of the initial parameters.
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
    """Hidden layers with ReLU and a linear layer of the output's shape.

    Args:
      latent_dim: size d of the latent.
      output_dim: shape of one example.
      hidden: widths of the hidden layers.
      sigmoid: squash the output into (0, 1), for intensities under a normal or Laplace
        likelihood; leave it off for logits and for unbounded data.
      dtype: type to compute in; by default that of z and the parameters.
      rngs: source of the initial parameters.
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
