"""Linear probe: accuracy of a linear classifier of latents."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, as_arrays
from mmvae_jax.generative import single_components
from mmvae_jax.inputs.keys import as_optional_key
from mmvae_jax.metrics.expert_posteriors import posteriors_of
from mmvae_jax.model import MMVAE


def latent_probe(
    train_z: Float[Array | np.ndarray, "train d"],
    train_labels: Int[Array | np.ndarray, " train"],
    test_z: Float[Array | np.ndarray, "test d"],
    test_labels: Int[Array | np.ndarray, " test"],
    *,
    standardise: bool = True,
    C: float = 1.0,
) -> float:
    """Returns the accuracy of a linear classifier on latents of unseen examples, in 0 to 1.

    Protocol: each latent axis is standardised by its mean and standard deviation over ``train_z``.
    A multinomial logistic regression with L2 penalty (scikit-learn's ``LogisticRegression``, L-BFGS
    until convergence) is fitted to ``train_z`` and scored on ``test_z``.

    Args:
      train_z: latents of training examples; posterior means make the probe repeatable.
      train_labels: class of each training example.
      test_z: latents of test examples.
      test_labels: class of each test example.
      standardise: False leaves the axes as they are.
      C: weight of the data against the penalty ``|w|^2 / 2``.

    Raises:
      ValueError: if latents hold NaN or infinity, or latents and labels differ in number.
      ImportError: if scikit-learn is missing.

    >>> z = np.repeat([[0.0, 0.0], [9.0, 9.0]], 10, axis=0)
    >>> latent_probe(z, np.repeat([0, 1], 10), z[::10], np.array([0, 1]))
    1.0
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            "latent_probe needs scikit-learn: pip install 'mmvae_jax[experiments]'"
        ) from error
    regression = LogisticRegression(C=C, max_iter=1000)
    probe = make_pipeline(StandardScaler(), regression) if standardise else regression
    with threadpool_limits(1):  # as in `cluster_latents`
        probe.fit(np.asarray(train_z), np.asarray(train_labels))
    return float(probe.score(np.asarray(test_z), np.asarray(test_labels)))


def latents_of_experts(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    batch_size: int = 512,
) -> dict[str, tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]]:
    """Returns latents and labels by modality, for the examples that have the modality.

    Latents are of the posterior of u given the modality by itself. With ``aggregation="poe"`` this
    is the product of its expert and the prior.

    Args:
      model: an MMVAE.
      data: examples with labels.
      key: randomness of one sample per posterior; None returns posterior means.
      batch_size: number of examples per call of the encoders.

    Raises:
      ValueError: if the data have no labels or do not fit the model.

    >>> labelled = mm.MultimodalArrays(data, labels=np.arange(5))
    >>> z, labels = latents_of_experts(model, labelled)["sound"]
    >>> z.shape
    (5, 2)
    """
    data, key = as_arrays(data), as_optional_key(key)
    if data.labels is None:
        raise ValueError("labels is None: give the class of every example")
    family = model.config.family
    parts: dict[str, list[tuple[Any, Any]]] = {name: [] for name in data.data}
    for number, (batch, (experts, mask)) in enumerate(posteriors_of(model, data, batch_size)):
        assert batch.labels is not None, "the data set has them"
        z, scale = single_components(model, experts)
        if key is not None:
            noise = family.standard(jax.random.fold_in(key, number), z.shape, z.dtype)
            z = z + scale * noise
        for name, part in parts.items():
            m = model.config.modalities.index(name)
            rows = np.asarray(mask[m])
            part.append((np.asarray(z[m])[rows], batch.labels[rows]))
    return {name: _concatenated(part) for name, part in parts.items()}


def _concatenated(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    z, labels = zip(*parts, strict=True)
    return np.concatenate(z), np.concatenate(labels)
