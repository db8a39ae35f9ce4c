"""A bound whose derivative is that of a chosen estimator, for `jax.grad` to find."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree, Shaped

from mmvae_jax.bounds import Bound
from mmvae_jax.distributions import Family
from mmvae_jax.estimators import Estimator
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
    """

    log_likelihood: Callable[[PyTree, PyTree, PyTree, Array], Array]
    log_prior: Callable[[PyTree, Array], Array]
    family: Family
    bound: Bound
    estimator: Estimator
    factors: tuple[float, ...]
    beta: float


class Inputs(NamedTuple):
    """What the bound depends on without being differentiated by it.

    Attributes:
      data: pytree of arrays ``[b ...]``, handed to the log-likelihood by rows.
      mask: which modalities of each example are observed.
      noise: standard draws; ``z = loc + scale noise``.
      state: whatever else the log-likelihood needs (random keys, constants of the networks).
    """

    data: PyTree
    mask: Bool[Array, "m b"]
    noise: Float[Array, "m k b d"]
    state: Any = None


class _Particles(NamedTuple):
    """A flat list of particles, and what belongs to the example of each."""

    own: Bool[Array, "m n"]
    observed: Bool[Array, "m n"]
    mask: Bool[Array, "m n"]
    rows: PyTree


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
    flat = _log_weights(objective, theta, experts, _draw(experts, inputs), inputs)
    terms = _unflatten(flat, inputs)
    return objective.bound.value(terms.log_w, inputs.mask), terms


def _bound_forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    def log_w(theta, experts, z):
        terms = _log_weights(objective, theta, experts, z, inputs)
        return terms.log_w, terms

    _, pullback, flat = jax.vjp(log_w, theta, experts, _draw(experts, inputs), has_aux=True)
    terms = _unflatten(flat, inputs)
    value = objective.bound.value(terms.log_w, inputs.mask)
    return (value, terms), (pullback, terms.log_w, experts, inputs)


def _bound_backward(objective: Objective, residuals, cotangents):
    pullback, log_w, experts, inputs = residuals
    cotangent, _ = cotangents
    w = objective.bound.normalise(log_w, inputs.mask)
    share = objective.bound.share(inputs.mask).astype(w.dtype) * cotangent[None]
    weighted = (share[:, None] * w).reshape(-1)

    d_theta, d_direct, d_z = pullback(weighted)
    z, pull_draw = jax.vjp(lambda experts: _draw(experts, inputs), experts)
    d_z = _estimated_z_path(objective, experts, inputs, z, d_z, w.reshape(-1), weighted)
    (d_drawn,) = pull_draw(d_z)
    return d_theta, jax.tree.map(jnp.add, d_direct, d_drawn), None


bound.defvjp(_bound_forward, _bound_backward)


def _estimated_z_path(
    objective: Objective,
    experts: Experts,
    inputs: Inputs,
    z: Float[Array, "n d"],
    d_z: Float[Array, "n d"],
    w: Float[Array, " n"],
    weighted: Float[Array, " n"],
) -> Float[Array, "n d"]:
    """The estimator's cotangent of z, from the reparameterised one."""
    estimator, beta = objective.estimator, objective.beta
    if not estimator.uses_responsibility:
        return estimator.z_factor(w, jnp.ones_like(w), beta)[:, None] * d_z
    particles = _all_particles(inputs)
    at_particles = _rows_by_expert(observed_experts(experts, inputs.mask), inputs)
    responsibility = partial(
        own_responsibility, objective.family, at_particles, particles.mask, particles.own
    )
    r, pull_r = jax.vjp(responsibility, z)
    (d_r,) = pull_r(beta * weighted)
    return estimator.z_factor(w, r, beta)[:, None] * d_z - d_r


def _draw(experts: Experts, inputs: Inputs) -> Float[Array, "n d"]:
    """``z = loc + scale noise`` of every particle (m, k, b), flattened in that order."""
    kept = observed_experts(experts, inputs.mask)
    z = kept.loc[:, None] + kept.scale[:, None] * inputs.noise
    return z.reshape(-1, z.shape[-1])


def _log_weights(
    objective: Objective, theta: PyTree, experts: Experts, z: Float[Array, "n d"], inputs: Inputs
) -> LogWeights:
    """Log weights of all particles; `experts` enter through their densities only."""
    particles = _all_particles(inputs)
    differentiated = objective.estimator.direct(particles.own)[..., None]
    densities = jax.tree.map(
        lambda a: jnp.where(differentiated, a, jax.lax.stop_gradient(a)),
        _rows_by_expert(observed_experts(experts, inputs.mask), inputs),
    )
    log_likelihood = objective.log_likelihood(theta, inputs.state, particles.rows, z)
    return log_weights(
        jnp.where(particles.observed, log_likelihood, 0),
        objective.log_prior(theta, z),
        expert_log_probs(objective.family, densities, z),
        particles.mask,
        jnp.asarray(objective.factors, z.dtype),
        objective.beta,
    )


def _all_particles(inputs: Inputs) -> _Particles:
    num_experts, num_particles, num_examples, _ = inputs.noise.shape
    source = jnp.arange(num_experts).repeat(num_particles * num_examples)
    return _Particles(
        own=source[None] == jnp.arange(num_experts)[:, None],
        observed=_rows_by_expert(inputs.mask, inputs),
        mask=_rows_by_expert(mask_of_mixture(inputs.mask), inputs),
        rows=jax.tree.map(partial(_rows, inputs=inputs), inputs.data),
    )


def _rows(a: Shaped[Array, "b *dim"], inputs: Inputs) -> Shaped[Array, "n *dim"]:
    """The row of its example for every particle (m, k, b)."""
    copies = inputs.noise.shape[0] * inputs.noise.shape[1]
    repeated = jnp.broadcast_to(a[None], (copies, *a.shape))
    return repeated.reshape(-1, *a.shape[1:])


def _rows_by_expert(tree: PyTree, inputs: Inputs) -> PyTree:
    """`_rows` of ``[m b ...]`` arrays: ``[m n ...]``."""
    return jax.tree.map(jax.vmap(partial(_rows, inputs=inputs)), tree)


def _unflatten(flat: LogWeights, inputs: Inputs) -> LogWeights:
    shape = inputs.noise.shape[:3]
    return jax.tree.map(lambda a: a.reshape(*a.shape[:-1], *shape), flat)
