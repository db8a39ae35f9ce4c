"""Log importance weights of a tile of particles, and their gradient for a chosen estimator."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from mmvae_jax.maths.backward import Backward
from mmvae_jax.maths.bounds import Bound
from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.estimators import Estimator
from mmvae_jax.maths.particles import Draws, Examples, Inputs, draws_at, own_expert
from mmvae_jax.maths.weights import (
    Experts,
    Terms,
    expert_log_probs,
    log_weights,
    mask_of_mixture,
    own_responsibility,
)


class Objective(NamedTuple):
    """The densities of a model, a bound and its gradient estimator; static.

    Attributes:
      log_likelihood: ``(theta, state, rows, z [g e d]) -> log p(x_j|z) [j g e]`` with the data
        ``rows``, ``[e ...]``. Its value is ignored where x_j is missing.
      log_prior: ``(theta, z [g e d]) -> log p(z) [g e]``.
      family: posterior family of the experts.
      bound: reduction of log w to one number per example.
      estimator: gradient estimator for the parameters of the experts.
      num_particles: number K of particles per expert; on a mesh, those of one device.
      backward: choice of the particles that the gradient is computed from, resolved.
      shards: mesh axes that examples and particles are spread over.
    """

    log_likelihood: Callable[[PyTree, PyTree, PyTree, Array], Array]
    log_prior: Callable[[PyTree, Array], Array]
    family: Family
    bound: Bound
    estimator: Estimator
    num_particles: int
    backward: Backward = Backward("dense")
    shards: Shards = ALONE


class Linear(NamedTuple):
    """The log weights of a tile, linearised along their three paths.

    Attributes:
      examples: examples of the tile.
      draws: draws of the tile.
      z: particles of the tile.
      pull_log_w: maps a cotangent of log w to those of theta, of the experts' densities and of z.
      own: location and scale ``[g e d]`` of the expert that each z was drawn from.
      pull_own: maps a cotangent of ``own`` to that of the experts.
    """

    examples: Examples
    draws: Draws
    z: Float[Array, "g e d"]
    pull_log_w: Callable
    own: Experts
    pull_own: Callable


class Problem(NamedTuple):
    """An objective at one point: its parameters and everything that is held constant.

    Attributes:
      objective: densities, bound and estimator.
      theta: parameters of decoders, prior and likelihoods.
      inputs: data, mask, noise and the factors of the densities.
    """

    objective: Objective
    theta: PyTree
    inputs: Inputs

    def draws(self, experts: Experts, index: Int[Array, "g e"]) -> Draws:
        """Returns the standard draws of the particles with these numbers."""
        dim, dtype = experts.loc.shape[-1], experts.loc.dtype
        objective = self.objective
        return draws_at(
            objective.family,
            self.inputs,
            dim,
            dtype,
            index,
            objective.num_particles,
            objective.shards,
        )

    def log_weights(
        self,
        examples: Examples,
        draws: Draws,
        theta: PyTree,
        experts: Experts,
        z: Float[Array, "g e d"],
    ) -> tuple[Float[Array, "g e"], Terms]:
        """Returns log w of a tile, and the terms that it consists of.

        The last three arguments are the paths of differentiation. The experts enter through their
        densities only; the particles ``z`` are given.
        """
        objective, inputs = self.objective, self.inputs
        own = draws.own(len(examples.mask))
        # The estimator says for which experts the density's parameters are differentiated: for a
        # particle of expert m, all of them (reparam), none (stl, dreg) or all but m (mixture_dreg).
        differentiated = objective.estimator.direct(own)[..., None]
        densities = jax.tree.map(
            lambda a: jnp.where(differentiated, a[:, None], jax.lax.stop_gradient(a)[:, None]),
            experts,
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

    def linearise(
        self, examples: Examples, draws: Draws
    ) -> tuple[Float[Array, "g e"], Terms, Linear]:
        """Returns log w of a tile, its terms, and the linear maps of its derivative."""
        experts = examples.experts
        own, pull_own = jax.vjp(partial(own_expert, draws=draws), experts)
        z = own.loc + own.scale * draws.noise
        weights_of = partial(self.log_weights, examples, draws)
        log_w, pull_log_w, terms = jax.vjp(weights_of, self.theta, experts, z, has_aux=True)
        return log_w, terms, Linear(examples, draws, z, pull_log_w, own, pull_own)

    def gradient(
        self, linear: Linear, w: Float[Array, "g e"], weighted: Float[Array, "g e"]
    ) -> tuple[PyTree, tuple[Experts, ...]]:
        """Returns the gradient for theta and for the experts of a tile.

        For an adaptive estimator, the control variate of the experts' gradient comes after it.

        Args:
          linear: linearised log weights of the tile.
          w: normalised weights w~.
          weighted: cotangents of log w, ``w~`` times the share of its group in the bound.
        """
        # d(bound)/d(log w) = share w~ (``weighted``) gives, in one backward pass,
        #   d_theta  = sum weighted d(log w)/d(theta)        for decoders and prior: done,
        #   d_direct = sum weighted d(log w)/d(densities)    the direct path, for the experts that
        #                                                    log_weights left differentiated,
        #   d_z      = weighted d(log w)/dz                  the z-path, before the estimator.
        estimator, beta = self.objective.estimator, self.inputs.beta
        d_theta, d_direct, d_z = linear.pull_log_w(weighted)
        # reparam, stl: d_z as it is. dreg: d_z ((1 - beta) + beta w~), that is w~^2 at beta = 1.
        # mixture_dreg: the score of expert m carries f = beta w~ r_m, and is traded for the path
        #   df/dz = beta (r_m (w~ - w~^2) d(log w)/dz + w~ d(r_m)/dz).
        # Subtracted from w~ d(log w)/dz, the first term gives the factor (1 - beta r) + beta r w~
        # of d_z, and the second one d_r. Both carry the share that is in ``weighted``.
        r, d_r = self._responsibility(linear, weighted)
        estimated = estimator.z_factor(w, r, beta)[..., None] * d_z - d_r
        # The z-path goes on through z = loc_m + scale_m noise to the expert m of each particle.
        noise = linear.draws.noise
        if not estimator.is_adaptive:
            (d_drawn,) = linear.pull_own(Experts(estimated, estimated * noise))
            return d_theta, (jax.tree.map(jnp.add, d_direct, d_drawn),)
        # adaptive_dreg: the direct path is whole, and the step to mixture_dreg is apart,
        #   Delta = f d(log q_m)/d(phi) - df/dz dz/d(phi)
        own_log_q = partial(self.objective.family.log_prob, linear.z)
        _, pull_log_q = jax.vjp(own_log_q, *linear.own)
        change, d_score = estimated - d_z, pull_log_q(beta * r * weighted)
        delta = map(jnp.add, d_score, (change, change * noise))
        (d_drawn,), (variate,) = map(linear.pull_own, (Experts(d_z, d_z * noise), Experts(*delta)))
        return d_theta, (jax.tree.map(jnp.add, d_direct, d_drawn), variate)

    def _responsibility(
        self, linear: Linear, weighted: Float[Array, "g e"]
    ) -> tuple[Float[Array, "g e"], Float[ArrayLike, "*g_e_d"]]:
        """Returns r_m of each particle, and ``weighted beta d(r_m)/dz``; 1 and 0 if not used."""
        if not self.objective.estimator.uses_responsibility:
            return jnp.ones_like(weighted), 0.0
        experts = jax.tree.map(lambda a: a[:, None], linear.examples.experts)
        own = linear.draws.own(len(linear.examples.mask))
        mask = _mixture(linear.examples, own)
        responsibility = partial(own_responsibility, self.objective.family, experts, mask, own)
        r, pull_r = jax.vjp(responsibility, linear.z)
        (d_r,) = pull_r(self.inputs.beta * weighted)
        return r, d_r


def _mixture(examples: Examples, own: Bool[Array, "m g e"]) -> Bool[Array, "m g e"]:
    """Returns the experts in the mixture's density, for every particle of a tile."""
    return jnp.broadcast_to(mask_of_mixture(examples.mask)[:, None], own.shape)
