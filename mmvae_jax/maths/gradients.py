"""A bound on log p(X) with a custom derivative: that of the chosen gradient estimator.

The weights of a bound's examples are constants, so that the whole gradient is known as soon as
log w is. The forward pass of the custom derivative computes it, by the passes over particles in
``mmvae_jax.maths.passes``; the backward pass multiplies it by the cotangent of the total.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from mmvae_jax.maths import passes
from mmvae_jax.maths.control_variate import coefficients_from_others
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.particles import Inputs
from mmvae_jax.maths.problem import Objective, Problem
from mmvae_jax.maths.weights import Experts, Terms


class Report(NamedTuple):
    """The bound of every example, and its diagnostics (no gradient flows through them).

    Attributes:
      bound: bound on log p(X) of each example; 0 where nothing is observed.
      drawn: True for the experts that particles were drawn from; other entries are 0 throughout.
      available: True for the experts that an example has.
      log_w: log weights of all particles.
      means: means of their terms over the K particles of each expert: ``[j m b]``, ``[m b]``.
      backward_share: share of the K particles that the gradient is computed from.
      dropped_mass: total weight of the other particles.
      mass: total weight of all K: 1, or the expert's share where all particles are one group.
      min_scale: smallest scale of the posterior over the latent axes.
    """

    bound: Float[Array, " b"]
    drawn: Bool[Array, "m b"]
    available: Bool[Array, "m b"]
    log_w: Float[Array, "m k b"]
    means: Terms
    backward_share: Float[Array, "m b"]
    dropped_mass: Float[Array, "m b"]
    mass: Float[Array, "m b"]
    min_scale: Float[Array, "m b"]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def bound(
    objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs
) -> tuple[Float[Array, ""], Report]:
    """Returns the weighted sum of the examples' bounds, with the estimator's gradient.

    The gradient is that for theta and the experts. An example with nothing observed has bound 0
    and no gradient. No gradient flows into the inputs. On a mesh, total and gradient are those of
    the device's own particles; the sum over the devices is the whole.

    Args:
      objective: densities of the model, the bound and the estimator.
      theta: parameters of decoders, prior and likelihoods.
      experts: posterior parameters ``[m b d]``.
      inputs: data, mask, noise, weights of the examples and the factors of the densities.

    Returns:
      The total, and the ``Report``.
    """
    problem = _problem(objective, theta, experts, inputs)
    return _summary(problem, experts, passes.forward(problem, experts))


def _bound_forward(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs):
    problem = _problem(objective, theta, experts, inputs)
    is_dense = objective.backward.kind == "dense"
    weighed, gradient = (passes.dense if is_dense else passes.of_chosen)(problem, experts)
    experts_gradient = _with_variate(problem, experts, *gradient.experts)
    return _summary(problem, experts, weighed), (gradient.theta, experts_gradient)


def _bound_backward(objective: Objective, gradient, cotangents):
    cotangent, _ = cotangents  # the report has no gradient
    return *jax.tree.map(lambda g: (cotangent * g).astype(g.dtype), gradient), None


bound.defvjp(_bound_forward, _bound_backward)


def _problem(objective: Objective, theta: PyTree, experts: Experts, inputs: Inputs) -> Problem:
    size, found = objective.axes.size, experts.loc.shape[-1]
    assert size == found, f"the objective has {size} latent axes, its experts {found}"
    return Problem(objective, theta, inputs)


def _summary(
    problem: Problem, experts: Experts, weighed: passes.Weighed
) -> tuple[Float[Array, ""], Report]:
    """Returns the total of the bounds and the report, from the particles of all devices."""
    objective, inputs = problem.objective, problem.inputs
    log_w, means, (w, chosen) = weighed
    drawn = inputs.drawn()
    is_chosen = ((chosen > 0) | (objective.backward.kind == "dense")) & drawn[:, None]
    dropped = jnp.where(is_chosen, 0, w).sum(1)
    value = objective.bound.value(log_w, drawn)
    report = Report(
        bound=value,
        drawn=inputs.by_expert(drawn.astype(w.dtype)) > 0,
        available=inputs.available(),
        log_w=jnp.swapaxes(inputs.by_expert(jnp.swapaxes(log_w, 0, 1)), 0, 1),
        means=means,
        backward_share=inputs.by_expert(is_chosen.mean(1, dtype=w.dtype)),
        dropped_mass=inputs.by_expert(dropped),
        mass=inputs.by_expert(w.sum(1)),
        min_scale=_min_scale(objective.axes, experts),
    )
    return (inputs.weight * value).sum(), report


def _min_scale(axes: LatentAxes, experts: Experts) -> Float[Array, "m b"]:
    """Returns the smallest scale of each expert's posterior, on its own axes."""
    if not axes.num_private:
        return experts.scale.min(-1)
    is_own = axes.is_own(jnp.arange(len(experts.scale)))[:, None]
    private = jnp.where(is_own, axes.private_part(experts.scale), jnp.inf)
    return jnp.minimum(axes.shared_part(experts.scale).min(-1), private.min(-1))


def _with_variate(
    problem: Problem, experts: Experts, gradient: Experts, variate: Experts | None = None
) -> Experts:
    """Returns the gradient of the experts, plus c times its control variate if it has one."""
    if variate is None:
        return gradient
    shards, inputs = problem.objective.shards, problem.inputs
    share = inputs.by_expert(problem.weight_of_groups())
    counts = inputs.available() & (share != 0)
    # c is that of all of an example's particles, and of examples that all count alike.
    unit = jnp.where(counts, 1 / jnp.where(counts, share, 1), 0)[..., None]
    whole, whole_variate = shards.sum_over_particles((gradient, variate))

    def combined(own, own_variate, g, delta):
        c = coefficients_from_others(unit * g, unit * delta, experts.scale, counts, shards)
        return own + c * own_variate

    return jax.tree.map(combined, gradient, variate, whole, whole_variate)
