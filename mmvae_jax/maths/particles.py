"""Particles in tiles: some draws for each of some examples.

Particle ``n = (s K + k) B + b`` is the k-th draw from the s-th expert that is drawn from for
example b: expert s itself, or one of a random choice of experts. A tile is a block of
g draws by e examples, so that what belongs to an example (data, mask, experts) is held once for
all of its draws. A list of any particles is a tile of one draw, whose examples may repeat.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped

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
      weight: weight of each example's bound in the total.
      state: constants of the log-likelihood (random keys, variables of the networks).
      key: randomness of a backward pass that draws particles.
      sources: numbers of the experts that are drawn from, for every example; None for all.
      components: True for the components of the posterior that an example has; None where these
        are the experts of the observed modalities.
    """

    data: PyTree
    mask: Bool[Array, "j b"]
    noise: Float[Array, "m k b d"] | PRNGKeyArray
    factors: Float[Array, " j"]
    beta: Float[Array, ""]
    weight: Float[Array, " b"]
    state: Any = None
    key: PRNGKeyArray | None = None
    sources: Int[Array, "s b"] | None = None
    components: Bool[Array, "m b"] | None = None

    def available(self) -> Bool[Array, "m b"]:
        """Returns True for the components that an example has."""
        return self.mask if self.components is None else self.components

    def drawn(self) -> Bool[Array, "s b"]:
        """Returns True for the experts among ``sources`` that are observed."""
        if self.sources is None:
            return self.available()
        return jnp.take_along_axis(self.available(), self.sources, axis=0)

    def by_expert(self, x: Shaped[Array, "*n s b"]) -> Shaped[Array, "*n m b"]:
        """Returns values of ``sources`` as values of all experts, 0 for those not drawn from."""
        if self.sources is None:
            return x
        is_own = self.sources[None] == jnp.arange(len(self.available())).reshape(-1, 1, 1)
        return jnp.einsum("...sb,msb->...mb", x, is_own.astype(x.dtype), precision="highest")


class Examples(NamedTuple):
    """Data, mask and posteriors of a tile's examples.

    Attributes:
      rows: data of the examples, a pytree of arrays ``[e ...]``.
      mask: True for observed modalities.
      available: True for the components that an example has.
      experts: posteriors of the examples, ``[m e d]``; standard ones where missing.
    """

    rows: PyTree
    mask: Bool[Array, "j e"]
    available: Bool[Array, "m e"]
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
    available = inputs.available()
    experts = observed_experts(experts, available)
    if index is None:
        return Examples(inputs.data, inputs.mask, available, experts)
    return Examples(
        jax.tree.map(lambda a: a[index], inputs.data),
        inputs.mask[:, index],
        available[:, index],
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
    if inputs.sources is not None:
        # A particle's noise depends on its expert, not on the place of the expert in the choice.
        source, place = inputs.sources[source, index % num_examples], source
        index = index + (source - place) * (K * num_examples)
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

    # A choice for each expert: the transpose of a gather is a scatter, whose order varies on a GPU.
    def own(a: Float[Array, "m e d"]) -> Float[Array, "g e d"]:
        chosen = jnp.broadcast_to(a[0], (*draws.source.shape, a.shape[-1]))
        for m in range(1, len(a)):
            chosen = jnp.where((draws.source == m)[..., None], a[m], chosen)
        return chosen

    return Experts(*map(own, experts))


def draw_experts(
    key: PRNGKeyArray, mask: Bool[Array, "m b"], num: int, numbers: Int[Array, " b"]
) -> Int[Array, "s b"]:
    """Draws ``num`` experts of each example without replacement, observed ones first.

    Args:
      key: randomness.
      mask: True for observed experts.
      num: number of experts.
      numbers: numbers of the examples; a draw depends on key and number only.
    """

    def of_example(number: Int[Array, ""], mask: Bool[Array, " m"]) -> Int[Array, " s"]:
        order = jax.random.uniform(jax.random.fold_in(key, number), mask.shape)
        return jnp.argsort(jnp.where(mask, order, 2))[:num]

    return jax.vmap(of_example, in_axes=(0, 1), out_axes=1)(numbers, mask)


def standard_draws(
    family: Family, key: PRNGKeyArray, index: Int[Array, "g e"], dim: int, dtype: Any
) -> Float[Array, "g e d"]:
    """Returns the standard draw of ``fold_in(key, n)`` for every number n: the same in any tile."""
    return jax.vmap(jax.vmap(lambda n: family.standard(jax.random.fold_in(key, n), (dim,), dtype)))(
        index
    )
