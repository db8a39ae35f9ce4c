"""A pass over tiles that hold whole groups of particles, and so know their weights.

A group is normalised by itself: the particles of an expert, or all of an example for a joint bound.
Where most particles of a tile carry weight, it goes backward at once, and its forward pass need
not be repeated.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmvae_jax.maths.problem import Gradient, Problem
from mmvae_jax.maths.tiles import in_parts
from mmvae_jax.maths.weights import Experts, Terms

#: Share of chosen particles from which a tile goes backward at once. That costs the backward pass
#: of all its particles, two passes forward; later, the chosen ones cost three.
DIRECT_SHARE = 0.6
#: Largest group that is taken as one tile, relative to the size of tiles.
MOST_OF_TILE = 2


def groups_fit(problem: Problem) -> bool:
    """Returns True if a tile has room for a whole group of particles, all on this device.

    The particles must be chosen by their own weights (``sparse``): others are few.
    """
    objective = problem.objective
    most = MOST_OF_TILE * objective.backward.tile_size
    is_sparse, is_alone = objective.backward.kind == "sparse", objective.shards.particle is None
    return is_sparse and is_alone and _group(problem)[1] <= most


def in_groups(
    problem: Problem, experts: Experts, gradient: Gradient
) -> tuple[Float[Array, "m k b"], Terms, Bool[Array, "m 1 b"], Gradient]:
    """Passes tiles of whole groups forward, and those backward that keep most of their particles.

    Args:
      problem: objective, parameters and inputs.
      experts: posterior parameters ``[m b d]``.
      gradient: gradient to add to.

    Returns:
      Log w of all particles, the means of its terms, True for the groups whose gradient has been
      added, and the gradient.
    """
    objective, inputs = problem.objective, problem.inputs
    drawn, share = inputs.drawn(), problem.weight_of_groups()
    (num_sources, num_examples), K = drawn.shape, objective.num_particles
    num_joint, group_size = _group(problem)
    columns, counts = in_parts(num_examples, max(1, objective.backward.tile_size // group_size))
    rows, shape = jnp.arange(num_sources).reshape(-1, num_joint), (num_joint, K, columns.shape[1])

    def of_tile(gradient: Gradient, tile: tuple[Int[Array, " s"], Int[Array, " e"], Array]):
        source, index, counted = tile
        draws = (source[:, None] * K + jnp.arange(K)[None]).ravel()
        particles = draws[:, None] * num_examples + index[None]
        log_w, terms, linear = problem.linearise(experts, index, particles)
        is_drawn = drawn[source][:, index]
        w, chosen = problem.weigh(log_w.reshape(shape), is_drawn, index)
        weighted = share[source][:, None, index] * jnp.where(counted[None, None], chosen, 0)
        num_chosen, num = (weighted > 0).sum(), K * (is_drawn & counted[None]).sum()
        is_direct = (num_chosen >= DIRECT_SHARE * num) & (num > 0)

        def add(carry: tuple[Bool[Array, ""], Gradient]) -> tuple[Bool[Array, ""], Gradient]:
            flat = (a.reshape(log_w.shape) for a in (w, weighted))
            part = problem.gradient(linear, *flat)
            return jnp.zeros_like(is_direct), jax.tree.map(jnp.add, carry[1], part)

        # A loop of at most one round: XLA updates the carry of a loop in place, whereas the
        # branches of a conditional would copy the gradient of all parameters.
        _, gradient = jax.lax.while_loop(lambda carry: carry[0], add, (is_direct, gradient))
        means = tuple(term.reshape(*term.shape[:-2], *shape).mean(-2) for term in terms)
        is_done = jnp.broadcast_to(is_direct, is_drawn.shape)
        return gradient, (jnp.swapaxes(log_w.reshape(shape), 0, 1), means, is_done)

    def joined(a: Shaped[Array, "t *n s e"]) -> Shaped[Array, "*n m b"]:
        a = jnp.moveaxis(a.reshape(len(rows), len(columns), *a.shape[1:]), (0, 1), (-4, -2))
        return a.reshape(*a.shape[:-4], num_sources, -1)[..., :num_examples]

    repeats = (len(rows), 1)
    sources = jnp.repeat(rows, len(columns), axis=0)
    tiles = (sources, jnp.tile(columns, repeats), jnp.tile(counts, repeats))
    gradient, emitted = jax.lax.scan(of_tile, gradient, tiles)
    log_w, means, is_done = jax.tree.map(joined, emitted)
    means = Terms(*map(inputs.by_expert, means))
    return jnp.swapaxes(log_w, 0, 1), means, is_done[:, None], gradient


def _group(problem: Problem) -> tuple[int, int]:
    """Returns the numbers of experts and of particles in a group."""
    num_sources = len(problem.inputs.drawn()) if problem.objective.bound.joint else 1
    return num_sources, num_sources * problem.objective.num_particles
