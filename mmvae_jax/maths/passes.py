"""Passes over all particles of a bound, forward and backward.

The dense pass linearises all particles at once. The others go forward in tiles that keep nothing,
and then forward and backward over the particles that carry weight (``mmvae_jax.maths.backward``).
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmvae_jax.maths.groups import groups_fit, in_groups
from mmvae_jax.maths.particles import draw, examples_at
from mmvae_jax.maths.problem import Gradient, ParticleWeights, Problem
from mmvae_jax.maths.tiles import over_tiles
from mmvae_jax.maths.weights import Experts, Terms


class Weighed(NamedTuple):
    """The particles of all devices that share the examples, after a pass forward.

    Attributes:
      log_w: log weights.
      means: means of their terms over the K particles of each expert: ``[j m b]``, ``[m b]``.
      weights: normalised weights.
    """

    log_w: Float[Array, "m k b"]
    means: Terms
    weights: ParticleWeights


def forward(problem: Problem, experts: Experts) -> Weighed:
    """Passes all particles forward only."""
    if problem.objective.backward.kind == "dense":
        return dense(problem, experts)[0]
    return _weighed(problem, *_in_tiles(problem, experts))


def dense(problem: Problem, experts: Experts) -> tuple[Weighed, Gradient]:
    """Passes all particles forward and backward at once; the gradient is of the device's own."""
    inputs, num_particles = problem.inputs, problem.objective.num_particles
    num_sources, num_examples = inputs.drawn().shape
    shape = (num_sources, num_particles, num_examples)
    every = jnp.arange(math.prod(shape)).reshape(-1, num_examples)
    log_w, terms, linear = problem.linearise(experts, None, every)
    means = (term.reshape(*term.shape[:-2], *shape).mean(-2) for term in terms)
    means = Terms(*map(inputs.by_expert, means))
    weighed = _weighed(problem, log_w.reshape(shape), means)
    w, chosen = map(problem.objective.shards.own_particles, weighed.weights)
    weighted = problem.weight_of_groups()[:, None] * chosen
    gradient = problem.gradient(linear, w.reshape(every.shape), weighted.reshape(every.shape))
    return weighed, gradient


def of_chosen(problem: Problem, experts: Experts) -> tuple[Weighed, Gradient]:
    """Passes all particles forward in tiles, and the chosen ones backward."""
    objective = problem.objective
    num_gradients = 2 if objective.estimator.is_adaptive else 1
    zero = jax.tree.map(jnp.zeros_like, Gradient(problem.theta, (experts,) * num_gradients))
    if objective.in_groups and groups_fit(problem):
        log_w, means, is_done, gradient = in_groups(problem, experts, zero)
    else:
        (log_w, means), is_done, gradient = _in_tiles(problem, experts), False, zero
    weighed = _weighed(problem, log_w, means)
    w, chosen = map(objective.shards.own_particles, weighed.weights)
    if objective.backward.kind == "sparse":
        w = chosen  # equal where a particle is chosen; one array of all particles less to keep
    left = ParticleWeights(w, jnp.where(is_done, 0, chosen))
    return weighed, _add_chosen(problem, experts, left, gradient)


def _weighed(problem: Problem, log_w: Float[Array, "m k b"], means: Terms) -> Weighed:
    """Returns the particles of all devices, from the device's own log w and means."""
    shards = problem.objective.shards
    log_w, means = shards.all_particles(log_w), shards.mean_over_particles(means)
    numbers = shards.example_numbers(log_w.shape[2])
    return Weighed(log_w, means, problem.weigh(log_w, problem.inputs.drawn(), numbers))


def _in_tiles(problem: Problem, experts: Experts) -> tuple[Float[Array, "m k b"], Terms]:
    """Returns log w of all particles and the means of its terms, computed tile by tile."""
    objective, inputs = problem.objective, problem.inputs
    num_experts, num_examples = inputs.available().shape
    shape = (len(inputs.drawn()), objective.num_particles, num_examples)

    def of_examples(index):
        examples = examples_at(experts, inputs, index)

        def step(means, rows):
            particles = rows.number[:, None] * num_examples + index[None]
            draws = problem.draws(experts, particles)
            z = draw(examples.experts, draws)
            log_w, terms = problem.log_weights(examples, draws, problem.theta, examples.experts, z)
            own = draws.own(num_experts)
            share = (own & rows.counts[None, :, None]) / objective.num_particles
            mean = partial(jnp.einsum, "...ge,mge->...me", precision="highest")
            parts = (mean(term, share) for term in terms)
            return Terms(*map(jnp.add, means, parts)), log_w

        of_expert = jnp.zeros((num_experts, len(index)), experts.loc.dtype)
        of_both = jnp.zeros((len(inputs.factors), *of_expert.shape), of_expert.dtype)
        return Terms(of_both, of_expert, of_expert), step

    num_draws = shape[0] * shape[1]
    means, log_w = over_tiles(of_examples, num_draws, num_examples, objective.backward.tile_size)
    return log_w.reshape(shape), means


def _add_chosen(
    problem: Problem, experts: Experts, weights: ParticleWeights, gradient: Gradient
) -> Gradient:
    """Adds the gradient of the chosen particles.

    They are listed in the order of their numbers and taken a tile at a time. The number of tiles
    is known on the device only, hence the while loop.

    Args:
      problem: objective, parameters and inputs.
      experts: posterior parameters ``[m b d]``.
      weights: weights of the device's particles.
      gradient: gradient to add to.
    """
    _, num_particles, num_examples = weights.w.shape
    w, chosen = (a.reshape(-1) for a in weights)
    size, share = min(problem.objective.backward.tile_size, w.size), problem.weight_of_groups()
    rank = jnp.cumsum(chosen > 0)  # the n-th chosen particle is the first one of rank n

    def add(carry: tuple[Int[Array, ""], Gradient]) -> tuple[Int[Array, ""], Gradient]:
        done, gradient = carry
        place = done + jnp.arange(size)
        # Places past the last chosen particle repeat some particle, with weight 0.
        index = jnp.minimum(jnp.searchsorted(rank, place, side="right"), w.size - 1)
        example = index % num_examples
        weighted = share[index // (num_particles * num_examples), example] * chosen[index]
        weighted = jnp.where(place < rank[-1], weighted, 0)
        # A tile of one draw, whose examples may repeat.
        *_, linear = problem.linearise(experts, example, index[None])
        part = problem.gradient(linear, w[index][None], weighted[None])
        return done + size, jax.tree.map(jnp.add, gradient, part)

    return jax.lax.while_loop(lambda carry: carry[0] < rank[-1], add, (jnp.array(0), gradient))[1]
