"""Importance-sampled likelihoods, in nats, of each example.

Estimators of log p draw z from a defensive mixture of experts and the prior
(``mmvae_jax.maths.proposal``), MultiVae's and the paper's definitions from experts only. The
standard draws are the same for every example of a batch (common random numbers): an example's
answer depends on the key and on the example only, neither on its neighbours nor on
``batch_size_K``. Use another key for another batch, so that errors average out.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, Observed, observe
from mmvae_jax.checks import check_count, check_share
from mmvae_jax.evidence.importance_sampling import Diagnostics, Task, estimate
from mmvae_jax.inference.selection import Selection, modality_mask, modality_names
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.model import MMVAE, tile_size

#: Share of the prior among the particles; ``docs/likelihoods.md`` has the measurements.
PRIOR_SHARE = 0.1


def compute_joint_nll(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    K: int = 1000,
    batch_size_K: int | None = None,
    prior_share: float = PRIOR_SHARE,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], Diagnostics]:
    """Estimates -log p(X) of the observed modalities by importance sampling.

    ``log p(X) ~ log 1/K sum_k p(X|z_k) p(z_k) / q(z_k)`` with z from the defensive mixture ``q(z) =
    (1 - prior_share) q_mix(z|X) + prior_share p(z)`` (Burda et al. 2016, eq. 8, with the proposal
    of Shi et al. 2019 and a share of the prior). Particles are spread evenly over the observed
    experts. The estimate of p(X) is unbiased and converges to the exact value; likelihoods are not
    rescaled, and beta does not enter.

    Args:
      model: an MMVAE.
      batch: examples; modalities that it leaves out count as missing.
      key: randomness.
      K: number of particles of each example.
      batch_size_K: number of particles per decoder call, of all examples together. It changes
        memory and speed, not the answer. By default 64 on CPU (256 for decoders without
        convolutions), and 4096 elsewhere.
      prior_share: share of particles from the prior, at least 0 and below 1. It bounds the weights
        by ``p(X|z) / prior_share`` where experts are too narrow; the effective number of particles
        falls by at most the factor ``1 - prior_share`` where experts are good. With 0, weights may
        have infinite variance.
      return_diagnostics: also return ``Diagnostics``.

    Returns:
      Nats per example; 0 where nothing is observed.

    Raises:
      ValueError: for a batch that does not fit, counts below 1, or a share out of range.

    >>> nll, diagnostics = mm.compute_joint_nll(
    ...     model, batch, jax.random.key(0), K=50, return_diagnostics=True)
    >>> nll.shape, bool((diagnostics.ess <= 50).all()), bool((diagnostics.pareto_k < 0.7).all())
    ((5,), True, True)
    """
    observed, K, size = _observed(model, batch, K, batch_size_K)
    prior_share = check_share("prior_share", prior_share)
    task = Task((model.config.modalities,), K, size, prior_share=prior_share)
    log_p, diagnostics = estimate(model, observed, observed.mask, as_key(key), task)
    nll = jnp.where(observed.mask.any(0), -log_p[0], 0)
    return (nll, _worst(diagnostics)) if return_diagnostics else nll


def compute_joint_nll_paper(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    K: int = 1000,
    batch_size_K: int | None = None,
) -> Float[Array, " b"]:
    """Estimates -log p(X) as the paper's code does: K particles of every expert, rescaled terms.

    The proposal has no share of the prior, so that narrow experts give too small a likelihood. With
    rescale factors other than 1 it is no likelihood, and only compares with numbers computed the
    same way. Arguments, result and errors as in ``compute_joint_nll``.

    >>> mm.compute_joint_nll_paper(model, batch, jax.random.key(0), K=50).shape
    (5,)
    """
    observed, K, size = _observed(model, batch, K, batch_size_K)
    task = Task((model.config.modalities,), K, size, every_expert=True, rescaled=True)
    log_p, _ = estimate(model, observed, observed.mask, as_key(key), task)
    return jnp.where(observed.mask.any(0), -log_p[0], 0)


def compute_marginal_nll(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    modality: str,
    cond_mod: Selection = "all",
    K: int = 1000,
    batch_size_K: int | None = None,
    prior_share: float = PRIOR_SHARE,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], Diagnostics]:
    """Estimates -log p(x_m) by importance sampling from the experts in ``cond_mod``.

    Shi et al. 2019, section 4.

    ``log p(x_m) ~ log 1/K sum_k p(x_m|z_k) p(z_k) / q(z_k)``, with ``q(z) = (1 - prior_share)
    q_mix(z|x_c) + prior_share p(z)`` as in ``compute_joint_nll``. Every proposal converges to the
    same value; the modality's own expert does so fastest.

    Returns:
      Nats per example; NaN where x_m, or all of ``cond_mod``, is missing.

    Raises:
      ValueError: for unknown names, a batch that does not fit, counts below 1, or a share out of
        range.

    >>> mm.compute_marginal_nll(model, batch, jax.random.key(0), modality="text", K=50).shape
    (5,)
    """
    if modality not in model.config.modalities:
        raise ValueError(
            f"modality is {modality!r}: give one name among {list(model.config.modalities)}"
        )
    observed, K, size = _observed(model, batch, K, batch_size_K)
    prior_share = check_share("prior_share", prior_share)
    task = Task(((modality,),), K, size, prior_share=prior_share)
    available = observed.mask & modality_mask("cond_mod", cond_mod, model.config)
    log_p, diagnostics = estimate(model, observed, available, as_key(key), task)
    defined = observed.mask[model.config.modalities.index(modality)] & available.any(0)
    nll = jnp.where(defined, -log_p[0], jnp.nan)
    return (nll, _worst(diagnostics)) if return_diagnostics else nll


def compute_cond_nll(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    cond_mod: Selection,
    pred_mods: Selection = "all",
    K: int = 1000,
    batch_size_K: int | None = None,
) -> dict[str, Float[Array, " b"]]:
    """Estimates ``-log 1/K sum_k p(x_t|z_k)``, plain Monte Carlo with z from q(z|x_cond).

    MultiVae's definition of the conditional likelihood. It treats q(z|x_cond) as if it were the
    true posterior, so z never comes from the prior; ``compute_cond_nll_ratio`` does not.

    Returns:
      ``{modality: [b]}`` in nats; NaN where x_t, or all of ``cond_mod``, is missing.

    Raises:
      ValueError: for unknown names, a batch that does not fit, or counts below 1.

    >>> nll = mm.compute_cond_nll(model, batch, jax.random.key(0), cond_mod="sound", K=50)
    >>> sorted(nll), nll["text"].shape
    (['sound', 'text'], (5,))
    """
    config = model.config
    observed, K, size = _observed(model, batch, K, batch_size_K)
    predicted = modality_names("pred_mods", pred_mods, config)
    task = Task(tuple((name,) for name in predicted), K, size, plain=True)
    available = observed.mask & modality_mask("cond_mod", cond_mod, model.config)
    log_p, _ = estimate(model, observed, available, as_key(key), task)
    nll = {}
    for index, name in enumerate(predicted):
        defined = observed.mask[config.modalities.index(name)] & available.any(0)
        nll[name] = jnp.where(defined, -log_p[index], jnp.nan)
    return nll


def compute_cond_nll_ratio(
    model: MMVAE,
    batch: AnyBatch,
    key: PRNGKeyArray,
    *,
    cond_mod: Selection,
    pred_mods: Selection,
    K: int = 1000,
    batch_size_K: int | None = None,
    prior_share: float = PRIOR_SHARE,
    return_diagnostics: bool = False,
) -> Float[Array, " b"] | tuple[Float[Array, " b"], Diagnostics]:
    """Estimates -log p(x_T|x_S) as ``log p(x_S) - log p(x_T, x_S)``, with the same particles of S.

    Each is estimated by importance sampling from the experts in S (``cond_mod``) and a share of the
    prior, as in ``compute_joint_nll``. The ratio converges to the model's conditional likelihood
    whatever the experts are.

    Returns:
      Nats per example of all observed modalities of T (``pred_mods``) together; NaN where all of
      S, or all of T, is missing. Diagnostics are the worse ones of the two estimates.

    Raises:
      ValueError: for unknown or overlapping names, a batch that does not fit, counts below 1, or a
        share out of range.

    >>> mm.compute_cond_nll_ratio(
    ...     model, batch, jax.random.key(0), cond_mod="sound", pred_mods="text", K=50).shape
    (5,)
    """
    config = model.config
    observed, K, size = _observed(model, batch, K, batch_size_K)
    prior_share = check_share("prior_share", prior_share)
    given = modality_names("cond_mod", cond_mod, config)
    predicted = modality_names("pred_mods", pred_mods, config)
    both = [name for name in given if name in predicted]
    if both:
        raise ValueError(
            f"cond_mod and pred_mods both name {both}: what is conditioned on is not predicted"
        )
    task = Task((given, given + predicted), K, size, prior_share=prior_share)
    available = observed.mask & modality_mask("cond_mod", given, model.config)
    log_p, diagnostics = estimate(model, observed, available, as_key(key), task)
    predictable = (observed.mask & modality_mask("pred_mods", predicted, model.config)).any(0)
    nll = jnp.where(predictable & available.any(0), log_p[0] - log_p[1], jnp.nan)
    return (nll, _worst(diagnostics)) if return_diagnostics else nll


def _worst(diagnostics: Diagnostics) -> Diagnostics:
    """Returns the diagnostics ``[b]`` of the worst set of targets, each by itself."""
    return Diagnostics(
        diagnostics.ess.min(0), diagnostics.max_weight.max(0), diagnostics.pareto_k.max(0)
    )


def _observed(
    model: MMVAE, batch: AnyBatch, K: Any, batch_size_K: Any
) -> tuple[Observed, int, int]:
    """Returns the checked batch, K, and the number of particles per decoder call."""
    K = check_count("K", K)
    size = tile_size(model) if batch_size_K is None else batch_size_K
    size = check_count("batch_size_K", size)
    return observe(model.config, batch, allow_absent=True), K, size
