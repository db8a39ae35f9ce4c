"""A linear probe: how much of the class can be read off the latent space."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mmvae_jax.batch import AnyBatch, MultimodalArrays, as_arrays
from mmvae_jax.maths.distributions import family_of
from mmvae_jax.metrics.posteriors import posteriors_of
from mmvae_jax.model import MMVAE

Latents = Literal["means", "samples"]


class Probes(NamedTuple):
    """Accuracies, and how they came about; of ``probe_experts``.

    Attributes:
      accuracy: of each modality's latents, on test examples.
      protocol: in words, to be printed with the numbers.
    """

    accuracy: dict[str, float]
    protocol: str


def latent_probe(
    train_z: Float[Array | np.ndarray, "train d"],
    train_labels: Int[Array | np.ndarray, " train"],
    test_z: Float[Array | np.ndarray, "test d"],
    test_labels: Int[Array | np.ndarray, " test"],
    *,
    standardise: bool = True,
    C: float = 1.0,
) -> float:
    """Returns the accuracy with which a linear classifier tells unseen latents apart.

    Protocol: every latent axis is standardised by its mean and standard deviation over
    ``train_z``, unless told otherwise; a multinomial logistic regression with L2 penalty
    (scikit-learn's ``LogisticRegression``, L-BFGS until convergence) is fitted to ``train_z``; its
    accuracy on ``test_z`` is returned, in 0 to 1.

    Args:
      train_z: latents of training examples; posterior means make the probe repeatable.
      train_labels: their classes.
      test_z: latents of other examples.
      test_labels: their classes.
      standardise: whether to standardise the axes first.
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
            "the latent probe is scikit-learn's: pip install 'mmvae_jax[experiments]'"
        ) from error
    regression = LogisticRegression(C=C, max_iter=1000)
    probe = make_pipeline(StandardScaler(), regression) if standardise else regression
    with threadpool_limits(1):  # as in `cluster_latents`
        probe.fit(np.asarray(train_z), np.asarray(train_labels))
    return float(probe.score(np.asarray(test_z), np.asarray(test_labels)))


def probe_experts(
    model: MMVAE,
    train: MultimodalArrays,
    test: MultimodalArrays,
    key: PRNGKeyArray | None = None,
    *,
    latents: Latents = "means",
    standardise: bool = True,
    C: float = 1.0,
    batch_size: int = 512,
) -> Probes:
    """Returns the accuracy of one ``latent_probe`` for each modality's own posterior.

    Args:
      model: an MMVAE.
      train: examples with labels, to fit to; each probe leaves out those that miss its modality.
      test: examples with labels, to score on, likewise.
      key: randomness of samples.
      latents: the mean of each example's posterior, or one sample of it, as Shi et al. (2019)
        take (theirs are not standardised, and have no penalty).
      standardise: as in ``latent_probe``.
      C: as in ``latent_probe``.
      batch_size: examples that go through the encoders at a time.

    Raises:
      ValueError: if there are no labels or no key to sample with, or data do not fit the model.
      ImportError: if scikit-learn is missing.
    """
    if latents not in ("means", "samples") or (latents == "samples") != (key is not None):
        raise ValueError(
            f"latents is {latents!r} and key is {key}: give 'means' without a key, or 'samples' "
            "with one"
        )
    keys = (None, None) if key is None else jax.random.split(key)
    fit = latents_of_experts(model, train, keys[0], batch_size=batch_size)
    score = latents_of_experts(model, test, keys[1], batch_size=batch_size)
    accuracy = {
        name: latent_probe(*fit[name], *score[name], standardise=standardise, C=C) for name in fit
    }
    axes = "standardised" if standardise else "plain"
    protocol = f"logistic regression, L2 penalty, C={C:g}, on {axes} {latents} of the posteriors"
    return Probes(accuracy, protocol)


def latents_of_experts(
    model: MMVAE,
    data: AnyBatch,
    key: PRNGKeyArray | None = None,
    *,
    batch_size: int = 512,
) -> dict[str, tuple[Float[np.ndarray, "n d"], Int[np.ndarray, " n"]]]:
    """Returns latents and labels of the examples that have each modality.

    Args:
      model: an MMVAE.
      data: examples with labels.
      key: draw one sample of each posterior; its mean without a key.
      batch_size: examples that go through the encoders at a time.

    Raises:
      ValueError: if there are no labels, or data do not fit the model.

    >>> labelled = mm.MultimodalArrays(data, labels=np.arange(5))
    >>> z, labels = latents_of_experts(model, labelled)["sound"]
    >>> z.shape
    (5, 2)
    """
    data = as_arrays(data)
    if data.labels is None:
        raise ValueError("labels is None: a probe needs the class of every example")
    family = family_of(model.config.prior_and_posterior_dist)
    parts: dict[str, list[tuple[Any, Any]]] = {name: [] for name in data.data}
    for number, (batch, (experts, mask)) in enumerate(posteriors_of(model, data, batch_size)):
        assert batch.labels is not None, "the data set has them"
        z = experts.loc
        if key is not None:
            noise = family.standard(jax.random.fold_in(key, number), z.shape, z.dtype)
            z = z + experts.scale * noise
        for name, part in parts.items():
            m = model.config.modalities.index(name)
            rows = np.asarray(mask[m])
            part.append((np.asarray(z[m])[rows], batch.labels[rows]))
    return {name: _concatenated(part) for name, part in parts.items()}


def _concatenated(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    z, labels = zip(*parts, strict=True)
    return np.concatenate(z), np.concatenate(labels)
