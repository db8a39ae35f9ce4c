"""A bound whose derivative is that of a chosen estimator, for ``jax.grad`` to find."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from mmvae_jax.maths.backward import Backward, coefficients
from mmvae_jax.maths.bounds import Bound
from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.estimators import Estimator
from mmvae_jax.maths.particles import Draws, Examples, Inputs, draw, draws_at, examples_at
from mmvae_jax.maths.tiles import over_tiles
from mmvae_jax.maths.weights import (
    Experts,
    LogWeights,
    expert_log_probs,
    log_weights,
    mask_of_mixture,
    own_responsibility,
)


class Objective(NamedTuple):
    """What is bounded and how it is differentiated; static.

    Attributes:
      log_likelihood: ``(theta, state, rows, z [g e d]) -> log p(x_j|z) [j g e]``, where ``rows``
        are the data ``[e ...]``; its value where x_j is missing does not count.
      log_prior: ``(theta, z [g e d]) -> log p(z) [g e]``.
      family: of the experts.
      bound: how log w is reduced.
      estimator: how it is differentiated with respect to the experts.
      num_particles: K, on a mesh those of each device.
      backward: which particles the derivative is computed from, resolved.
      shards: what mesh the examples and particles are spread over.
    """

    log_likelihood: Callable[[PyTree, PyTree, PyTree, Array], Array]
    log_prior: Callable[[PyTree, Array], Array]
    family: Family
    bound: Bound
    estimator: Estimator
    num_particles: int
    backward: Backward = Backward("dense")
    shards: Shards = ALONE


class Report(NamedTuple):
    """What there is to tell about a bound; no gradient flows through it.

    Attributes:
      log_w: log weights of all particles.
      log_likelihood: log p(x_j|z), not rescaled, zero where x_j is missing; this and the next two
        are means over the K particles of expert m.
      log_prior: log p(z).
      log_posterior: log q_mix(z|X).
      backward_share: share of the K particles that the derivative is computed from.
      dropped_mass: weight of the others.
      mass: weight of all K: 1, or the expert's share where all particles are one group.
    """

    log_w: Float[Array, "m k b"]
    log_likelihood: Float[Array, "j m b"]
    log_prior: Float[Array, "m b"]
    log_posterior: Float[Array, "m b"]
    backward_share: Float[Array, "m b"]
    dropped_mass: Float[Array, "m b"]
    mass: Float[Array, "m b"]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def bound(
    objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs
) -> tuple[Float[Array, " b"], Report]:
    """The bound of each example, with the estimator's gradient for theta and the experts.

    An example with nothing observed has bound 0 and no gradient. No gradient flows into the inputs.
    On a mesh the gradient is that of the device's own particles alone, and the sum
    over the devices is the whole.

    Args:
      objective: the model's densities, the bound and the estimator.
      theta: parameters of decoders and prior.
      experts: posterior parameters ``[m b d]``.
      inputs: data, mask, noise and what weighs the densities.

    Returns:
      The bound ``[b]``, and a ``Report``.
    """
    return _bound_forward(objective, theta, experts, inputs)[0]


def _bound_forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    if objective.backward.kind == "dense":
        log_w, means, linear = _whole(objective, theta, experts, inputs)
    else:
        (log_w, means), linear = _in_tiles(objective, theta, experts, inputs), None
    shards, joint = objective.shards, objective.bound.joint
    log_w, means = shards.all_particles(log_w), shards.mean_over_particles(means)
    w = objective.bound.normalise(log_w, inputs.mask)
    numbers = shards.example_numbers(w.shape[2])
    chosen = coefficients(objective.backward, w, inputs.key, numbers, joint=joint)
    is_chosen = ((chosen > 0) | (linear is not None)) & inputs.mask[:, None]
    dropped = jnp.where(is_chosen, 0, w).sum(1)
    share = is_chosen.mean(1, dtype=w.dtype)
    report = Report(log_w, means[0], means[1], means[2], share, dropped, w.sum(1))
    value = objective.bound.value(log_w, inputs.mask)
    w, chosen = shards.own_particles(w), shards.own_particles(chosen)
    if objective.backward.kind == "sparse":
        w = chosen  # the same where it counts; one array of all particles less
    return (value, report), (linear, w, chosen, theta, experts, inputs)


def _bound_backward(objective: Objective, residuals, cotangents):
    linear, w, chosen, theta, experts, inputs = residuals
    cotangent, _ = cotangents
    scale = objective.bound.share(inputs.mask).astype(w.dtype) * cotangent[None]
    if linear is not None:
        flat = (-1, w.shape[2])
        weighted = (scale[:, None] * chosen).reshape(flat)
        _, pull = jax.vjp(lambda experts: examples_at(experts, inputs, None).experts, experts)
        w = w.reshape(flat)
        d_theta, d_experts = _gradient(objective, linear, inputs.beta, w, weighted)
        return d_theta, *pull(d_experts), None
    return *_gradient_of_chosen(objective, theta, experts, inputs, w, chosen, scale), None


bound.defvjp(_bound_forward, _bound_backward)


class _Linear(NamedTuple):
    """The log weights of a tile, linearised along their three paths.

    Attributes:
      examples: of the tile.
      draws: of the tile.
      z: its particles.
      pull_log_w: cotangent of log w to those of theta, of the densities of the experts, and of z.
      pull_z: cotangent of z to that of the experts.
    """

    examples: Examples
    draws: Draws
    z: Float[Array, "g e d"]
    pull_log_w: Callable
    pull_z: Callable


def _linearise(
    objective: Objective, theta: PyTree, inputs: Inputs, examples: Examples, draws: Draws
) -> tuple[LogWeights, _Linear]:
    def log_w(theta, experts, z):
        at = examples._replace(experts=experts)
        terms = _log_weights(objective, theta, inputs, at, draws, z)
        return terms.log_w, terms

    z, pull_z = jax.vjp(lambda experts: draw(experts, draws), examples.experts)
    _, pull_log_w, terms = jax.vjp(log_w, theta, examples.experts, z, has_aux=True)
    return terms, _Linear(examples, draws, z, pull_log_w, pull_z)


def _gradient(
    objective: Objective,
    linear: _Linear,
    beta: Float[ArrayLike, ""],
    w: Float[Array, "g e"],
    weighted: Float[Array, "g e"],
) -> tuple[PyTree, Experts]:
    """Gradient of theta and the tile's experts, for weights w and coefficients ``weighted``."""
    d_theta, d_direct, d_z = linear.pull_log_w(weighted)
    (d_drawn,) = linear.pull_z(_estimated_z_path(objective, linear, beta, d_z, w, weighted))
    return d_theta, jax.tree.map(jnp.add, d_direct, d_drawn)


