"""A bound on log p(X) with a custom derivative: that of the chosen gradient estimator.

The forward pass computes log w of all particles, either keeping its linearisation (dense) or tile
by tile without storing activations. The backward pass uses the linearisation, or recomputes the
particles that carry weight (``mmvae_jax.maths.backward``) and differentiates only those.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmvae_jax.maths.backward import coefficients
from mmvae_jax.maths.control_variate import coefficients_from_others
from mmvae_jax.maths.particles import Inputs, draw, examples_at
from mmvae_jax.maths.problem import Linear, Objective, Problem
from mmvae_jax.maths.tiles import over_tiles
from mmvae_jax.maths.weights import Experts, Terms


class Report(NamedTuple):
    """Diagnostics of a bound (no gradient flows through them).

    Attributes:
      drawn: True for the experts that particles were drawn from; other entries are 0 throughout.
      log_w: log weights of all particles.
      means: means of their terms over the K particles of each expert: ``[j m b]``, ``[m b]``.
      backward_share: share of the K particles that the gradient is computed from.
      dropped_mass: total weight of the other particles.
      mass: total weight of all K: 1, or the expert's share where all particles are one group.
      min_scale: smallest scale of the posterior over the latent axes.
    """

    drawn: Bool[Array, "m b"]
    log_w: Float[Array, "m k b"]
    means: Terms
    backward_share: Float[Array, "m b"]
    dropped_mass: Float[Array, "m b"]
    mass: Float[Array, "m b"]
    min_scale: Float[Array, "m b"]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def bound(
    objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs
) -> tuple[Float[Array, " b"], Report]:
    """Returns the bound of each example, with the estimator's gradient for theta and the experts.

    An example with nothing observed has bound 0 and no gradient. No gradient flows into the inputs.
    On a mesh the gradient is that of the device's own particles; the sum over the devices is the
    whole.

    Args:
      objective: densities of the model, the bound and the estimator.
      theta: parameters of decoders, prior and likelihoods.
      experts: posterior parameters ``[m b d]``.
      inputs: data, mask, noise and the factors of the densities.

    Returns:
      The bound ``[b]``, and its ``Report``.
    """
    return _bound_forward(objective, theta, experts, inputs)[0]


def _bound_forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    problem = Problem(objective, theta, inputs)
    if objective.backward.kind == "dense":
        log_w, means, linear = _whole(problem, experts)
    else:
        (log_w, means), linear = _in_tiles(problem, experts), None
    # Weights are normalised over the particles of all devices that share the examples.
    shards, joint, drawn = objective.shards, objective.bound.joint, inputs.drawn()
    log_w, means = shards.all_particles(log_w), shards.mean_over_particles(means)
    w = objective.bound.normalise(log_w, drawn)
    numbers = shards.example_numbers(w.shape[2])
    chosen = coefficients(objective.backward, w, inputs.key, numbers, joint=joint)
    is_chosen = ((chosen > 0) | (linear is not None)) & drawn[:, None]
    dropped = jnp.where(is_chosen, 0, w).sum(1)
    share = is_chosen.mean(1, dtype=w.dtype)
    report = Report(
        drawn=inputs.by_expert(drawn.astype(w.dtype)) > 0,
        log_w=jnp.swapaxes(inputs.by_expert(jnp.swapaxes(log_w, 0, 1)), 0, 1),
        means=means,
        backward_share=inputs.by_expert(share),
        dropped_mass=inputs.by_expert(dropped),
        mass=inputs.by_expert(w.sum(1)),
        min_scale=experts.scale.min(-1),
    )
    value = objective.bound.value(log_w, drawn)
    w, chosen = shards.own_particles(w), shards.own_particles(chosen)
    if objective.backward.kind == "sparse":
        w = chosen  # equal where a particle is chosen; one array of all particles less to keep
    return (value, report), (linear, w, chosen, theta, experts, inputs)


def _bound_backward(objective: Objective, residuals, cotangents):
    """Multiplies the cotangent of each example's bound into the estimator's gradient.

    Every bound is a mean over groups of particles, so that
    ``d(bound)/d(log w) = share[m, b] w~[m, k, b]``. Estimators need w~ apart from that product.
    """
    linear, w, chosen, theta, experts, inputs = residuals
    problem = Problem(objective, theta, inputs)
    cotangent, _ = cotangents  # the report has no gradient
    scale = objective.bound.share(inputs.drawn()).astype(w.dtype) * cotangent[None]
    if linear is None:
        d_theta, of_experts = _gradient_of_chosen(problem, experts, w, chosen, scale)
    else:
        d_theta, of_experts = _gradient_of_all(problem, linear, experts, w, chosen, scale)
    return d_theta, _with_variate(problem, experts, scale, *of_experts), None


bound.defvjp(_bound_forward, _bound_backward)


def _with_variate(
    problem: Problem,
    experts: Experts,
    scale: Float[Array, "m b"],
    gradient: Experts,
    variate: Experts | None = None,
) -> Experts:
    """Returns the gradient of the experts, plus c times its control variate if it has one."""
    if variate is None:
        return gradient
    shards, inputs = problem.objective.shards, problem.inputs
    scale = inputs.by_expert(scale)
    counts = inputs.mask & (scale != 0)
    # c is that of all of an example's particles, and of examples that all count alike.
    unit = jnp.where(counts, 1 / jnp.where(counts, scale, 1), 0)[..., None]
    whole, whole_variate = shards.sum_over_particles((gradient, variate))

    def combined(own, own_variate, g, delta):
        c = coefficients_from_others(unit * g, unit * delta, experts.scale, counts, shards)
        return own + c * own_variate

    return jax.tree.map(combined, gradient, variate, whole, whole_variate)


def _whole(problem: Problem, experts: Experts) -> tuple[Float[Array, "m k b"], Terms, Linear]:
    """Returns log w of all particles, the means of its terms, and its linearisation."""
    inputs, num_particles = problem.inputs, problem.objective.num_particles
    num_sources, num_examples = inputs.drawn().shape
    num_draws = num_sources * num_particles
    every = jnp.arange(num_draws * num_examples).reshape(num_draws, num_examples)
    draws = problem.draws(experts, every)
    examples = examples_at(experts, inputs, None)
    log_w, terms, linear = problem.linearise(examples, draws)
    shape = (num_sources, num_particles, num_examples)
    means = (term.reshape(*term.shape[:-2], *shape).mean(-2) for term in terms)
    return log_w.reshape(shape), Terms(*map(inputs.by_expert, means)), linear


def _in_tiles(problem: Problem, experts: Experts) -> tuple[Float[Array, "m k b"], Terms]:
    """Returns log w of all particles and the means of its terms, computed tile by tile."""
    objective, inputs = problem.objective, problem.inputs
    num_experts, num_examples = inputs.mask.shape
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
            parts = (jnp.einsum("...ge,mge->...me", term, share) for term in terms)
            return Terms(*map(jnp.add, means, parts)), log_w

        of_expert = jnp.zeros((num_experts, len(index)), experts.loc.dtype)
        of_both = jnp.zeros((len(inputs.factors), *of_expert.shape), of_expert.dtype)
        return Terms(of_both, of_expert, of_expert), step

    num_draws = shape[0] * shape[1]
    means, log_w = over_tiles(of_examples, num_draws, num_examples, objective.backward.tile_size)
    return log_w.reshape(shape), means


def _gradient_of_all(
    problem: Problem,
    linear: Linear,
    experts: Experts,
    w: Float[Array, "m k b"],
    chosen: Float[Array, "m k b"],
    scale: Float[Array, "m b"],
) -> tuple[PyTree, tuple[Experts, ...]]:
    """Returns the sum of all particles' gradients, by the linearisation of the forward pass."""
    flat = (-1, w.shape[2])
    weighted = (scale[:, None] * chosen).reshape(flat)
    d_theta, of_experts = problem.gradient(linear, w.reshape(flat), weighted)
    # Missing experts were replaced by standard ones before the linearisation: no gradient there.
    _, pull = jax.vjp(lambda experts: examples_at(experts, problem.inputs, None).experts, experts)
    return d_theta, tuple(pull(of_parameters)[0] for of_parameters in of_experts)


