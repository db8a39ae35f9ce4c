"""Log importance weights of a tile of particles, and the gradient for a chosen estimator."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from mmvae_jax.maths.backward import Backward, coefficients
from mmvae_jax.maths.bounds import Bound
from mmvae_jax.maths.collectives import ALONE, Shards
from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.estimators import Estimator
from mmvae_jax.maths.latent_axes import LatentAxes, own_log_probs, own_private_log_prob
from mmvae_jax.maths.particles import (
    Draws,
    Examples,
    Inputs,
    draws_at,
    examples_at,
    own_expert,
)
from mmvae_jax.maths.weights import (
    Experts,
    Terms,
    differentiated_where,
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
      log_prior: ``(theta, z [g e d], source [g e]) -> log p(z) [g e]``, with the private latent
        of the expert ``source`` only.
      family: posterior family of the experts.
      axes: shared and private axes of the latent.
      bound: reduction of log w to one number per example.
      estimator: gradient estimator for the parameters of the experts.
      num_particles: number K of particles per expert; on a mesh, those of one device.
      backward: choice of the particles that the gradient is computed from, resolved.
      in_groups: True to take tiles of whole groups where they fit (``mmvae_jax.maths.groups``).
      shards: mesh axes that examples and particles are spread over.
    """

    log_likelihood: Callable[[PyTree, PyTree, PyTree, Array], Array]
    log_prior: Callable[[PyTree, Array, Array], Array]
    family: Family
    axes: LatentAxes
    bound: Bound
    estimator: Estimator
    num_particles: int
    backward: Backward = Backward("dense")
    in_groups: bool = False
    shards: Shards = ALONE


class ParticleWeights(NamedTuple):
    """The weights of particles.

    Attributes:
      w: weights w~, normalised inside a group.
      chosen: coefficients in place of w~ in the gradient, 0 for particles that are left out.
    """

    w: Float[Array, "m k b"]
    chosen: Float[Array, "m k b"]


class Gradient(NamedTuple):
    """The gradient of the weighted sum of bounds.

    Attributes:
      theta: gradient for decoders, prior and likelihoods.
      experts: gradient for the posteriors' parameters ``[m b d]``, and its control variate if the
        estimator has one.
    """

    theta: PyTree
    experts: tuple[Experts, ...]


