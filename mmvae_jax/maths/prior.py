"""The prior p(z): one centred distribution of the posterior family, or a mixture of clusters."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmvae_jax.maths.distributions import Family
from mmvae_jax.maths.latent_axes import LatentAxes, private_log_probs
from mmvae_jax.maths.weights import Experts


class Clusters(NamedTuple):
    """Parameters of the mixture ``p(u) = sum_c pi_c p(u|c)`` (CMVAE, Palumbo et al. 2024).

    Attributes:
      logits: logits of the weights pi.
      loc: location of each cluster.
      log_var: raw scale of each cluster.
    """

    logits: Float[Array, " c"]
    loc: Float[Array, "c d"]
    log_var: Float[Array, "c d"]


class Prior(NamedTuple):
    """Parameters of the prior.

    Attributes:
      log_var: raw scale of ``[u, w]``, where w has the size of the largest private latent, and
        smaller ones take its first axes; with clusters, of w only.
      clusters: the mixture p(u); None for one distribution at 0.
    """

    log_var: Float[Array, " e"]
    clusters: Clusters | None = None


def prior_log_prob(
    family: Family,
    axes: LatentAxes,
    prior: Prior,
    z: Float[Array, "*n d"],
    source: Int[Array, "*n"] | None = None,
) -> Float[Array, "*n"]:
    """Returns log p(z) of particles.

    Args:
      family: family of the prior.
      axes: axes of the latent.
      prior: parameters.
      z: particles.
      source: numbers of the experts that the particles are drawn from. The bound of MMVAE+ has
        ``log p(u, w_m)`` with the private latent of that expert only. None for the density of all
        of z.
    """
    u = axes.shared_part(z)
    log_p = shared_log_prob(family, axes, prior, u)
    if not axes.num_private:
        return log_p
    scale = private_prior_scale(family, axes, prior).reshape(*[1] * (u.ndim - 1), -1)
    of_axes = private_log_probs(family, axes, z, jnp.zeros_like(scale), scale)
    if source is not None:
        of_axes = jnp.where(axes.is_own(source), of_axes, 0)
    return log_p + of_axes.sum(-1)


def shared_log_prob(
    family: Family, axes: LatentAxes, prior: Prior, u: Float[Array, "*n d"]
) -> Float[Array, "*n"]:
    """Returns log p(u)."""
    if prior.clusters is None:
        scale = axes.shared_part(family.to_scale(prior.log_var))
        scale = scale.reshape(*[1] * (u.ndim - 1), -1)
        return family.log_prob(u, jnp.zeros_like(scale), scale)
    return jax.nn.logsumexp(cluster_log_probs(family, prior.clusters, u), axis=0)


def cluster_log_probs(
    family: Family, clusters: Clusters, u: Float[Array, "*n d"]
) -> Float[Array, "c *n"]:
    """Returns ``log pi_c + log p(u|c)`` of every cluster; its softmax over c is q(c|u)."""
    ones = [1] * (u.ndim - 1)
    loc, scale = (
        a.reshape(len(a), *ones, -1) for a in (clusters.loc, family.to_scale(clusters.log_var))
    )
    log_pi = jax.nn.log_softmax(clusters.logits).reshape(-1, *ones)
    return log_pi + family.log_prob(u[None], loc, scale)


def private_prior_scale(family: Family, axes: LatentAxes, prior: Prior) -> Float[Array, " p"]:
    """Returns the scale of p(w_j) on all private axes."""
    scale = family.to_scale(prior.log_var)
    scale = scale if prior.clusters is not None else axes.private_part(scale)
    return jnp.concatenate([scale[:size] for size in axes.private])


def prior_components(family: Family, axes: LatentAxes, prior: Prior) -> Experts:
    """Returns location and scale ``[c d]`` of each cluster on all axes of z; c is 1 without any."""
    if prior.clusters is None:
        scale = axes.shared_part(family.to_scale(prior.log_var))[None]
        loc = jnp.zeros_like(scale)
    else:
        loc, scale = prior.clusters.loc, family.to_scale(prior.clusters.log_var)
    if not axes.num_private:
        return Experts(loc, scale)
    private = private_prior_scale(family, axes, prior)
    private = jnp.broadcast_to(private, (len(loc), axes.num_private))
    return Experts(
        jnp.concatenate([loc, jnp.zeros_like(private)], axis=-1),
        jnp.concatenate([scale, private], axis=-1),
    )


def draw_clusters(
    prior: Prior, key: PRNGKeyArray, number: Int[Array, "*n"]
) -> Int[Array, "*n"] | int:
    """Draws a cluster for each number of a particle; 0 without clusters.

    The same key and number give the same cluster.
    """
    if prior.clusters is None:
        return 0
    logits = prior.clusters.logits
    keys = jax.vmap(partial(jax.random.fold_in, key))(number.ravel())
    drawn = jax.vmap(lambda key: jax.random.categorical(key, logits))(keys)
    return drawn.reshape(number.shape)


def draw_prior(
    family: Family,
    components: Experts,
    clusters: Clusters | None,
    key: PRNGKeyArray,
    shape: tuple[int, ...],
) -> Float[Array, "*n d"]:
    """Draws z from a prior, ``[*shape, d]``.

    Args:
      family: family of the prior.
      components: location and scale of its clusters, ``[c d]``.
      clusters: parameters of the clusters; None for one component.
      key: randomness.
      shape: number of draws along each axis.
    """
    chosen = jnp.zeros(shape, int)
    if clusters is not None:
        key, cluster_key = jax.random.split(key)
        chosen = jax.random.categorical(cluster_key, clusters.logits, shape=shape)
    loc, scale = (a[chosen] for a in components)
    return loc + scale * family.standard(key, loc.shape, loc.dtype)
