"""Multi-layer perceptrons on flattened inputs, the default networks (as in MultiVae)."""

import itertools
import math
from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype, Initializer
from jax.nn.initializers import lecun_normal, variance_scaling, zeros
from jaxtyping import Array, Float, PRNGKeyArray

#: Location and raw scale of a posterior, (loc, log_var).
EncoderOutput = tuple[Float[Array, "n d"], Float[Array, "n d"]]

#: Kernels of networks of data other than images; docs/training.md compares their test bounds.
_KERNEL = variance_scaling(1 / 3, "fan_in", "uniform")
#: A decoder's outputs that begin larger are noise, which the first hundred steps have to remove.
_OUTPUT_KERNEL = variance_scaling(0.01, "fan_in", "uniform")


class MLPEncoder(nnx.Module):
    """Hidden layers with ReLU on the flattened input, and a linear layer each for loc and log_var.

    Kernels begin uniform with a variance of 1/3 over the fan-in, and biases of hidden layers
    uniform up to ``2 / sqrt(fan_in)`` in size. Networks of images (height, width, channels) have
    the initial parameters of Flax.

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
        spread = len(input_dim) != 3
        kernel = _KERNEL if spread else lecun_normal()
        widths = (math.prod(input_dim), *hidden)
        self.hidden = nnx.List(_layers(widths, dtype, rngs, spread=spread))
        self.loc, self.log_var = (
            nnx.Linear(hidden[-1], latent_dim, kernel_init=kernel, dtype=dtype, rngs=rngs)
            for _ in range(2)
        )

    def __call__(self, x: Float[Array, "n *dim"]) -> EncoderOutput:
        h = x.reshape(x.shape[0], -1)
        for layer in self.hidden:
            h = jax.nn.relu(layer(h))
        return self.loc(h), self.log_var(h)


class MLPDecoder(nnx.Module):
    """Hidden layers with ReLU, and a linear layer of the output's shape.

    Unbounded outputs begin near zero: the last kernel is uniform with a variance of 0.01 over the
    fan-in, and hidden layers are those of ``MLPEncoder``. With a sigmoid, all initial parameters
    are those of Flax.

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
        size, kernel = math.prod(output_dim), lecun_normal() if sigmoid else _OUTPUT_KERNEL
        self.hidden = nnx.List(_layers((latent_dim, *hidden), dtype, rngs, spread=not sigmoid))
        self.out = nnx.Linear(hidden[-1], size, kernel_init=kernel, dtype=dtype, rngs=rngs)
        self.output_dim = tuple(output_dim)
        self.sigmoid = sigmoid

    def __call__(self, z: Float[Array, "n d"]) -> Float[Array, "n *dim"]:
        h = z
        for layer in self.hidden:
            h = jax.nn.relu(layer(h))
        x = self.out(h)
        x = jax.nn.sigmoid(x) if self.sigmoid else x
        return x.reshape(z.shape[0], *self.output_dim)


def _layers(
    widths: Sequence[int], dtype: Dtype | None, rngs: nnx.Rngs, *, spread: bool
) -> list[nnx.Linear]:
    """Returns hidden layers with the initialisers of Flax, or with spread kinks."""
    kernel = _KERNEL if spread else lecun_normal()
    return [
        nnx.Linear(
            a,
            b,
            kernel_init=kernel,
            bias_init=_biases(a) if spread else zeros,
            dtype=dtype,
            rngs=rngs,
        )
        for a, b in itertools.pairwise(widths)
    ]


def _biases(fan_in: int) -> Initializer:
    """Returns an initialiser of biases that spread the kinks of ReLUs over the prior.

    With biases of zero, all kinks of a decoder's first layer lie at the origin, the prior's mode.
    """
    limit = 2 / math.sqrt(fan_in)

    def draw(key: PRNGKeyArray, shape: Sequence[int], dtype: Dtype | None = None) -> Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return draw
