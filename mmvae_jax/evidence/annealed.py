"""Likelihoods by annealed importance sampling, and how exact these are on simulated data.

Chains move from the prior to the posterior by Hamiltonian Monte Carlo
(``mmvae_jax.maths.annealing``). No encoder takes part: no expert has to cover the posterior.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from mmvae_jax.batch import AnyBatch, Batch, Observed, observe
from mmvae_jax.checks import check_count, check_positive
from mmvae_jax.generative import likelihood_of_examples
from mmvae_jax.inference import decode
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.maths.annealing import (
    NUM_PILOTS,
    Annealed,
    Path,
    anneal,
    anneal_back,
    sigmoid_schedule,
)
from mmvae_jax.maths.prior import draw_prior, prior_components, prior_log_prob
from mmvae_jax.maths.tiles import in_parts
from mmvae_jax.maths.weights import effective_sample_size
from mmvae_jax.model import MMVAE, evaluation, tile_size


class AnnealedDiagnostics(NamedTuple):
    """Diagnostics of an estimate by annealed importance sampling.

    Attributes:
      ess: effective number of chains, ``(sum w)^2 / sum w^2``, between 1 and their number.
      acceptance: mean acceptance probability of the transitions. Far from 0.65, the step size did
        not settle: use more temperatures, or another ``step_size``.
    """

    ess: Float[Array, " b"]
    acceptance: Float[Array, " b"]


class NllBounds(NamedTuple):
    """Stochastic bounds of -log p(X) in nats: each holds on average over keys."""

    lower: Float[Array, " b"]
    upper: Float[Array, " b"]


class _Settings(NamedTuple):
    """Counts of the public functions, and the number of chains per decoder call; static."""

    num_chains: int
    num_temperatures: int
    num_leapfrog: int
    size: int


def compute_joint_nll_ais(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    num_chains: int = 16,
    num_temperatures: int = 200,
    num_leapfrog: int = 10,
    step_size: float = 0.1,
    batch_size_K: int | None = None,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], AnnealedDiagnostics]:
    """Estimates -log p(X) of the observed modalities by annealed importance sampling.

    It serves data whose posterior no expert covers, where ``compute_joint_nll`` is far too large at
    any affordable K. Chains start at draws of the prior, pass through the densities
    ``p(z) p(X|z)^beta`` and make one Hamiltonian Monte Carlo transition at each (Neal 2001; Wu et
    al. 2017, arXiv 1611.04273). The mean weight is unbiased for p(X), hence the estimate is too
    large on average, and exact in the limit of many temperatures or chains. Likelihoods are not
    rescaled, and beta of the config does not enter. ``bound_joint_nll_ais`` measures the error.

    The cost is ``(num_chains + 4) num_temperatures num_leapfrog`` gradients of the decoders per
    example: 4 more chains adapt the step size to an acceptance of 0.65, example by example, from
    earlier temperatures. These carry no weight, so that the adaptation causes no bias.

    Args:
      model: an MMVAE.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness.
      num_chains: number of chains of each example that are averaged.
      num_temperatures: number of steps from the prior to the posterior.
      num_leapfrog: number of leapfrog steps of a transition.
      step_size: leapfrog step at the first temperature, in units of the prior's scale.
      batch_size_K: number of chains per decoder call, of all examples together. It changes memory
        and speed, not the answer. By default 64 on CPU (256 for decoders without convolutions),
        and 4096 elsewhere.
      return_diagnostics: also return ``AnnealedDiagnostics``.

    Returns:
      Nats per example; 0 where nothing is observed.

    Raises:
      ValueError: for a batch that does not fit, counts below 1, or a step size of 0 or less.

    >>> nll, diagnostics = mm.compute_joint_nll_ais(
    ...     model, batch, jax.random.key(0), num_temperatures=20, return_diagnostics=True)
    >>> nll.shape, bool((diagnostics.ess <= 16).all())
    ((5,), True)
    """
    settings = _checked(model, num_chains, num_temperatures, num_leapfrog, step_size, batch_size_K)
    observed = observe(model.config, batch, allow_absent=True)
    nll, diagnostics = _estimate(*evaluation(model), observed, step_size, as_key(key), settings)
    nll = jnp.where(observed.mask.any(0), nll, 0)
    return (nll, diagnostics) if return_diagnostics else nll


def bound_joint_nll_ais(
    model: MMVAE,
    num_examples: int,
    key: PRNGKeyArray,
    *,
    mask: Mapping[str, ArrayLike] | None = None,
    num_chains: int = 16,
    num_temperatures: int = 200,
    num_leapfrog: int = 10,
    step_size: float = 0.1,
    batch_size_K: int | None = None,
) -> NllBounds:
    """Bounds -log p(X) of examples that the model draws, from both sides.

    Bidirectional Monte Carlo (Grosse et al. 2015, arXiv 1511.02543; Wu et al. 2017). The latent
    that an example was drawn with is an exact draw of its posterior. Chains that run from it to the
    prior bound -log p(X) from below on average, as those of ``compute_joint_nll_ais`` do from
    above. The gap says how exact this setting of ``compute_joint_nll_ais`` is for data like the
    model's.

    Args:
      model: an MMVAE.
      num_examples: number of examples to draw.
      key: randomness.
      mask: True where a modality of an example is observed, ``[num_examples]`` per modality; by
        default all are.
      num_chains: number of chains of each example, in either direction.
      num_temperatures: number of steps between the prior and the posterior.
      num_leapfrog: number of leapfrog steps of a transition.
      step_size: leapfrog step at the first temperature, in units of the prior's scale.
      batch_size_K: number of chains per decoder call, of all examples together.

    Returns:
      Lower and upper bounds in nats, one of each per example; 0 where nothing is observed.

    Raises:
      ValueError: for likelihoods without draws, masks that do not fit, counts below 1, or a step
        size of 0 or less.

    >>> bounds = mm.bound_joint_nll_ais(model, 3, jax.random.key(0), num_temperatures=20)
    >>> bounds.lower.shape, bounds.upper.shape
    ((3,), (3,))
    """
    num_examples = check_count("num_examples", num_examples)
    settings = _checked(model, num_chains, num_temperatures, num_leapfrog, step_size, batch_size_K)
    prior_key, data_key, run_key = jax.random.split(as_key(key), 3)
    family, axes, prior = model.config.family, model.config.axes, model.prior
    components = prior_components(family, axes, prior)
    z = draw_prior(family, components, prior.clusters, prior_key, (num_examples,))
    drawn = Batch(decode(model, z, key=data_key, sample=True), mask)
    observed = observe(model.config, drawn)
    bounds = _bound(*evaluation(model), observed, z, step_size, run_key, settings)
    return NllBounds(*(jnp.where(observed.mask.any(0), bound, 0) for bound in bounds))


@partial(jax.jit, static_argnames=("graphdef", "settings"))
def _estimate(
    graphdef,
    state,
    observed: Observed,
    step_size: Float[ArrayLike, ""],
    key: PRNGKeyArray,
    settings: _Settings,
) -> tuple[Float[Array, " b"], AnnealedDiagnostics]:
    """Returns nats per example, meaningless where nothing is observed, and diagnostics."""
    forward, _ = _runs(nnx.merge(graphdef, state, copy=True), observed, step_size, key, settings)

    def of_examples(index: Int[Array, " e"]):
        annealed = forward(index)
        ess = effective_sample_size(jax.nn.softmax(annealed.log_w, axis=0)[None])[0]
        diagnostics = AnnealedDiagnostics(ess, annealed.acceptance.mean(0))
        return -_log_mean(annealed.log_w), diagnostics

    return _over_examples(of_examples, observed.mask.shape[1], settings)


@partial(jax.jit, static_argnames=("graphdef", "settings"))
def _bound(
    graphdef,
    state,
    observed: Observed,
    z: Float[Array, "b d"],
    step_size: Float[ArrayLike, ""],
    key: PRNGKeyArray,
    settings: _Settings,
) -> NllBounds:
    """Returns both bounds, meaningless where nothing is observed, given exact posterior draws z."""
    model = nnx.merge(graphdef, state, copy=True)
    forward, backward = _runs(model, observed, step_size, key, settings)

    def of_examples(index: Int[Array, " e"]) -> NllBounds:
        annealed = forward(index)
        log_w = backward(index, z[index], annealed.step_size)
        return NllBounds(_log_mean(log_w), -_log_mean(annealed.log_w))

    return _over_examples(of_examples, observed.mask.shape[1], settings)


def _runs(
    model: MMVAE,
    observed: Observed,
    step_size: Float[ArrayLike, ""],
    key: PRNGKeyArray,
    settings: _Settings,
) -> tuple[Callable[..., Annealed], Callable[..., Float[Array, "g e"]]]:
    """Returns the forward and the backward run, as functions of the numbers of some examples.

    Both use the same random numbers for every example.
    """
    family, axes, prior = model.config.family, model.config.axes, model.prior
    components = prior_components(family, axes, prior)
    scale = components.scale[0]
    log_likelihood = likelihood_of_examples(model, observed)
    betas = sigmoid_schedule(settings.num_temperatures, scale.dtype)
    start_key, forward_key, backward_key = jax.random.split(key, 3)
    num_started = NUM_PILOTS + settings.num_chains
    start = draw_prior(family, components, prior.clusters, start_key, (num_started, 1))
    first_step = jnp.asarray(step_size, scale.dtype)

    def path(index: Int[Array, " e"]) -> Path:
        log_prior = partial(prior_log_prob, family, axes, prior)
        return Path(log_prior, partial(log_likelihood, index), scale, settings.num_leapfrog)

    def forward(index: Int[Array, " e"]) -> Annealed:
        z = jnp.broadcast_to(start, (num_started, len(index), axes.size))
        return anneal(path(index), z, betas, first_step, forward_key)

    def backward(
        index: Int[Array, " e"], z: Float[Array, "e d"], steps: Float[Array, "t e"]
    ) -> Float[Array, "g e"]:
        chains = jnp.broadcast_to(z[None], (settings.num_chains, *z.shape))
        return anneal_back(path(index), chains, betas, steps, backward_key)

    return forward, backward


def _over_examples(
    of_examples: Callable[[Int[Array, " e"]], PyTree], num_examples: int, settings: _Settings
) -> PyTree:
    """Returns the results ``[b]`` of all examples, all chains of some examples at a time."""
    width = max(1, settings.size // (settings.num_chains + NUM_PILOTS))
    index, _ = in_parts(num_examples, width)
    found = jax.lax.map(of_examples, index)
    return jax.tree.map(lambda a: a.ravel()[:num_examples], found)


def _log_mean(log_w: Float[Array, "g e"]) -> Float[Array, " e"]:
    return jax.nn.logsumexp(log_w, axis=0) - jnp.log(jnp.asarray(len(log_w), log_w.dtype))


def _checked(
    model: MMVAE,
    num_chains: Any,
    num_temperatures: Any,
    num_leapfrog: Any,
    step_size: Any,
    batch_size_K: Any,
) -> _Settings:
    check_positive("step_size", step_size)
    size = tile_size(model) if batch_size_K is None else batch_size_K
    return _Settings(
        num_chains=check_count("num_chains", num_chains),
        num_temperatures=check_count("num_temperatures", num_temperatures),
        num_leapfrog=check_count("num_leapfrog", num_leapfrog),
        size=check_count("batch_size_K", size),
    )
