"""Log-likelihoods of a whole data set: joint, marginal and conditional, and their reliability.

Each example's estimate is from ``mmvae_jax.evidence.likelihood_estimates``. Every batch has its own
key, so that errors of the estimates are independent between batches.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, MultimodalArrays
from mmvae_jax.data.batching import eval_batches
from mmvae_jax.evidence.likelihood_estimates import (
    compute_cond_nll_ratio,
    compute_joint_nll,
    compute_marginal_nll,
)
from mmvae_jax.inputs.keys import as_key
from mmvae_jax.inputs.masks import observed_rows
from mmvae_jax.inputs.value_checks import check_values
from mmvae_jax.maths.pareto import largest_reliable_k
from mmvae_jax.metrics.coherence import Given, given_names
from mmvae_jax.metrics.moments import Entries, MeanVariance, mean_variance
from mmvae_jax.model import MMVAE

#: Given modalities, and the modalities predicted jointly from them.
Condition = tuple[Given, Given]
Estimator = Callable[..., Any]


class LogLikelihood(NamedTuple):
    """A log-likelihood in nats per example, over the examples that define it.

    Attributes:
      num_rows: number of these examples.
      mean: mean over examples.
      standard_error: standard error of the mean over examples, which does not know the errors of
        the estimates.
      pareto_k: median of the examples' Pareto k-hats (``Diagnostics``).
      unreliable: share of examples whose Pareto k-hat exceeds ``min(1 - 1/log10(K), 0.7)``, or is
        unknown for too few particles. Their estimates are not to be trusted.
    """

    num_rows: int
    mean: float
    standard_error: float
    pareto_k: float
    unreliable: float

    def as_json(self) -> dict[str, float | None]:
        """Returns the numbers by name, without ``num_rows``; None for those that are not finite."""
        values = {name: float(x) for name, x in self._asdict().items() if name != "num_rows"}
        return {name: x if math.isfinite(x) else None for name, x in values.items()}


class LogLikelihoods(NamedTuple):
    """Log-likelihoods of a data set.

    Attributes:
      joint: log p(X) of all observed modalities.
      marginal: log p(x_m) by modality.
      conditional: log p(x_T|x_S) by ``(S, T)``.
    """

    joint: LogLikelihood
    marginal: dict[str, LogLikelihood]
    conditional: dict[Condition, LogLikelihood]


def measure_log_likelihoods(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray,
    *,
    conditional: Sequence[Condition] = (),
    K: int = 1000,
    batch_size: int = 128,
    batch_size_K: int | None = None,
) -> LogLikelihoods:
    """Returns joint, marginal and conditional log-likelihoods of a data set.

    Protocol: importance sampling with K particles for each example and quantity, without rescaling
    of likelihoods. The proposal of the joint is the mixture of the observed experts; of a marginal,
    the modality's own expert; of a conditional, the given experts (``compute_cond_nll_ratio``);
    each with a share of the prior. For finite K the joint and the marginals are below the exact
    values on average; a conditional is the difference of two such estimates.

    Args:
      model: an MMVAE.
      data: examples; an incomplete one counts for the quantities that it defines.
      key: randomness.
      conditional: pairs (given, predicted), each a name or several.
      K: number of particles per example.
      batch_size: number of examples per batch.
      batch_size_K: number of particles per decoder call, as in ``compute_joint_nll``.

    Raises:
      ValueError: if names are unknown or overlap, or the data do not fit the model.

    >>> found = measure_log_likelihoods(model, arrays, jax.random.key(0), K=50)
    >>> found.joint.num_rows, sorted(found.marginal), found.joint.unreliable
    (5, ['sound', 'text'], 0.0)
    """
    everything, key = tuple(data.data), as_key(key)
    quantities: list[tuple[Estimator, tuple[Given, ...]]] = [(compute_joint_nll, (everything,))]
    for name in everything:
        estimator = partial(compute_marginal_nll, modality=name, cond_mod=name)
        quantities.append((estimator, (name,)))
    for given, predicted in conditional:
        estimator = partial(compute_cond_nll_ratio, cond_mod=given, pred_mods=predicted)
        quantities.append((estimator, (given, predicted)))
    totals = [mean_variance(np.zeros(0))] * len(quantities)
    pareto_k: list[list[np.ndarray]] = [[] for _ in quantities]
    check = partial(check_values, model.config, field="data")
    for number, arrays in enumerate(eval_batches(data, batch_size, check=check)):
        keys = jax.random.split(jax.random.fold_in(key, number), len(quantities))
        for i, (estimator, needed) in enumerate(quantities):
            nll, diagnostics = estimator(
                model, arrays, keys[i], K=K, batch_size_K=batch_size_K, return_diagnostics=True
            )
            defined = np.all([_any_observed(arrays, given) for given in needed], axis=0)
            totals[i] = totals[i].merge(mean_variance(-nll, defined))
            pareto_k[i].append(np.asarray(diagnostics.pareto_k)[defined])
    found = [
        _log_likelihood(moments, np.concatenate(k), K)
        for moments, k in zip(totals, pareto_k, strict=True)
    ]
    joint, *rest = found
    marginal = dict(zip(everything, rest, strict=False))
    return LogLikelihoods(
        joint, marginal, dict(zip(conditional, rest[len(marginal) :], strict=True))
    )


def _log_likelihood(
    moments: MeanVariance, pareto_k: Float[np.ndarray, " n"], K: int
) -> LogLikelihood:
    known = len(pareto_k) > 0
    return LogLikelihood(
        moments.num_rows,
        float(moments.mean),
        float(moments.standard_error),
        float(np.median(pareto_k)) if known else math.nan,
        float(np.mean(~(pareto_k <= largest_reliable_k(K)))) if known else math.nan,
    )


def bits_per_dim(
    log_likelihood: float | Entries, input_dim: Sequence[int], *, num_levels: int = 1
) -> float | Entries:
    """Returns bits per dimension, ``-log2 p(x) / D``, of examples with D entries.

    Args:
      log_likelihood: log-likelihood in nats. A density must be of intensities in 0 to 1.
      input_dim: shape of one example.
      num_levels: number of discrete intensities that a density models, 256 for bytes. Each level
        is ``1 / num_levels`` wide, which adds ``log2(num_levels)`` bits per entry. Keep 1 for
        Bernoulli and categorical likelihoods, which are probabilities.

    >>> bits_per_dim(-28 * 28 * math.log(2), (28, 28, 1))
    1.0
    """
    return -log_likelihood / (math.prod(input_dim) * math.log(2)) + math.log2(num_levels)


def _any_observed(arrays: MultimodalArrays, given: Given) -> Bool[np.ndarray, " b"]:
    assert arrays.mask is not None, "eval_batches gives every batch a mask"
    masks = [arrays.mask[name] for name in given_names(given) if name in arrays.mask]
    return np.any([observed_rows(mask) for mask in masks], axis=0)
