"""Log-likelihoods of a whole data set: joint, marginal and conditional, with standard errors.

Each example's estimate is from ``mmvae_jax.evidence.likelihood_estimates``. Every batch has its own
key, so that errors of the estimates are independent between batches.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, MultimodalArrays
from mmvae_jax.data.batching import eval_batches
from mmvae_jax.evidence.likelihood_estimates import (
    compute_cond_nll_ratio,
    compute_joint_nll,
    compute_marginal_nll,
)
from mmvae_jax.metrics.coherence import Given, given_names
from mmvae_jax.metrics.moments import Entries, MeanVariance, mean_variance
from mmvae_jax.model import MMVAE

#: Given modalities, and the modalities predicted jointly from them.
Condition = tuple[Given, Given]
Estimator = Callable[..., Any]


class LogLikelihoods(NamedTuple):
    """Log-likelihoods in nats per example, with moments over the examples that define each.

    Attributes:
      joint: log p(X) of all observed modalities.
      marginal: log p(x_m) by modality.
      conditional: log p(x_T|x_S) by ``(S, T)``.
    """

    joint: MeanVariance
    marginal: dict[str, MeanVariance]
    conditional: dict[Condition, MeanVariance]


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
    the modality's own expert; of a conditional, the given experts (``compute_cond_nll_ratio``). For
    finite K the joint and the marginals are below the exact values on average; a conditional is the
    difference of two such estimates.

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

    >>> found = measure_log_likelihoods(model, arrays, jax.random.key(0), K=20)
    >>> found.joint.num_rows, sorted(found.marginal)
    (5, ['sound', 'text'])
    """
    everything = tuple(data.data)
    quantities: list[tuple[Estimator, tuple[Given, ...]]] = [(compute_joint_nll, (everything,))]
    for name in everything:
        estimator = partial(compute_marginal_nll, modality=name, cond_mod=name)
        quantities.append((estimator, (name,)))
    for given, predicted in conditional:
        estimator = partial(compute_cond_nll_ratio, cond_mod=given, pred_mods=predicted)
        quantities.append((estimator, (given, predicted)))
    totals = [mean_variance(np.zeros(0))] * len(quantities)
    for number, arrays in enumerate(eval_batches(data, batch_size)):
        keys = jax.random.split(jax.random.fold_in(key, number), len(quantities))
        for i, (estimator, needed) in enumerate(quantities):
            nll = estimator(model, arrays, keys[i], K=K, batch_size_K=batch_size_K)
            defined = np.all([_any_observed(arrays, given) for given in needed], axis=0)
            totals[i] = totals[i].merge(mean_variance(-nll, defined))
    joint, *rest = totals
    marginal = dict(zip(everything, rest, strict=False))
    return LogLikelihoods(
        joint, marginal, dict(zip(conditional, rest[len(marginal) :], strict=True))
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
    return np.any([arrays.mask[name] for name in given_names(given) if name in arrays.mask], axis=0)
