"""Likelihoods by importance sampling from a mixture of experts.

Particles are stratified over the mixture's components and their weights averaged in log space,
tile by tile with a running logsumexp: memory depends on the tile and not on the number of particles
(under ``jax.grad``, which stores every tile, it does).

One program, compiled for ``BLOCK`` examples, serves batches of any size. They are cut into blocks,
the last one padded, and tiles of padding are skipped.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped

from mmvae_jax.batch import Observed
from mmvae_jax.generative import log_likelihoods, split_theta
from mmvae_jax.inference import evaluation
from mmvae_jax.maths.distributions import mixture_log_prob, prior_log_prob
from mmvae_jax.maths.particles import Draws, draw, standard_draws
from mmvae_jax.maths.tiles import TileRows, over_tiles
from mmvae_jax.maths.weights import Experts, expert_log_probs, mask_of_mixture, observed_experts
from mmvae_jax.model import MMVAE

BLOCK = 128
NARROWEST = 16  # examples of a tile on CPU: what the last block is rounded up to


class Diagnostics(NamedTuple):
    """Diagnostics of an importance-sampled estimate.

    Attributes:
      ess: effective number of particles, ``(sum w)^2 / sum w^2``, between 1 and their number.
      max_weight: share of the largest weight. Near 1, one particle decides the estimate.
    """

    ess: Float[Array, " b"]
    max_weight: Float[Array, " b"]


class Task(NamedTuple):
    """The likelihoods to estimate, and the particles to spend; static.

    Attributes:
      targets: sets of modalities whose likelihoods are estimated.
      K: number of particles of each example, or of each expert with ``every_expert``.
      size: number of particles per decoder call.
      every_expert: K particles of every observed expert, instead of K spread over them.
      rescaled: multiply log-likelihoods by the config's factors.
      plain: average p(x|z) itself, without the weight p(z) / q_mix(z).
    """

    targets: tuple[tuple[str, ...], ...]
    K: int
    size: int
    every_expert: bool = False
    rescaled: bool = False
    plain: bool = False


class _Running(NamedTuple):
    """Sums of weights, relative to the largest so far, for every set of targets ``[t b]``."""

    largest: Float[Array, "t b"]
    total: Float[Array, "t b"]
    squares: Float[Array, "t b"]


def estimate(
    model: MMVAE, observed: Observed, proposal: Bool[Array, "m b"], key: PRNGKeyArray, task: Task
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """Returns the log mean weight of every set of targets, and diagnostics of the first set."""
    graphdef, state = evaluation(model)
    num_examples = proposal.shape[1]
    blocks = []
    for first in range(0, num_examples, BLOCK):
        count = min(BLOCK, num_examples - first)
        cut = partial(_cut, first=first, count=count)
        data = jax.tree.map(partial(cut, axis=0), observed.data)
        part = Observed(data, cut(observed.mask, axis=1))
        blocks.append(_of_block(graphdef, state, part, cut(proposal, axis=1), count, key, task))
    joined = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=-1), *blocks)
    return jax.tree.map(lambda a: a[..., :num_examples], joined)


def _cut(a: Shaped[Array, "..."], *, first: int, count: int, axis: int) -> Shaped[Array, "..."]:
    """Returns ``count`` entries along the axis, padded to ``BLOCK`` with zeros."""
    part = jax.lax.slice_in_dim(a, first, first + count, axis=axis)
    padding = [(0, 0)] * a.ndim
    padding[axis] = (0, BLOCK - count)
    return jnp.pad(part, padding)


@partial(jax.jit, static_argnames=("graphdef", "task"))
def _of_block(
    graphdef,
    state,
    observed: Observed,
    proposal: Bool[Array, "m b"],
    num_examples: Int[ArrayLike, ""],
    key: PRNGKeyArray,
    task: Task,
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """Returns the result of ``estimate`` for one block, whose first ``num_examples`` count."""
    model = nnx.merge(graphdef, state, copy=True)
    experts = observed_experts(model.experts(observed.data), proposal)
    offset_key, noise_key = jax.random.split(key)
    num_particles = task.K * len(proposal) if task.every_expert else task.K
    offset = jax.random.uniform(offset_key, dtype=experts.loc.dtype)
    family = model.config.family
    dim, dtype = experts.loc.shape[-1], experts.loc.dtype
    weigher = _weigher(model, observed, experts, proposal, task)

    def of_examples(index: Int[Array, " e"]):
        at, log_weights = proposal[:, index], weigher(index)
        experts_at = Experts(*(a[:, index] for a in experts))

        def add(running: _Running, rows: TileRows) -> tuple[_Running, None]:
            if task.every_expert:
                source = jnp.broadcast_to(
                    (rows.number // task.K)[:, None], (len(rows.number), len(index))
                )
                counts = jnp.take_along_axis(at, source, axis=0)
            else:
                source = _stratified(at, rows.number, task.K, offset)
                counts = jnp.ones(source.shape, bool)
            # One draw for all examples of a number.
            noise = standard_draws(family, noise_key, rows.number[:, None], dim, dtype)
            log_w = log_weights(draw(experts_at, Draws(source, noise)))
            counts &= rows.counts[:, None]
            return _accumulate(running, jnp.where(counts[None], log_w, -jnp.inf)), None

        start = jnp.full((len(task.targets), len(index)), -jnp.inf, dtype)
        return _Running(start, jnp.zeros_like(start), jnp.zeros_like(start)), add

    width = max(NARROWEST, task.size // 32)
    running, _ = over_tiles(
        of_examples, num_particles, BLOCK, task.size, width=width, num_active=num_examples
    )
    num_sources = jnp.maximum(proposal.sum(0), 1) if task.every_expert else jnp.ones(BLOCK)
    log_count = jnp.log(task.K * num_sources.astype(running.total.dtype))
    log_p = running.largest + jnp.log(running.total) - log_count[None]
    total, squares = running.total[0], running.squares[0]
    return log_p, Diagnostics(total**2 / squares, 1 / total)


def _stratified(
    proposal: Bool[Array, "m b"], index: Int[Array, " c"], K: int, offset: Float[Array, ""]
) -> Int[Array, "c b"]:
    """Returns the expert of each particle, by systematic sampling from those of the proposal.

    Particle k has the quantile ``(k + offset) / K`` with one random offset in [0, 1), so every
    expert gets K / |S| particles, or that rounded up or down, and K / |S| on average over the
    offset. Its rank ``floor(quantile |S|)`` is computed in integers: nothing is lost to rounding.
    """
    observed_first = jnp.argsort(~proposal, axis=0, stable=True)
    num_observed = jnp.maximum(proposal.sum(0), 1)
    shift = jnp.floor(offset * num_observed).astype(num_observed.dtype)
    rank = (index[:, None] * num_observed[None] + shift[None]) // K
    return jnp.take_along_axis(observed_first, jnp.minimum(rank, num_observed[None] - 1), axis=0)


def _weigher(
    model: MMVAE, observed: Observed, experts: Experts, proposal: Bool[Array, "m b"], task: Task
):
    """Returns ``examples [e] -> (z [g e d] -> log weights [t g e])`` of every set of targets."""
    config = model.config
    family = config.family
    wanted = {name for target in task.targets for name in target} & observed.data.keys()
    names = [name for name in config.modalities if name in wanted]
    if not names:  # no target is observed, and the caller discards the answer
        return lambda index: lambda z: jnp.zeros((len(task.targets), *z.shape[:2]), z.dtype)
    graphdef, theta, rest = split_theta(model)
    factors = config.likelihood_factors if task.rescaled else dict.fromkeys(names, 1.0)
    counted = np.array([[factors[n] * (n in target) for n in names] for target in task.targets])
    places = np.array([config.modalities.index(name) for name in names])

    def of_examples(index: Int[Array, " e"]):
        rows = jax.tree.map(lambda x: x[index], {name: observed.data[name] for name in names})
        mask = observed.mask[places][:, index][:, None]
        at = Experts(*(a[:, None, index] for a in experts))
        mixture = mask_of_mixture(proposal[:, index])[:, None]

        def log_weights(z: Float[Array, "g e d"]) -> Float[Array, "t g e"]:
            each = log_likelihoods(config, graphdef, theta, (rest, None), rows, z)
            each = jnp.where(mask, each, 0)
            log_p = jnp.tensordot(jnp.asarray(counted, each.dtype), each, 1)
            if task.plain:
                return log_p
            log_q = expert_log_probs(family, at, z)
            log_posterior = mixture_log_prob(log_q, jnp.broadcast_to(mixture, log_q.shape))
            log_ratio = prior_log_prob(family, theta.prior_log_var, z) - log_posterior
            return log_p + log_ratio[None]

        return log_weights

    return of_examples


def _accumulate(running: _Running, log_w: Float[Array, "t c b"]) -> _Running:
    largest = jnp.maximum(running.largest, log_w.max(1))
    finite = jnp.where(jnp.isfinite(largest), largest, 0)
    shrink = jnp.exp(running.largest - finite)
    w = jnp.exp(log_w - finite[:, None])
    return _Running(
        largest,
        running.total * shrink + w.sum(1),
        running.squares * shrink**2 + jnp.square(w).sum(1),
    )
