"""Particles in tiles: some draws for each of some examples.

Particle ``n = (m K + k) B + b`` is the k-th draw from expert m for example b. A tile is a block of
g draws by e examples, so that what belongs to an example (data, mask, experts) is held once for
all of its draws. A list of any particles is a tile of one draw, whose examples may repeat.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.weights import Experts, observed_experts


class Inputs(NamedTuple):
    """What the bound depends on without being differentiated by it.

    Attributes:
      data: pytree of arrays ``[b ...]``, handed to the log-likelihood by rows.
      mask: which modalities of each example are observed.
      noise: standard draws ``[m k b d]``, or the key to draw them from, particle by particle.
      factors: rescale factor of each modality.
      beta: weight of log p(z) - log q_mix(z|X).
      state: whatever else the log-likelihood needs (random keys, constants of the networks).
      key: randomness of the backward pass, where it draws particles.
    """

    data: PyTree
    mask: Bool[Array, "m b"]
    noise: Float[Array, "m k b d"] | PRNGKeyArray
    factors: Float[Array, " j"]
    beta: Float[Array, ""]
    state: Any = None
    key: PRNGKeyArray | None = None


class Examples(NamedTuple):
    """What belongs to the examples of a tile.

    Attributes:
      rows: pytree of their data, ``[e ...]``.
      mask: which modalities of each are observed.
      experts: their posteriors ``[m e d]``, standard ones where missing.
    """

    rows: PyTree
    mask: Bool[Array, "m e"]
    experts: Experts


class Draws(NamedTuple):
    """What belongs to the particles of a tile.

    Attributes:
      source: the expert m that the particle is drawn from.
      noise: its standard draw.
    """

    source: Int[Array, "g e"]
    noise: Float[Array, "g e d"]

    def own(self, num_experts: int) -> Bool[Array, "m g e"]:
        """True where m is the expert that the particle is drawn from."""
        return self.source[None] == jnp.arange(num_experts)[:, None, None]


def examples_at(experts: Experts, inputs: Inputs, index: Int[Array, " e"] | None) -> Examples:
    """What belongs to the examples of these numbers, or to all of them in order."""
    experts = observed_experts(experts, inputs.mask)
    if index is None:
        return Examples(inputs.data, inputs.mask, experts)
    return Examples(
        jax.tree.map(lambda a: a[index], inputs.data),
        inputs.mask[:, index],
        jax.tree.map(lambda a: a[:, index], experts),
    )


def draws_at(
    family: Family,
    inputs: Inputs,
    dim: int,
    dtype: Any,
    index: Int[Array, "g e"],
    K: int,
    shards: Shards = ALONE,
) -> Draws:
    """What belongs to the particles of these numbers, with the same draws on any mesh."""
    num_examples = inputs.mask.shape[1]
    source = index // (K * num_examples)
    if jnp.issubdtype(inputs.noise.dtype, jax.dtypes.prng_key):
        number = shards.particle_numbers(index, K, num_examples)
        return Draws(source, standard_draws(family, inputs.noise, number, dim, dtype))
    return Draws(source, inputs.noise.reshape(-1, dim)[index])


def draw(experts: Experts, draws: Draws) -> Float[Array, "g e d"]:
    """``z = loc_m + scale_m noise`` of the particles, m being the expert of each."""
    loc, scale = (a[draws.source, jnp.arange(a.shape[1])[None]] for a in experts)
    return loc + scale * draws.noise


def standard_draws(
    family: Family, key: PRNGKeyArray, index: Int[Array, "g e"], dim: int, dtype: Any
) -> Float[Array, "g e d"]:
    """The standard draw of ``fold_in(key, n)`` for every number n: the same in any tile."""
    return jax.vmap(jax.vmap(lambda n: family.standard(jax.random.fold_in(key, n), (dim,), dtype)))(
        index
    )