class Linear(NamedTuple):
    """The log weights of a tile, linearised along their three paths.

    Attributes:
      examples: examples of the tile.
      pull_examples: maps a cotangent of the tile's experts to that of all ``[m b d]``.
      draws: draws of the tile.
      z: particles of the tile.
      pull_log_w: maps a cotangent of log w to those of theta, of the experts' densities and of z.
      own: location and scale ``[g e d]`` of the expert that each z was drawn from.
      pull_own: maps a cotangent of ``own`` to that of the experts.
    """

    examples: Examples
    pull_examples: Callable
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
        objective, inputs, axes = self.objective, self.inputs, self.objective.axes
        own = draws.own(len(examples.available))
        # The estimator says for which experts the density's parameters are differentiated: for a
        # particle of expert m, all of them (reparam), none (stl, dreg) or all but m (mixture_dreg).
        direct = objective.estimator.direct(own)
        densities = jax.tree.map(
            lambda a: differentiated_where(direct, a[:, None]), axes.shared_part(experts)
        )
        log_private = None
        if axes.num_private:
            is_direct = (direct & own).any(0)
            of_own = jax.tree.map(
                lambda a: differentiated_where(is_direct, a), own_expert(experts, draws)
            )
            log_private = own_private_log_prob(objective.family, axes, draws.source, z, of_own)
        log_likelihood = objective.log_likelihood(theta, inputs.state, examples.rows, z)
        return log_weights(
            jnp.where(examples.mask[:, None], log_likelihood, 0),
            objective.log_prior(theta, z, draws.source),
            expert_log_probs(objective.family, densities, axes.shared_part(z)),
            _mixture(examples, own),
            inputs.factors,
            inputs.beta,
            log_private,
        )

    def linearise(
        self, experts: Experts, index: Int[Array, " e"] | None, particles: Int[Array, "g e"]
    ) -> tuple[Float[Array, "g e"], Terms, Linear]:
        """Returns log w of a tile, its terms, and the linear maps of its derivative.

        Args:
          experts: posterior parameters ``[m b d]``.
          index: numbers of the tile's examples, which may repeat; None for all in order.
          particles: numbers of the tile's particles.
        """

        # The transpose adds up the gradients of an example that repeats, and drops those of
        # missing experts, which were replaced by standard ones.
        def at_examples(experts: Experts) -> tuple[Experts, Examples]:
            examples = examples_at(experts, self.inputs, index)
            return examples.experts, examples

        draws = self.draws(experts, particles)
        experts, pull_examples, examples = jax.vjp(at_examples, experts, has_aux=True)
        own, pull_own = jax.vjp(partial(own_expert, draws=draws), experts)
        z = own.loc + own.scale * draws.noise
        weights_of = partial(self.log_weights, examples, draws)
        log_w, pull_log_w, terms = jax.vjp(weights_of, self.theta, experts, z, has_aux=True)
        linear = Linear(examples, pull_examples, draws, z, pull_log_w, own, pull_own)
        return log_w, terms, linear

    def gradient(
        self, linear: Linear, w: Float[Array, "g e"], weighted: Float[Array, "g e"]
    ) -> Gradient:
        """Returns the gradient of a tile.

        Args:
          linear: linearised log weights of the tile.
          w: normalised weights w~.
          weighted: cotangents of log w, ``w~`` times the weight of its group.
        """
        # d(total)/d(log w) = weight_of_groups w~ (``weighted``) gives, in one backward pass,
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
        # A private latent w_m has a single expert: r is 1 there. The other modalities' w_j come
        # from r_j(w), which is in no density of log w: their paths are those of theta.
        r, d_r = self._responsibility(linear, weighted)
        axes, source = self.objective.axes, linear.draws.source
        of_shared, of_private = (estimator.z_factor(w, x, beta) for x in (r, jnp.ones_like(w)))
        estimated = axes.by_axis(source, of_shared, of_private) * d_z - d_r
        # The z-path goes on through z = loc_m + scale_m noise to the expert m of each particle.
        noise = linear.draws.noise
        if not estimator.is_adaptive:
            (d_drawn,) = linear.pull_own(Experts(estimated, estimated * noise))
            of_experts = (jax.tree.map(jnp.add, d_direct, d_drawn),)
            return Gradient(d_theta, tuple(linear.pull_examples(g)[0] for g in of_experts))
        # adaptive_dreg: the direct path is whole, and the step to mixture_dreg is apart,
        #   Delta = f d(log q_m)/d(phi) - df/dz dz/d(phi)
        own_log_q = partial(own_log_probs, self.objective.family, axes, source, linear.z)
        log_q, pull_log_q = jax.vjp(own_log_q, linear.own)
        scores = (beta * r * weighted, beta * weighted)
        (d_score,) = pull_log_q(scores[: len(log_q)])
        change = estimated - d_z
        delta = map(jnp.add, d_score, (change, change * noise))
        (d_drawn,), (variate,) = map(linear.pull_own, (Experts(d_z, d_z * noise), Experts(*delta)))
        of_experts = (jax.tree.map(jnp.add, d_direct, d_drawn), variate)
        return Gradient(d_theta, tuple(linear.pull_examples(g)[0] for g in of_experts))

    def weigh(
        self, log_w: Float[Array, "m k b"], drawn: Bool[Array, "m b"], numbers: Int[Array, " b"]
    ) -> ParticleWeights:
        """Returns the weights of whole groups of particles.

        Args:
          log_w: log weights of the particles.
          drawn: True for the experts that particles were drawn from.
          numbers: numbers of the examples over all devices.
        """
        bound, key = self.objective.bound, self.inputs.key
        w = bound.normalise(log_w, drawn)
        chosen = coefficients(self.objective.backward, w, key, numbers, joint=bound.joint)
        return ParticleWeights(w, chosen)

    def weight_of_groups(self) -> Float[Array, "m b"]:
        """Returns the derivative of the total by log w, over w~: one number for each group.

        Every bound is a mean over groups of particles, so that ``d(bound)/d(log w) =
        share[m, b] w~[m, k, b]``. Estimators need w~ apart from that product.
        """
        weight = self.inputs.weight[None]
        return self.objective.bound.share(self.inputs.drawn()).astype(weight.dtype) * weight

    def _responsibility(
        self, linear: Linear, weighted: Float[Array, "g e"]
    ) -> tuple[Float[Array, "g e"], Float[ArrayLike, "*g_e_d"]]:
        """Returns r_m of each particle, and ``weighted beta d(r_m)/dz``; 1 and 0 if not used."""
        if not self.objective.estimator.uses_responsibility:
            return jnp.ones_like(weighted), 0.0
        experts = jax.tree.map(lambda a: a[:, None], linear.examples.experts)
        own = linear.draws.own(len(linear.examples.available))
        mask = _mixture(linear.examples, own)
        axes, family = self.objective.axes, self.objective.family

        def responsibility(z: Float[Array, "g e d"]) -> Float[Array, "g e"]:
            shared = axes.shared_part((experts, z))
            return own_responsibility(family, shared[0], mask, own, shared[1])

        r, pull_r = jax.vjp(responsibility, linear.z)
        (d_r,) = pull_r(self.inputs.beta * weighted)
        return r, d_r


def _mixture(examples: Examples, own: Bool[Array, "m g e"]) -> Bool[Array, "m g e"]:
    """Returns the experts in the mixture's density, for every particle of a tile."""
    return jnp.broadcast_to(mask_of_mixture(examples.available)[:, None], own.shape)
