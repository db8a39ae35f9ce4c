"""A bound whose derivative is that of a chosen estimator, for `jax.grad` to find."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmvae_jax.backward import Backward, coefficients
from mmvae_jax.bounds import Bound
from mmvae_jax.distributions import Family
from mmvae_jax.estimators import Estimator
from mmvae_jax.particles import Index, Inputs, by_expert, draw, gather
from mmvae_jax.weights import (
    Experts,
    LogWeights,
    expert_log_probs,
    log_weights,
    mask_of_mixture,
    observed_experts,
    own_responsibility,
)


class Objective(NamedTuple):
    """What is bounded and how it is differentiated; static.

    Attributes:
      log_likelihood: ``(theta, state, rows, z [n d]) -> log p(x_j|z) [j n]``, where `rows` are
        the data of the example of each particle; its value where x_j is missing does not count.
      log_prior: ``(theta, z [n d]) -> log p(z) [n]``.
      family: of the experts.
      bound: how log w is reduced.
      estimator: how it is differentiated with respect to the experts.
      factors: rescale factor of each modality.
      beta: weight of log p(z) - log q_mix(z|X).
      num_particles: K.
      backward: which particles the derivative is computed from, resolved.
    """

    log_likelihood: Callable[[PyTree, PyTree, PyTree, Array], Array]
    log_prior: Callable[[PyTree, Array], Array]
    family: Family
    bound: Bound
    estimator: Estimator
    factors: tuple[float, ...]
    beta: float
    num_particles: int
    backward: Backward = Backward("dense")


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def bound(
    objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs
) -> tuple[Float[Array, " b"], LogWeights]:
    """The bound of each example, with the estimator's gradient for theta and the experts.

    An example with nothing observed has bound 0 and no gradient. The log weights that come with
    it are for reporting: no gradient flows through them, nor into the data and the noise.

    Args:
      objective: the model's densities, the bound and the estimator.
      theta: parameters of decoders and prior.
      experts: posterior parameters ``[m b d]``.
      inputs: data, mask and noise.

    Returns:
      The bound ``[b]``, and the log weights and their terms ``[m k b]``, likelihoods
      ``[j m k b]``.
    """
    terms = _forward(objective, theta, experts, inputs)
    return objective.bound.value(terms.log_w, inputs.mask), terms


def _forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs) -> LogWeights:
    """Log weights ``[m k b]`` of all particles, a chunk at a time unless the backward is dense."""

    def flat(index: Index) -> LogWeights:
        z = draw(objective.family, experts, inputs, objective.num_particles, index)
        return _log_weights(objective, theta, experts, z, inputs, index)

    if objective.backward.kind == "dense":
        return _unflatten(objective, flat(None), inputs)
    size, chunk = _size(objective, inputs), _chunk(objective, inputs)
    num_chunks = math.ceil(size / chunk)
    index = jnp.minimum(jnp.arange(num_chunks * chunk), size - 1).reshape(num_chunks, chunk)
    chunks = jax.lax.map(flat, index)  # [c ... n], the last chunk padded
    joined = jax.tree.map(lambda a: jnp.moveaxis(a, 0, -2), chunks)
    joined = jax.tree.map(lambda a: a.reshape(*a.shape[:-2], -1)[..., :size], joined)
    return _unflatten(objective, joined, inputs)


def _bound_forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    if objective.backward.kind != "dense":
        terms = _forward(objective, theta, experts, inputs)
        pullback = None
    else:
        z = draw(objective.family, experts, inputs, objective.num_particles, None)
        pullback, flat = _pullback(objective, theta, experts, z, inputs, None)
        terms = _unflatten(objective, flat, inputs)
    value = objective.bound.value(terms.log_w, inputs.mask)
    return (value, terms), (pullback, terms.log_w, theta, experts, inputs)


def _bound_backward(objective: Objective, residuals, cotangents):
    pullback, log_w, theta, experts, inputs = residuals
    cotangent, _ = cotangents
    w = objective.bound.normalise(log_w, inputs.mask)
    share = objective.bound.share(inputs.mask).astype(w.dtype) * cotangent[None]
    chosen = coefficients(objective.backward, w, inputs.key, joint=objective.bound.joint)
    weighted = (share[:, None] * chosen).reshape(-1)
    w = w.reshape(-1)
    if pullback is not None:
        gradient = _gradient(objective, experts, inputs, None, pullback, w, weighted)
    else:
        is_chosen = chosen.reshape(-1) > 0
        gradient = _gradient_in_chunks(objective, theta, experts, inputs, w, weighted, is_chosen)
    return *gradient, None


bound.defvjp(_bound_forward, _bound_backward)


def _gradient_in_chunks(
    objective: Objective,
    theta: PyTree,
    experts: Experts,
    inputs: Inputs,
    w: Float[Array, " n"],
    weighted: Float[Array, " n"],
    is_chosen: Bool[Array, " n"],
) -> tuple[PyTree, Experts]:
    """Sum of the chosen particles' gradients; the device decides how many chunks that takes."""
    size, chunk = len(w), _chunk(objective, inputs)
    padding = -size % chunk
    index = jnp.flatnonzero(is_chosen, size=size + padding, fill_value=size)
    num_chosen = is_chosen.sum()

    def add(carry):
        done, total = carry
        part = jax.lax.dynamic_slice_in_dim(index, done, chunk)
        counts = part < size
        part = jnp.minimum(part, size - 1)
        z = draw(objective.family, experts, inputs, objective.num_particles, part)
        pullback, _ = _pullback(objective, theta, experts, z, inputs, part)
        of_part = jnp.where(counts, weighted[part], 0)
        gradient = _gradient(objective, experts, inputs, part, pullback, w[part], of_part)
        return done + chunk, jax.tree.map(jnp.add, total, gradient)

    zero = jax.tree.map(jnp.zeros_like, (theta, experts))
    _, total = jax.lax.while_loop(lambda carry: carry[0] < num_chosen, add, (0, zero))
    return total


