"""Latents that use all given modalities: draws of the experts, weighed by the model's posterior.

Particles of every available expert, and of the prior, get the weights ``p(x_given|z) p(z) / q(z)``.
Resampled or averaged by these, they stand for ``p(z|x_given)``, to which no single expert comes
close where the modalities complement each other.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmvae_jax.batch import Observed
from mmvae_jax.checks import check_choice, check_count, check_share
from mmvae_jax.generative import likelihood_of_examples, proposal_of
from mmvae_jax.maths.pareto import Diagnostics, pareto_k, tail_size
from mmvae_jax.maths.particles import Draws, draw, standard_draws
from mmvae_jax.maths.prior import draw_clusters, prior_log_prob
from mmvae_jax.maths.proposal import components_of, particle_ends
from mmvae_jax.maths.tiles import TileRows, over_tiles
from mmvae_jax.maths.weights import effective_sample_size
from mmvae_jax.model import MMVAE, tile_size

NARROWEST = 16  # examples of a tile, whose data are gathered once for all of its particles


@no_type_check  # at run time: NumPy's scalars are taken, too
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportanceWeighting:
    """The setting of ``encode`` and ``predict`` that uses all given modalities at once; static.

    Args:
      num_particles: number of particles of each example, spread evenly over the available experts.
      prior_share: share of particles from the prior, at least 0 and below 1. It keeps the weights
        bounded where experts are narrower than the posterior.
      chunk: number of particles per decoder call, of all examples together; by default 64 on CPU
        (256 for decoders without convolutions), and 4096 elsewhere.

    Raises:
      ValueError: for counts below 1, or a share out of range.

    >>> weighting = mm.ImportanceWeighting(num_particles=50)
    >>> mm.encode(model, batch, jax.random.key(0), N=4, weighting=weighting).shape
    (5, 4, 2)
    """

    num_particles: int = 1000
    prior_share: float = 0.1
    chunk: int | None = None

    def __post_init__(self) -> None:
        checks = {"num_particles": check_count, "prior_share": check_share, "chunk": check_count}
        for field, check in checks.items():
            if getattr(self, field) is not None:
                object.__setattr__(self, field, check(field, getattr(self, field)))


Weighting = str | ImportanceWeighting
Particles = Callable[
    [Int[Array, "g e"], Int[Array, " e"]], tuple[Float[Array, "g e d"], Float[Array, "g e"]]
]


def importance_weighting(weighting: Weighting) -> ImportanceWeighting | None:
    """Returns the checked setting, None for ``"mixture"``."""
    if isinstance(weighting, ImportanceWeighting):
        return weighting
    check_choice("weighting", weighting, ("mixture", "importance"))
    return ImportanceWeighting() if weighting == "importance" else None


@partial(jax.jit, static_argnames=("graphdef", "names", "N", "return_mean", "setting"))
def weighted_latents(
    graphdef: nnx.GraphDef,
    state: nnx.State,
    observed: Observed,
    available: Bool[Array, "m b"],
    key: PRNGKeyArray,
    N: int,
    return_mean: bool,
    names: tuple[str, ...],
    setting: ImportanceWeighting,
) -> tuple[Float[Array, "b N d"], Diagnostics]:
    """Draws latents from p(z|x_given), or returns their mean; NaN where nothing is available.

    Gradients of draws pass through the particles, and not through their choice.
    """
    model = nnx.merge(graphdef, state, copy=True)
    particle_key, choice_key = jax.random.split(key)
    particles = _particles(model, observed, available, particle_key, setting)
    given = {n: x for n, x in observed.data.items() if n in names}
    log_likelihood = likelihood_of_examples(model, Observed(given, available))
    setting = dataclasses.replace(setting, chunk=setting.chunk or tile_size(model))
    log_w = _log_weights(particles, log_likelihood, available.shape[1], setting)
    w = jax.nn.softmax(log_w, axis=0)
    every_example = jnp.arange(available.shape[1])
    if return_mean:
        z = _mean(particles, w, setting)[:, None]
        z = jnp.broadcast_to(z, (z.shape[0], N, z.shape[2]))
    else:
        z, _ = particles(_choose(choice_key, w, N), every_example)
        z = jnp.moveaxis(z, 0, 1)
    is_given = available.any(0)
    diagnostics = jax.tree.map(lambda a: jnp.where(is_given, a, jnp.nan), _diagnostics(log_w, w))
    return jnp.where(is_given[:, None, None], z, jnp.nan), diagnostics


def _diagnostics(log_w: Float[Array, "k b"], w: Float[Array, "k b"]) -> Diagnostics:
    largest = jax.lax.top_k(log_w.T, tail_size(len(w)) + 1)[0].T
    return Diagnostics(effective_sample_size(w[None])[0], w.max(0), pareto_k(largest))


def _particles(
    model: MMVAE,
    observed: Observed,
    available: Bool[Array, "m b"],
    key: PRNGKeyArray,
    setting: ImportanceWeighting,
) -> Particles:
    """Returns the function of numbers and examples to z and ``log p(z) - log q(z)``.

    The same numbers give the same particles, so that none has to be kept.
    """
    family, axes, prior = model.config.family, model.config.axes, model.prior
    share, num_particles = setting.prior_share, setting.num_particles
    proposal = proposal_of(model, observed, available, share)
    available = proposal.available
    experts = proposal.components
    num_examples, dim = experts.loc.shape[1:]
    offset_key, noise_key = jax.random.split(key)
    offset = jax.random.uniform(offset_key, dtype=experts.loc.dtype)
    ends = particle_ends(available, num_particles, share, offset)

    def particles(number: Int[Array, "g e"], index: Int[Array, " e"]):
        own = number * num_examples + index[None]
        source = jax.vmap(
            lambda n, end, a: components_of(n, end[:, None], a[:, None])[:, 0],
            in_axes=1,
            out_axes=1,
        )(number, ends[:, index], available[:, index])
        source = proposal.with_clusters(source, draw_clusters(prior, offset_key, own))
        noise = standard_draws(family, noise_key, own, dim, experts.loc.dtype)
        at = proposal.at(index)
        z = draw(at.components, Draws(source, noise))
        log_prior = prior_log_prob(family, axes, prior, z)
        return z, log_prior - at.log_prob(family, z, log_prior)

    return particles


def _log_weights(
    particles: Particles,
    log_likelihood: Callable[[Int[Array, " e"], Float[Array, "g e d"]], Float[Array, "g e"]],
    num_examples: int,
    setting: ImportanceWeighting,
) -> Float[Array, "k b"]:
    """Returns ``log p(x_given|z) + log p(z) - log q(z)`` of all particles, tile by tile."""

    def of_examples(index: Int[Array, " e"]):
        def weigh(carry: None, rows: TileRows) -> tuple[None, Float[Array, "g e"]]:
            z, log_ratio = particles(_numbers(rows, index), index)
            return carry, log_likelihood(index, z) + log_ratio

        return None, weigh

    assert setting.chunk is not None, "set by weighted_latents"
    size = setting.chunk
    width = max(NARROWEST, size // 32)
    _, log_w = over_tiles(of_examples, setting.num_particles, num_examples, size, width=width)
    return log_w


def _mean(
    particles: Particles, w: Float[Array, "k b"], setting: ImportanceWeighting
) -> Float[Array, "b d"]:
    """Returns ``sum_k w_k z_k`` of normalised weights, without a decoder call."""

    def of_examples(index: Int[Array, " e"]):
        def add(total: Float[Array, "d e"], rows: TileRows) -> tuple[Float[Array, "d e"], None]:
            z, _ = particles(_numbers(rows, index), index)
            share = jnp.where(rows.counts[:, None], w[rows.number][:, index], 0)
            return total + jnp.einsum("ge,ged->de", share, z, precision="highest"), None

        like, _ = jax.eval_shape(particles, index[None], index)
        return jnp.zeros((like.shape[2], len(index)), like.dtype), add

    assert setting.chunk is not None, "set by weighted_latents"
    total, _ = over_tiles(of_examples, len(w), w.shape[1], setting.chunk)
    return total.T


def _choose(key: PRNGKeyArray, w: Float[Array, "k b"], N: int) -> Int[Array, "N b"]:
    """Draws N numbers of particles with the probabilities w, with replacement."""
    # The last sum differs from 1 by rounding: quantiles are shares of it.
    total = jnp.cumsum(w, axis=0)
    quantile = jax.random.uniform(key, (N, w.shape[1]), w.dtype) * total[-1:]
    find = partial(jnp.searchsorted, side="right")
    number = jax.vmap(find, in_axes=1, out_axes=1)(total, quantile)
    return jnp.minimum(number, len(w) - 1)


def _numbers(rows: TileRows, index: Int[Array, " e"]) -> Int[Array, "g e"]:
    return jnp.broadcast_to(rows.number[:, None], (len(rows.number), len(index)))