def _estimated_z_path(
    objective: Objective,
    linear: _Linear,
    beta: Float[ArrayLike, ""],
    d_z: Float[Array, "g e d"],
    w: Float[Array, "g e"],
    weighted: Float[Array, "g e"],
) -> Float[Array, "g e d"]:
    """The estimator's cotangent of z, from the reparameterised one."""
    estimator = objective.estimator
    if not estimator.uses_responsibility:
        return estimator.z_factor(w, jnp.ones_like(w), beta)[..., None] * d_z
    experts = jax.tree.map(lambda a: a[:, None], linear.examples.experts)
    own = linear.draws.own(len(linear.examples.mask))
    mask = _mixture(linear.examples, own)
    responsibility = partial(own_responsibility, objective.family, experts, mask, own)
    r, pull_r = jax.vjp(responsibility, linear.z)
    (d_r,) = pull_r(beta * weighted)
    return estimator.z_factor(w, r, beta)[..., None] * d_z - d_r


def _log_weights(
    objective: Objective,
    theta: PyTree,
    inputs: Inputs,
    examples: Examples,
    draws: Draws,
    z: Float[Array, "g e d"],
) -> LogWeights:
    """Log weights ``[g e]`` of a tile; the experts enter through their densities only."""
    own = draws.own(len(examples.mask))
    differentiated = objective.estimator.direct(own)[..., None]
    densities = jax.tree.map(
        lambda a: jnp.where(differentiated, a[:, None], jax.lax.stop_gradient(a)[:, None]),
        examples.experts,
    )
    log_likelihood = objective.log_likelihood(theta, inputs.state, examples.rows, z)
    return log_weights(
        jnp.where(examples.mask[:, None], log_likelihood, 0),
        objective.log_prior(theta, z),
        expert_log_probs(objective.family, densities, z),
        _mixture(examples, own),
        inputs.factors,
        inputs.beta,
    )


