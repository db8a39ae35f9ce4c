"""Importance-sampled likelihoods, in nats, of each example.

All estimators draw z from a mixture of experts, stratified over its components, and average
weights in log space. Particles come in chunks of a `lax.scan` with a running logsumexp, so memory
depends on the chunk and not on K (under `jax.grad`, which stores every chunk, it does). The
standard draws are the same for every example of a batch (common random numbers): an example's
answer depends on the key and on the example alone, neither on its neighbours nor on the chunk. Use
another key for another batch, so that errors average out.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mmvae_jax.batch import Batch, Observed, observe
from mmvae_jax.config import check_count
from mmvae_jax.distributions import FAMILIES, mixture_log_prob, prior_log_prob
from mmvae_jax.inference import (
    Selection,
    evaluation,
    modality_mask,
    modality_names,
)
from mmvae_jax.model import MMVAE
from mmvae_jax.objective import log_likelihoods
from mmvae_jax.weights import Experts, expert_log_probs, mask_of_mixture, observed_experts


class Diagnostics(NamedTuple):
    """How far to trust an estimate.

    Attributes:
      ess: effective number of particles, ``(sum w)^2 / sum w^2``, between 1 and their number.
      max_weight: share of the largest weight; near 1, one particle decides the estimate.
    """

    ess: Float[Array, " b"]
    max_weight: Float[Array, " b"]


def compute_joint_nll(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    K: int = 1000,
    batch_size_K: int = 100,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], Diagnostics]:
    """-log p(X), of the observed modalities, by importance sampling from the mixture of experts.

    ``log p(X) ~ log 1/K sum_k p(X|z_k) p(z_k) / q_mix(z_k|X)``, with the K particles spread evenly
    over the observed experts (Burda et al. 2016, eq. 8, with the proposal of Shi et al. 2019). It
    converges to the exact value; likelihoods are not rescaled, and beta does not enter.

    Args:
      model: an MMVAE.
      batch: data and mask; modalities that it leaves out count as missing.
      key: randomness.
      K: particles of each example.
      batch_size_K: particles per decoder call; changes memory, not the answer.
      return_diagnostics: also return `Diagnostics`.

    Returns:
      Nats per example; 0 where nothing is observed.

    Raises:
      ValueError: for a batch that does not fit, or counts below 1.
    """
    observed = _observed(model, batch, K, batch_size_K)
    task = _Task((model.config.modalities,), K, batch_size_K)
    log_p, diagnostics = _estimate(*evaluation(model), observed, observed.mask, key, task)
    nll = jnp.where(observed.mask.any(0), -log_p[0], 0)
    return (nll, diagnostics) if return_diagnostics else nll


def compute_joint_nll_paper(
    model: MMVAE, batch: Batch, key: PRNGKeyArray, *, K: int = 1000, batch_size_K: int = 100
) -> Float[Array, " b"]:
    """The joint estimate as in the paper's code: K particles of every expert, rescaled likelihoods.

    With rescale factors other than 1 it is no likelihood, and only compares with numbers computed
    the same way. Arguments, result and errors as in `compute_joint_nll`.
    """
    observed = _observed(model, batch, K, batch_size_K)
    task = _Task((model.config.modalities,), K, batch_size_K, every_expert=True, rescaled=True)
    log_p, _ = _estimate(*evaluation(model), observed, observed.mask, key, task)
    return jnp.where(observed.mask.any(0), -log_p[0], 0)


def compute_marginal_nll(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    modality: str,
    cond_mod: Selection = "all",
    K: int = 1000,
    batch_size_K: int = 100,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], Diagnostics]:
    """-log p(x_m), by importance sampling from the experts in `cond_mod` (Shi et al. 2019, sec. 4).

    ``log p(x_m) ~ log 1/K sum_k p(x_m|z_k) p(z_k) / q_mix(z_k|x_c)``. Every proposal converges to
    the same value; the modality's own expert does so fastest.

    Returns:
      Nats per example; NaN where x_m, or all of `cond_mod`, is missing.

    Raises:
      ValueError: for unknown names, a batch that does not fit, or counts below 1.
    """
    if modality not in model.config.modalities:
        raise ValueError(
            f"modality is {modality!r}: give one name among {list(model.config.modalities)}"
        )
    observed = _observed(model, batch, K, batch_size_K)
    task = _Task(((modality,),), K, batch_size_K)
    proposal = observed.mask & modality_mask("cond_mod", cond_mod, model.config)
    log_p, diagnostics = _estimate(*evaluation(model), observed, proposal, key, task)
    defined = observed.mask[model.config.modalities.index(modality)] & proposal.any(0)
    nll = jnp.where(defined, -log_p[0], jnp.nan)
    return (nll, diagnostics) if return_diagnostics else nll


def compute_cond_nll(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    cond_mod: Selection,
    pred_mods: Selection = "all",
    K: int = 1000,
    batch_size_K: int = 100,
) -> dict[str, Float[Array, " b"]]:
    """Plain Monte Carlo over the posterior, ``-log 1/K sum_k p(x_t|z_k)`` with z from q(z|x_cond).

    MultiVae's definition of the conditional likelihood. It treats q(z|x_cond) as if it were the
    true posterior; `compute_cond_nll_ratio` does not.

    Returns:
      ``{modality: [b]}`` in nats; NaN where x_t, or all of `cond_mod`, is missing.

    Raises:
      ValueError: for unknown names, a batch that does not fit, or counts below 1.
    """
    config = model.config
    observed = _observed(model, batch, K, batch_size_K)
    predicted = modality_names("pred_mods", pred_mods, config)
    task = _Task(tuple((name,) for name in predicted), K, batch_size_K, plain=True)
    proposal = observed.mask & modality_mask("cond_mod", cond_mod, model.config)
    log_p, _ = _estimate(*evaluation(model), observed, proposal, key, task)
    nll = {}
    for index, name in enumerate(predicted):
        defined = observed.mask[config.modalities.index(name)] & proposal.any(0)
        nll[name] = jnp.where(defined, -log_p[index], jnp.nan)
    return nll


def compute_cond_nll_ratio(
    model: MMVAE,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    cond_mod: Selection,
    pred_mods: Selection,
    K: int = 1000,
    batch_size_K: int = 100,
) -> Float[Array, " b"]:
    """-log p(x_T|x_S) as ``log p(x_S) - log p(x_T, x_S)``, both from the same particles of S.

    Each is estimated by importance sampling from the experts in S (`cond_mod`), so that the ratio
    converges to the model's conditional likelihood whatever the experts are.

    Returns:
      Nats per example of all observed modalities of T (`pred_mods`) together; NaN where all of
      S, or all of T, is missing.

    Raises:
      ValueError: for unknown or overlapping names, a batch that does not fit, or counts below 1.
    """
    config = model.config
    observed = _observed(model, batch, K, batch_size_K)
    given = modality_names("cond_mod", cond_mod, config)
    predicted = modality_names("pred_mods", pred_mods, config)
    both = [name for name in given if name in predicted]
    if both:
        raise ValueError(
            f"cond_mod and pred_mods both name {both}: what is conditioned on is not predicted"
        )
    task = _Task((given, given + predicted), K, batch_size_K)
    proposal = observed.mask & modality_mask("cond_mod", given, model.config)
    log_p, _ = _estimate(*evaluation(model), observed, proposal, key, task)
    predictable = (observed.mask & modality_mask("pred_mods", predicted, model.config)).any(0)
    return jnp.where(predictable & proposal.any(0), log_p[0] - log_p[1], jnp.nan)


class _Task(NamedTuple):
    """What to estimate; static.

    Attributes:
      targets: sets of modalities; the likelihood of each set is estimated.
      K: particles of each example, or of each expert with `every_expert`.
      chunk: particles per decoder call.
      every_expert: K particles of every observed expert, instead of K spread over them.
      rescaled: multiply log-likelihoods by the config's factors.
      plain: average p(x|z) itself, without the weight p(z) / q_mix(z).
    """

    targets: tuple[tuple[str, ...], ...]
    K: int
    chunk: int
    every_expert: bool = False
    rescaled: bool = False
    plain: bool = False


class _Running(NamedTuple):
    """Sums of weights relative to the largest so far, for every set of targets ``[t b]``."""

    largest: Float[Array, "t b"]
    total: Float[Array, "t b"]
    squares: Float[Array, "t b"]


@partial(jax.jit, static_argnames=("graphdef", "task"))
def _estimate(
    graphdef, state, observed: Observed, proposal: Bool[Array, "m b"], key, task: _Task
) -> tuple[Float[Array, "t b"], Diagnostics]:
    """log of the mean weight of every set of targets; diagnostics of the first one."""
    model = nnx.merge(graphdef, state, copy=True)
    experts = observed_experts(model.experts(observed.data), proposal)
    offset_key, noise_key = jax.random.split(key)
    num_experts, num_examples, _ = experts.loc.shape
    num_particles = task.K * num_experts if task.every_expert else task.K
    chunk = min(task.chunk, num_particles)
    offset = jax.random.uniform(offset_key, dtype=experts.loc.dtype)

    def add(running: _Running, first: Int[Array, ""]) -> tuple[_Running, None]:
        index = first + jnp.arange(chunk)
        if task.every_expert:
            source = jnp.broadcast_to((index // task.K)[:, None], (chunk, num_examples))
            counts = jnp.take_along_axis(proposal, source % num_experts, axis=0)
        else:
            source = _stratified(proposal, index, task.K, offset)
            counts = jnp.ones((chunk, num_examples), bool)
        counts &= (index < num_particles)[:, None]
        z = _draw(model, experts, source % num_experts, noise_key, index)
        log_w = _log_weights(model, observed, experts, proposal, z, task)
        return _accumulate(running, jnp.where(counts[None], log_w, -jnp.inf)), None

    start = jnp.full((len(task.targets), num_examples), -jnp.inf, experts.loc.dtype)
    firsts = jnp.arange(0, num_particles, chunk)
    empty = _Running(start, jnp.zeros_like(start), jnp.zeros_like(start))
    running, _ = jax.lax.scan(add, empty, firsts)

    num_sources = jnp.maximum(proposal.sum(0), 1) if task.every_expert else jnp.ones(num_examples)
    log_count = jnp.log(task.K * num_sources.astype(start.dtype))
    log_p = running.largest + jnp.log(running.total) - log_count[None]
    total, squares = running.total[0], running.squares[0]
    return log_p, Diagnostics(total**2 / squares, 1 / total)


def _stratified(
    proposal: Bool[Array, "m b"], index: Int[Array, " c"], K: int, offset: Float[Array, ""]
) -> Int[Array, "c b"]:
    """The expert of each particle: systematic sampling from the experts of the proposal.

    Particle k has the quantile ``(k + offset) / K`` with one random offset in [0, 1), so every
    expert gets K / |S| particles, or that rounded up or down, and K / |S| on average over the
    offset. Its rank ``floor(quantile |S|)`` is computed in integers: nothing is lost to rounding.
    """
    observed_first = jnp.argsort(~proposal, axis=0, stable=True)
    num_observed = jnp.maximum(proposal.sum(0), 1)
    shift = jnp.floor(offset * num_observed).astype(num_observed.dtype)
    rank = (index[:, None] * num_observed[None] + shift[None]) // K
    return jnp.take_along_axis(observed_first, jnp.minimum(rank, num_observed[None] - 1), axis=0)


def _draw(
    model: MMVAE, experts: Experts, source: Int[Array, "c b"], key, index: Int[Array, " c"]
) -> Float[Array, "c b d"]:
    """Particles of the given experts; particle k has the standard draw of ``fold_in(key, k)``."""
    family = FAMILIES[model.config.prior_and_posterior_dist]
    dim, dtype = experts.loc.shape[-1], experts.loc.dtype
    noise = jax.vmap(lambda k: family.standard(jax.random.fold_in(key, k), (dim,), dtype))(index)
    example = jnp.arange(source.shape[1])[None]
    return experts.loc[source, example] + experts.scale[source, example] * noise[:, None]


def _log_weights(
    model: MMVAE,
    observed: Observed,
    experts: Experts,
    proposal: Bool[Array, "m b"],
    z: Float[Array, "c b d"],
    task: _Task,
) -> Float[Array, "t c b"]:
    """Log weights of the particles for every set of targets."""
    config = model.config
    chunk, num_examples, dim = z.shape
    flat = z.reshape(-1, dim)

    def rows(a: Array) -> Array:
        return jnp.broadcast_to(a[None], (chunk, *a.shape)).reshape(-1, *a.shape[1:])

    names = tuple(n for n in config.modalities if any(n in target for target in task.targets))
    data = {name: rows(observed.data[name]) for name in names}
    each = log_likelihoods(config, model.decoders, data, flat).reshape(-1, chunk, num_examples)
    factors = config.likelihood_factors
    log_p = []
    for target in task.targets:
        counted = [
            jnp.where(observed.mask[config.modalities.index(name)][None], each[index], 0)
            * (factors[name] if task.rescaled else 1)
            for index, name in enumerate(names)
            if name in target
        ]
        log_p.append(sum(counted[1:], counted[0]))
    if task.plain:
        return jnp.stack(log_p)
    family = FAMILIES[config.prior_and_posterior_dist]
    at_particles = Experts(*(jax.vmap(rows)(a) for a in experts))
    log_q = expert_log_probs(family, at_particles, flat)
    log_ratio = prior_log_prob(family, model.prior_log_var[...], flat) - mixture_log_prob(
        log_q, jax.vmap(rows)(mask_of_mixture(proposal))
    )
    return jnp.stack(log_p) + log_ratio.reshape(1, chunk, num_examples)


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


def _observed(model: MMVAE, batch: Batch, K: int, batch_size_K: int) -> Observed:
    check_count("K", K)
    check_count("batch_size_K", batch_size_K)
    return observe(model.config, batch, allow_absent=True)
