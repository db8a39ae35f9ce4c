"""Particles by number: what belongs to each, for all of them or for any list.

Particle ``n = (m K + k) B + b`` is the k-th draw from expert m for example b. Functions here take
a list of numbers, or None for all particles in order, which saves the gathers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

from mmvae_jax.distributions import Family
from mmvae_jax.weights import Experts, observed_experts

Index = Int[Array, " n"] | None


class Inputs(NamedTuple):
    """What the bound depends on without being differentiated by it.

    Attributes:
      data: pytree of arrays ``[b ...]``, handed to the log-likelihood by rows.
      mask: which modalities of each example are observed.
      noise: standard draws ``[m k b d]``, or the key to draw them from, particle by particle.
      state: whatever else the log-likelihood needs (random keys, constants of the networks).
      key: randomness of the backward pass, where it draws particles.
    """

    data: PyTree
    mask: Bool[Array, "m b"]
    noise: Float[Array, "m k b d"] | PRNGKeyArray
    state: Any = None
    key: PRNGKeyArray | None = None


class Particles(NamedTuple):
    """What belongs to the examples of a list of particles.

    Attributes:
      own: True where m is the expert that the particle was drawn from.
      mask: the example's mask.
      rows: the example's data.
    """

    own: Bool[Array, "m n"]
    mask: Bool[Array, "m n"]
    rows: PyTree


def gather(inputs: Inputs, num_particles: int, index: Index) -> Particles:
    """What belongs to the examples of the particles."""
    num_experts, num_examples = inputs.mask.shape
    every = jnp.arange(num_experts * num_particles * num_examples)
    source = (every if index is None else index) // (num_particles * num_examples)
    return Particles(
        own=source[None] == jnp.arange(num_experts)[:, None],
        mask=by_expert(inputs.mask, num_particles, index),
        rows=jax.tree.map(lambda a: _rows(a, num_experts * num_particles, index), inputs.data),
    )


def by_expert(tree: PyTree, num_particles: int, index: Index) -> PyTree:
    """Rows of ``[m b ...]`` arrays, ``[m n ...]``: each expert's value for the example."""

    def rows(a: Shaped[Array, "m b ..."]) -> Shaped[Array, "m n ..."]:
        return jax.vmap(lambda of_expert: _rows(of_expert, len(a) * num_particles, index))(a)

    return jax.tree.map(rows, tree)


def _rows(a: Shaped[Array, "b *dim"], copies: int, index: Index) -> Shaped[Array, "n *dim"]:
    if index is not None:
        return a[index % len(a)]
    repeated = jnp.broadcast_to(a[None], (copies, *a.shape))
    return repeated.reshape(-1, *a.shape[1:])


def draw(
    family: Family, experts: Experts, inputs: Inputs, num_particles: int, index: Index
) -> Float[Array, "n d"]:
    """``z = loc_m + scale_m noise`` of the particles."""
    loc, scale = observed_experts(experts, inputs.mask)
    num_experts, num_examples, dim = loc.shape
    shape = (num_experts, num_particles, num_examples, dim)
    noise = _noise(family, inputs, shape, loc.dtype, index)
    if index is None:
        return (loc[:, None] + scale[:, None] * noise.reshape(shape)).reshape(-1, dim)
    source, example = index // (num_particles * num_examples), index % num_examples
    return loc[source, example] + scale[source, example] * noise


def _noise(
    family: Family, inputs: Inputs, shape: tuple[int, int, int, int], dtype: Any, index: Index
) -> Float[Array, "n d"]:
    """Standard draws: those given, or of ``fold_in(key, n)``, the same in any list."""
    num_experts, num_particles, num_examples, dim = shape
    if not jnp.issubdtype(inputs.noise.dtype, jax.dtypes.prng_key):
        given = inputs.noise.reshape(-1, dim)
        return given if index is None else given[index]
    if index is None:
        index = jnp.arange(num_experts * num_particles * num_examples)
    return jax.vmap(lambda n: family.standard(jax.random.fold_in(inputs.noise, n), (dim,), dtype))(
        index
    )