def _mixture(examples: Examples, own: Bool[Array, "m g e"]) -> Bool[Array, "m g e"]:
    return jnp.broadcast_to(mask_of_mixture(examples.mask)[:, None], own.shape)


def _whole(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    """Log weights of all particles ``[m k b]``, the means of their terms, and their derivative."""
    num_experts, num_examples = inputs.mask.shape
    num_draws = num_experts * objective.num_particles
    every = jnp.arange(num_draws * num_examples).reshape(num_draws, num_examples)
    draws = _draws(objective, experts, inputs, every)
    examples = examples_at(experts, inputs, None)
    (log_w, *terms), linear = _linearise(objective, theta, inputs, examples, draws)
    by_expert = (num_experts, objective.num_particles, num_examples)
    means = (term.reshape(*term.shape[:-2], *by_expert).mean(-2) for term in terms)
    return log_w.reshape(by_expert), tuple(means), linear


def _in_tiles(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    """Log weights of all particles ``[m k b]`` and the means of their terms, tile by tile."""
    num_experts, num_examples = inputs.mask.shape
    by_expert = (num_experts, objective.num_particles, num_examples)

    def of_examples(index):
        examples = examples_at(experts, inputs, index)

        def step(means, rows):
            particles = rows.number[:, None] * num_examples + index[None]
            draws = _draws(objective, experts, inputs, particles)
            z = draw(examples.experts, draws)
            log_w, *terms = _log_weights(objective, theta, inputs, examples, draws, z)
            own = draws.own(num_experts)
            share = (own & rows.counts[None, :, None]) / objective.num_particles
            parts = (jnp.einsum("...ge,mge->...me", term, share) for term in terms)
            return tuple(map(jnp.add, means, parts)), log_w

        of_expert = jnp.zeros((num_experts, len(index)), experts.loc.dtype)
        of_both = jnp.zeros((len(inputs.factors), *of_expert.shape), of_expert.dtype)
        return (of_both, of_expert, of_expert), step

    num_draws = num_experts * objective.num_particles
    means, log_w = over_tiles(of_examples, num_draws, num_examples, objective.backward.tile_size)
    return log_w.reshape(by_expert), means


def _draws(objective: Objective, experts: Experts, inputs: Inputs, index) -> Draws:
    dim, dtype = experts.loc.shape[-1], experts.loc.dtype
    K, shards = objective.num_particles, objective.shards
    return draws_at(objective.family, inputs, dim, dtype, index, K, shards)


def _gradient_of_chosen(
    objective: Objective,
    theta: PyTree,
    experts: Experts,
    inputs: Inputs,
    w: Float[Array, "m k b"],
    chosen: Float[Array, "m k b"],
    scale: Float[Array, "m b"],
) -> tuple[PyTree, Experts]:
    """Sum of the chosen particles' gradients; the device decides how many tiles that takes."""
    num_examples = w.shape[2]
    size = min(objective.backward.tile_size, w.size)
    w, chosen = w.reshape(-1), chosen.reshape(-1)
    rank = jnp.cumsum(chosen > 0)  # the n-th chosen particle is the first of rank n

    def add(carry):
        done, total = carry
        place = done + jnp.arange(size)
        index = jnp.minimum(jnp.searchsorted(rank, place, side="right"), w.size - 1)
        example = index % num_examples

        def at_example(experts):
            examples = examples_at(experts, inputs, example)
            return examples.experts, examples

        _, pull, examples = jax.vjp(at_example, experts, has_aux=True)
        draws = _draws(objective, experts, inputs, index[None])
        weighted = scale[draws.source, example[None]] * chosen[index][None]
        weighted = jnp.where(place[None] < rank[-1], weighted, 0)
        _, linear = _linearise(objective, theta, inputs, examples, draws)
        d_theta, d_experts = _gradient(objective, linear, inputs.beta, w[index][None], weighted)
        gradient = (d_theta, *pull(d_experts))
        return done + size, jax.tree.map(jnp.add, total, gradient)

    zero = jax.tree.map(jnp.zeros_like, (theta, experts))
    _, total = jax.lax.while_loop(lambda carry: carry[0] < rank[-1], add, (0, zero))
    return total
