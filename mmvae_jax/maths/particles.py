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
    """The constants of a bound: everything that it is not differentiated by.

    Attributes:
      data: pytree of arrays ``[b ...]``, whose rows the log-likelihood receives.
      mask: True for observed modalities.
      noise: standard draws ``[m k b d]``, or the key to draw them from, particle by particle.
      factors: rescale factor of each modality.
      beta: weight of log p(z) - log q_mix(z|X).
      state: constants of the log-likelihood (random keys, variables of the networks).
      key: randomness of a backward pass that draws particles.
    """

    data: PyTree
    mask: Bool[Array, "m b"]
    noise: Float[Array, "m k b d"] | PRNGKeyArray
    factors: Float[Array, " j"]
    beta: Float[Array, ""]
    state: Any = None
    key: PRNGKeyArray | None = None


class Examples(NamedTuple):
    """Data, mask and posteriors of a tile's examples.

    Attributes:
      rows: data of the examples, a pytree of arrays ``[e ...]``.
      mask: True for observed modalities.
      experts: posteriors of the examples, ``[m e d]``; standard ones where missing.
    """

    rows: PyTree
    mask: Bool[Array, "m e"]
    experts: Experts


class Draws(NamedTuple):
    """Sources and standard draws of a tile's particles.

    Attributes:
      source: number m of the expert that each particle is drawn from.
      noise: standard draw of each particle.
    """

    source: Int[Array, "g e"]
    noise: Float[Array, "g e d"]

    def own(self, num_experts: int) -> Bool[Array, "m g e"]:
        """Returns True for the expert m that each particle is drawn from."""
        return self.source[None] == jnp.arange(num_experts)[:, None, None]


def examples_at(experts: Experts, inputs: Inputs, index: Int[Array, " e"] | None) -> Examples:
    """Returns the examples with these numbers, or all of them in order."""
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
    """Returns the draws of the particles with these numbers: the same ones on any mesh."""
    num_examples = inputs.mask.shape[1]
    source = index // (K * num_examples)
    if jnp.issubdtype(inputs.noise.dtype, jax.dtypes.prng_key):
        number = shards.particle_numbers(index, K, num_examples)
        return Draws(source, standard_draws(family, inputs.noise, number, dim, dtype))
    return Draws(source, inputs.noise.reshape(-1, dim)[index])


def draw(experts: Experts, draws: Draws) -> Float[Array, "g e d"]:
    """Returns ``z = loc_m + scale_m noise`` of the particles, with the expert m of each."""
    loc, scale = own_expert(experts, draws)
    return loc + scale * draws.noise


def own_expert(experts: Experts, draws: Draws) -> Experts:
    """Returns location and scale ``[g e d]`` of the expert that each particle is drawn from."""
    return Experts(*(a[draws.source, jnp.arange(a.shape[1])[None]] for a in experts))


def standard_draws(
    family: Family, key: PRNGKeyArray, index: Int[Array, "g e"], dim: int, dtype: Any
) -> Float[Array, "g e d"]:
    """Returns the standard draw of ``fold_in(key, n)`` for every number n: the same in any tile."""
    return jax.vmap(jax.vmap(lambda n: family.standard(jax.random.fold_in(key, n), (dim,), dtype)))(
        index
    )