def _gradient_of_chosen(
    problem: Problem,
    experts: Experts,
    w: Float[Array, "m k b"],
    chosen: Float[Array, "m k b"],
    scale: Float[Array, "m b"],
) -> tuple[PyTree, tuple[Experts, ...]]:
    """Returns the sum of the chosen particles' gradients.

    The chosen particles are listed in the order of their numbers and taken a tile at a time. The
    number of tiles is known on the device only, hence the while loop.

    Args:
      problem: objective, parameters and inputs.
      experts: posterior parameters ``[m b d]``.
      w: normalised weights, by the experts that are drawn from.
      chosen: coefficients in place of the weights, 0 for particles that are left out.
      scale: factor of all particles of an expert and example in ``d(bound)/d(log w)``.
    """
    _, num_particles, num_examples = w.shape
    size = min(problem.objective.backward.tile_size, w.size)
    w, chosen = w.reshape(-1), chosen.reshape(-1)
    rank = jnp.cumsum(chosen > 0)  # the n-th chosen particle is the first one of rank n

    def add(carry):
        done, total = carry
        place = done + jnp.arange(size)
        # Places past the last chosen particle repeat some particle, with weight 0.
        index = jnp.minimum(jnp.searchsorted(rank, place, side="right"), w.size - 1)
        example = index % num_examples

        # A tile of one draw, whose examples may repeat: the gather below is differentiated, so
        # that its transpose adds up the gradients of the particles of one example.
        def at_example(experts):
            examples = examples_at(experts, problem.inputs, example)
            return examples.experts, examples

        _, pull, examples = jax.vjp(at_example, experts, has_aux=True)
        draws = problem.draws(experts, index[None])
        weighted = (scale[index // (num_particles * num_examples), example] * chosen[index])[None]
        weighted = jnp.where(place[None] < rank[-1], weighted, 0)
        *_, linear = problem.linearise(examples, draws)
        d_theta, of_experts = problem.gradient(linear, w[index][None], weighted)
        gradient = (d_theta, tuple(pull(of_parameters)[0] for of_parameters in of_experts))
        return done + size, jax.tree.map(jnp.add, total, gradient)

    num_gradients = 2 if problem.objective.estimator.is_adaptive else 1
    zero = jax.tree.map(jnp.zeros_like, (problem.theta, (experts,) * num_gradients))
    _, total = jax.lax.while_loop(lambda carry: carry[0] < rank[-1], add, (0, zero))
    return total
