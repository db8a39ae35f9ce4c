"""Annealed importance sampling with Hamiltonian Monte Carlo: many chains of many examples.

A path ``log f_beta(z) = log p(z) + beta log p(X|z)`` leads from the prior to the posterior. Every
chain moves once per inverse temperature beta, by a transition that leaves f_beta invariant (Neal
2001, arXiv physics/9803008; Neal 2011, arXiv 1206.1901).

Leapfrog steps preserve volume and are reversible whatever the gradient is, so the transitions are
exact for Laplace densities too, whose gradient jumps: a kink costs acceptance only.

Step sizes follow the acceptance of an example's first ``NUM_PILOTS`` chains at earlier
temperatures. Pilots carry no weight and move independently of the other chains, to which the step
sizes are constants. The mean weight is therefore unbiased.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

NUM_PILOTS = 4
ACCEPTANCE = 0.65  # Neal 2011, section 4.4
GAIN = 0.3  # of the log step size, per unit of acceptance: settles within some ten temperatures

Scalar = Float[Array, ""]


class Path(NamedTuple):
    """Densities and settings of an annealing path.

    Attributes:
      log_prior: ``z [g e d] -> log p(z) [g e]``.
      log_likelihood: ``z [g e d] -> log p(X|z) [g e]``.
      scale: step of each axis relative to the others, ``[d]``.
      num_leapfrog: number of leapfrog steps of a transition.
    """

    log_prior: Callable[[Float[Array, "g e d"]], Float[Array, "g e"]]
    log_likelihood: Callable[[Float[Array, "g e d"]], Float[Array, "g e"]]
    scale: Float[Array, " d"]
    num_leapfrog: int


class Point(NamedTuple):
    """States of chains, and the log densities and their gradients there."""

    z: Float[Array, "g e d"]
    log_prior: Float[Array, "g e"]
    log_likelihood: Float[Array, "g e"]
    prior_grad: Float[Array, "g e d"]
    likelihood_grad: Float[Array, "g e d"]

    def log_prob(self, beta: Scalar) -> Float[Array, "g e"]:
        """Returns ``log f_beta(z)``."""
        return self.log_prior + beta * self.log_likelihood

    def grad(self, beta: Scalar) -> Float[Array, "g e d"]:
        """Returns the gradient of ``log f_beta(z)``."""
        return self.prior_grad + beta * self.likelihood_grad


class Annealed(NamedTuple):
    """Result of an annealing run.

    Attributes:
      log_w: log weights of the chains that are no pilots.
      acceptance: mean acceptance probability of these chains at each temperature.
      step_size: step size of each temperature.
    """

    log_w: Float[Array, "g e"]
    acceptance: Float[Array, "t e"]
    step_size: Float[Array, "t e"]


def sigmoid_schedule(num_temperatures: int, dtype: DTypeLike) -> Float[Array, " t_plus_1"]:
    """Returns inverse temperatures from 0 to 1, closest at both ends (Grosse et al. 2015).

    ``beta_t`` is the logistic function at even distances from -4 to 4, shifted and scaled.
    """
    levels = jax.nn.sigmoid(jnp.linspace(-4, 4, num_temperatures + 1, dtype=dtype))
    return (levels - levels[0]) / (levels[-1] - levels[0])


def anneal(
    path: Path,
    z: Float[Array, "n e d"],
    betas: Float[Array, " t_plus_1"],
    step_size: Float[Array, ""],
    key: PRNGKeyArray,
) -> Annealed:
    """Moves draws of the prior to the posterior; ``E[exp(log_w)] = p(X)``.

    ``log w = sum_t (beta_t - beta_{t-1}) log p(X|z_{t-1})``, with z_t from a transition at beta_t.

    Args:
      path: densities and settings.
      z: independent draws of the prior; the first ``NUM_PILOTS`` are pilots.
      betas: inverse temperatures from 0 to 1.
      step_size: step size at the first temperature.
      key: randomness, shared by the examples.
    """
    start = jnp.zeros(z.shape[:2], z.dtype)
    log_step = jnp.full(z.shape[1:2], jnp.log(step_size), z.dtype)

    def temper(carry, level):
        point, log_w, log_step = carry
        number, previous, beta = level
        log_w += (beta - previous) * point.log_likelihood
        key_at = jax.random.fold_in(key, number)
        point, acceptance = transition(path, point, beta, jnp.exp(log_step), key_at)
        surplus = acceptance[:NUM_PILOTS].mean(0) - ACCEPTANCE
        emitted = (acceptance[NUM_PILOTS:].mean(0), jnp.exp(log_step))
        return (point, log_w, log_step + GAIN * surplus), emitted

    levels = (jnp.arange(1, len(betas)), betas[:-1], betas[1:])
    carry = (evaluate(path, z), start, log_step)
    (_, log_w, _), emitted = jax.lax.scan(temper, carry, levels)
    return Annealed(log_w[NUM_PILOTS:], *emitted)


def anneal_back(
    path: Path,
    z: Float[Array, "g e d"],
    betas: Float[Array, " t_plus_1"],
    step_size: Float[Array, "t e"],
    key: PRNGKeyArray,
) -> Float[Array, "g e"]:
    """Moves draws of the posterior to the prior; returns log_w with ``E[exp(log_w)] = 1 / p(X)``.

    The chains run ``anneal`` backwards (Grosse et al. 2015, arXiv 1511.02543). The step sizes are
    those of ``anneal``, which are independent of the draws.
    """

    def temper(carry, level):
        point, log_w = carry
        number, previous, beta, step = level
        point, _ = transition(path, point, beta, step, jax.random.fold_in(key, number))
        return (point, log_w + (previous - beta) * point.log_likelihood), None

    levels = (jnp.arange(1, len(betas)), betas[:-1], betas[1:], step_size)
    carry = (evaluate(path, z), jnp.zeros(z.shape[:2], z.dtype))
    (_, log_w), _ = jax.lax.scan(temper, carry, levels, reverse=True)
    return log_w


def evaluate(path: Path, z: Float[Array, "g e d"]) -> Point:
    """Returns the states with their log densities and gradients."""
    found = []
    for log_prob in (path.log_prior, path.log_likelihood):
        value, pull = jax.vjp(log_prob, z)
        found.append((value, pull(jnp.ones_like(value))[0]))
    (log_prior, prior_grad), (log_likelihood, likelihood_grad) = found
    return Point(z, log_prior, log_likelihood, prior_grad, likelihood_grad)


def transition(
    path: Path, point: Point, beta: Scalar, step_size: Float[Array, " e"], key: PRNGKeyArray
) -> tuple[Point, Float[Array, "g e"]]:
    """Moves every chain by Hamiltonian Monte Carlo; also returns the acceptance probabilities.

    Chains of one number have the same momenta and thresholds in every example.
    """
    momentum_key, accept_key = jax.random.split(key)
    num_chains, _, dim = point.z.shape
    momentum = jax.random.normal(momentum_key, (num_chains, 1, dim), point.z.dtype)
    momentum = jnp.broadcast_to(momentum, point.z.shape)
    step = step_size[None, :, None] * path.scale[None, None]

    def leap(_, carry):
        at, momentum = carry
        momentum = momentum + step / 2 * at.grad(beta)
        at = evaluate(path, at.z + step * momentum)
        return at, momentum + step / 2 * at.grad(beta)

    end, last = jax.lax.fori_loop(0, path.num_leapfrog, leap, (point, momentum))
    kinetic = jnp.square(last).sum(-1) - jnp.square(momentum).sum(-1)
    log_ratio = end.log_prob(beta) - point.log_prob(beta) - kinetic / 2
    # A trajectory that diverges ends at NaN: it is refused like any of no density.
    acceptance = jnp.nan_to_num(jnp.exp(jnp.minimum(log_ratio, 0)))
    uniform = jax.random.uniform(accept_key, (num_chains, 1), point.z.dtype)
    accepted = uniform < acceptance
    moved = jax.tree.map(
        lambda new, old: jnp.where(
            accepted.reshape(*accepted.shape, *[1] * (new.ndim - 2)), new, old
        ),
        end,
        point,
    )
    return moved, acceptance