def _pullback(
    objective: Objective,
    theta: PyTree,
    experts: Experts,
    z: Float[Array, "n d"],
    inputs: Inputs,
    index: Index,
):
    """The derivative of log w along its three paths: theta, the densities of the experts, z."""

    def log_w(theta, experts, z):
        terms = _log_weights(objective, theta, experts, z, inputs, index)
        return terms.log_w, terms

    _, pullback, terms = jax.vjp(log_w, theta, experts, z, has_aux=True)
    return pullback, terms


def _gradient(
    objective: Objective,
    experts: Experts,
    inputs: Inputs,
    index: Index,
    pullback: Callable,
    w: Float[Array, " n"],
    weighted: Float[Array, " n"],
) -> tuple[PyTree, Experts]:
    """Gradient of theta and experts from particles with weights w and coefficients `weighted`."""
    d_theta, d_direct, d_z = pullback(weighted)
    z, pull_draw = jax.vjp(
        lambda experts: draw(objective.family, experts, inputs, objective.num_particles, index),
        experts,
    )
    d_z = _estimated_z_path(objective, experts, inputs, index, z, d_z, w, weighted)
    (d_drawn,) = pull_draw(d_z)
    return d_theta, jax.tree.map(jnp.add, d_direct, d_drawn)


def _estimated_z_path(
    objective: Objective,
    experts: Experts,
    inputs: Inputs,
    index: Index,
    z: Float[Array, "n d"],
    d_z: Float[Array, "n d"],
    w: Float[Array, " n"],
    weighted: Float[Array, " n"],
) -> Float[Array, "n d"]:
    """The estimator's cotangent of z, from the reparameterised one."""
    estimator, beta = objective.estimator, objective.beta
    if not estimator.uses_responsibility:
        return estimator.z_factor(w, jnp.ones_like(w), beta)[:, None] * d_z
    particles = gather(inputs, objective.num_particles, index)
    responsibility = partial(
        own_responsibility,
        objective.family,
        _densities(experts, inputs, objective, index),
        _mixture(inputs, objective, index),
        particles.own,
    )
    r, pull_r = jax.vjp(responsibility, z)
    (d_r,) = pull_r(beta * weighted)
    return estimator.z_factor(w, r, beta)[:, None] * d_z - d_r


def _log_weights(
    objective: Objective,
    theta: PyTree,
    experts: Experts,
    z: Float[Array, "n d"],
    inputs: Inputs,
    index: Index,
) -> LogWeights:
    """Log weights of the particles; `experts` enter through their densities only."""
    particles = gather(inputs, objective.num_particles, index)
    differentiated = objective.estimator.direct(particles.own)[..., None]
    densities = jax.tree.map(
        lambda a: jnp.where(differentiated, a, jax.lax.stop_gradient(a)),
        _densities(experts, inputs, objective, index),
    )
    log_likelihood = objective.log_likelihood(theta, inputs.state, particles.rows, z)
    return log_weights(
        jnp.where(particles.mask, log_likelihood, 0),
        objective.log_prior(theta, z),
        expert_log_probs(objective.family, densities, z),
        _mixture(inputs, objective, index),
        jnp.asarray(objective.factors, z.dtype),
        objective.beta,
    )


def _densities(experts: Experts, inputs: Inputs, objective: Objective, index: Index) -> Experts:
    return by_expert(observed_experts(experts, inputs.mask), objective.num_particles, index)


def _mixture(inputs: Inputs, objective: Objective, index: Index):
    return by_expert(mask_of_mixture(inputs.mask), objective.num_particles, index)


def _size(objective: Objective, inputs: Inputs) -> int:
    return inputs.mask.size * objective.num_particles


def _chunk(objective: Objective, inputs: Inputs) -> int:
    chunk = objective.backward.chunk
    assert chunk is not None, "resolved"
    return min(chunk, _size(objective, inputs))


def _unflatten(objective: Objective, flat: LogWeights, inputs: Inputs) -> LogWeights:
    num_experts, num_examples = inputs.mask.shape
    shape = (num_experts, objective.num_particles, num_examples)
    return jax.tree.map(lambda a: a.reshape(*a.shape[:-1], *shape), flat)
