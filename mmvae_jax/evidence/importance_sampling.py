"""Likelihoods by importance sampling from a mixture of experts and the prior.

Particles are stratified over the mixture's components and their weights averaged in log space,
tile by tile with a running logsumexp: memory depends on the tile and not on the number of particles
(under ``jax.grad``, which stores every tile, it does). The largest weights are kept for Pareto
k-hat, about ``3 sqrt(K)`` of them.

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
from mmvae_jax.generative import log_likelihoods, proposal_of, split_theta
from mmvae_jax.maths.pareto import Diagnostics, keep_largest, pareto_k, tail_size
from mmvae_jax.maths.particles import Draws, draw, standard_draws
from mmvae_jax.maths.prior import draw_clusters, prior_log_prob
from mmvae_jax.maths.proposal import Proposal, components_of, particle_ends
from mmvae_jax.maths.tiles import TileRows, over_tiles
from mmvae_jax.model import MMVAE, evaluation

BLOCK = 128
NARROWEST = 16  # examples of a tile on CPU: what the last block is rounded up to


class Task(NamedTuple):
    """The likelihoods to estimate, and the particles to spend; static.

    Attributes:
      targets: sets of modalities whose likelihoods are estimated.
      K: number of particles of each example, or of each expert with ``every_expert``.
      size: number of particles per decoder call.
      every_expert: K particles of every observed expert, instead of K spread over them.
      rescaled: multiply log-likelihoods by the config's factors.
      plain: average p(x|z) itself, without the weight p(z) / q(z).
      prior_share: share of particles from the prior.
    """

    targets: tuple[tuple[str, ...], ...]
    K: int
    size: int
    every_expert: bool = False
    rescaled: bool = False
    plain: bool = False
    prior_share: float = 0.0

    @property
    def num_largest(self) -> int:
        """Number of the largest weights to keep: the tail for Pareto k-hat, and its threshold."""
        return 1 if self.every_expert or self.plain else tail_size(self.K) + 1


class _Running(NamedTuple):
    """The largest log weights, descending, and sums of weights relative to the largest one."""

    largest: Float[Array, "t n b"]
    total: Float[Array, "t b"]
    squares: Float[Array, "t b"]


def estimate(
    model: MMVAE, observed: Observed, available: Bool[Array, "m b"], key: PRNGKeyArray, task: Task
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """Returns the log mean weight and diagnostics ``[t b]`` of every set of targets.

    Args:
      model: an MMVAE.
      observed: checked examples.
      available: True for the experts to sample from.
      key: randomness.
      task: the likelihoods to estimate.
    """
    graphdef, state = evaluation(model)
    num_examples = available.shape[1]
    blocks = []
    for first in range(0, num_examples, BLOCK):
        count = min(BLOCK, num_examples - first)
        cut = partial(_cut, first=first, count=count)
        data = jax.tree.map(partial(cut, axis=0), observed.data)
        part = Observed(data, cut(observed.mask, axis=1))
        blocks.append(_of_block(graphdef, state, part, cut(available, axis=1), count, key, task))
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
    available: Bool[Array, "m b"],
    num_examples: Int[ArrayLike, ""],
    key: PRNGKeyArray,
    task: Task,
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """Returns the result of ``estimate`` for one block, whose first ``num_examples`` count."""
    model = nnx.merge(graphdef, state, copy=True)
    proposal = proposal_of(model, observed, available, task.prior_share)
    available = proposal.available
    experts, family, prior = proposal.components, model.config.family, model.prior
    offset_key, noise_key = jax.random.split(key)
    dim, dtype = experts.loc.shape[-1], experts.loc.dtype
    offset = jax.random.uniform(offset_key, dtype=dtype)
    ends = particle_ends(available, task.K, task.prior_share, offset)
    weigher = _weigher(model, observed, proposal, task)

    def of_examples(index: Int[Array, " e"]):
        at, ends_at, log_weights = proposal.at(index), ends[:, index], weigher(index)

        def add(running: _Running, rows: TileRows) -> tuple[_Running, None]:
            shape = (len(rows.number), len(index))
            if task.every_expert:
                source = jnp.broadcast_to((rows.number // task.K)[:, None], shape)
                counts = jnp.take_along_axis(at.available, source, axis=0)
            else:
                source = components_of(rows.number, ends_at, at.available)
                cluster = draw_clusters(prior, offset_key, rows.number[:, None])
                source = at.with_clusters(source, cluster)
                counts = jnp.ones(shape, bool)
            # One draw for all examples of a number.
            noise = standard_draws(family, noise_key, rows.number[:, None], dim, dtype)
            log_w = log_weights(draw(at.components, Draws(source, noise)))
            counts &= rows.counts[:, None]
            return _accumulate(running, jnp.where(counts[None], log_w, -jnp.inf)), None

        shape = (len(task.targets), task.num_largest, len(index))
        zeros = jnp.zeros(shape[::2], dtype)
        return _Running(jnp.full(shape, -jnp.inf, dtype), zeros, zeros), add

    num_particles = task.K * len(available) if task.every_expert else task.K
    width = max(NARROWEST, task.size // 32)
    running, _ = over_tiles(
        of_examples, num_particles, BLOCK, task.size, width=width, num_active=num_examples
    )
    num_sources = jnp.maximum(available.sum(0), 1) if task.every_expert else jnp.ones(BLOCK)
    return _result(running, jnp.log(task.K * num_sources.astype(dtype)))


def _result(
    running: _Running, log_count: Float[Array, " b"]
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """Returns the log mean weight and the diagnostics of finished sums."""
    # The examples that pad a block have no weights; 0 / 0 would stop jax_debug_nans.
    total, squares = (jnp.where(a > 0, a, 1) for a in (running.total, running.squares))
    log_p = running.largest[:, 0] + jnp.log(total) - log_count[None]
    k = pareto_k(jnp.moveaxis(running.largest, 1, 0))
    return log_p, Diagnostics(total**2 / squares, 1 / total, k)


def _weigher(model: MMVAE, observed: Observed, proposal: Proposal, task: Task):
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
        at = proposal.at(index)

        def log_weights(z: Float[Array, "g e d"]) -> Float[Array, "t g e"]:
            each = log_likelihoods(config, graphdef, theta, (rest, None), rows, z)
            each = jnp.where(mask, each, 0)
            # TF32, JAX's default for products on a GPU, would round log densities to 11 bits.
            log_p = jnp.tensordot(jnp.asarray(counted, each.dtype), each, 1, precision="highest")
            if task.plain:
                return log_p
            log_prior = prior_log_prob(family, config.axes, theta.prior, z)
            log_ratio = log_prior - at.log_prob(family, z, log_prior)
            return log_p + log_ratio[None]

        return log_weights

    return of_examples


def _accumulate(running: _Running, log_w: Float[Array, "t c b"]) -> _Running:
    # The sums' gradient does not depend on what they are relative to.
    largest = keep_largest(running.largest, jax.lax.stop_gradient(log_w))
    finite = jnp.where(jnp.isfinite(largest[:, 0]), largest[:, 0], 0)
    shrink = jnp.exp(running.largest[:, 0] - finite)
    w = jnp.exp(log_w - finite[:, None])
    return _Running(
        largest,
        running.total * shrink + w.sum(1),
        running.squares * shrink**2 + jnp.square(w).sum(1),
    )
