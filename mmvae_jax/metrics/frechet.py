"""Frechet distance between sets of images, as any feature extractor sees them.

With the 2048 features of ``mmvae_jax.metrics.inception`` it is the FID of Heusel et al. (2017);
with those of a classifier (``Classifier.features``) it suits images that Inception was not trained
for. Distances compare only with distances of the same extractor and the same number of images,
since the estimate is biased upwards by few.
"""

import functools
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Array, Bool, Float

from mmvae_jax.metrics.moments import MeanCovariance, mean_covariance

#: Images `[n, *input_dim]`, and which of them count.
Images = tuple[Array | np.ndarray, Bool[Array | np.ndarray, " n"] | None]
#: `images [n, *input_dim] -> features [n, f]`.
Features = Callable[..., Float[Array | np.ndarray, "n f"]]


def feature_moments(batches: Iterable[Images], features: Features) -> MeanCovariance:
    """Returns mean and covariance of the features of all images, a batch at a time.

    Args:
      batches: pairs of images ``[n, *input_dim]`` and a mask ``[n]`` of those that count (None if
        all do), such as ``(g.data[name], g.is_given) for g in generations(...)``.
      features: ``images -> [n, f]``.

    Raises:
      ValueError: if there is no batch.

    >>> batches = [(np.zeros((2, 4, 4, 1)), None), (np.ones((2, 4, 4, 1)), np.array([True, False]))]
    >>> feature_moments(batches, lambda x: x.mean((1, 2))).mean.round(3)
    array([0.333])
    """
    moments = (mean_covariance(features(images), mask) for images, mask in batches)
    first = next(moments, None)
    if first is None:
        raise ValueError("batches is empty: give at least one batch of images")
    return functools.reduce(MeanCovariance.merge, moments, first)


def frechet_distance(p: MeanCovariance, q: MeanCovariance) -> float:
    """Returns the squared 2-Wasserstein distance of normals with the given moments.

    ``|m_p - m_q|^2 + tr C_p + tr C_q - 2 tr (C_p C_q)^(1/2)`` (Dowson and Landau 1982). With
    ``C = F F^T`` the last trace is the sum of the singular values of ``F_p^T F_q``: no square root
    of a matrix that is not symmetric, and nothing to add to the diagonal of a singular one.

    Args:
      p: moments of the features of some images, real ones say.
      q: moments of the features of others.

    Raises:
      ValueError: if they differ in the number of features, or if there are fewer than two images.

    >>> x = np.random.default_rng(0).normal(size=(500, 2))
    >>> round(frechet_distance(mean_covariance(x), mean_covariance(x + 3.0)), 6)
    18.0
    """
    if p.mean.shape != q.mean.shape:
        raise ValueError(
            f"p has {len(p.mean)} features and q has {len(q.mean)}: use one extractor for both"
        )
    cross = np.linalg.svd(_factor(p.covariance).T @ _factor(q.covariance), compute_uv=False).sum()
    total = np.trace(p.covariance) + np.trace(q.covariance)
    # Rounding may leave a distance of 0 just below it.
    return max(float(np.square(p.mean - q.mean).sum() + total - 2 * cross), 0.0)


def _factor(covariance: Float[np.ndarray, "f f"]) -> Float[np.ndarray, "f rank"]:
    """F with F F^T = C, by the eigenvalues of C that stand out from rounding."""
    values, vectors = np.linalg.eigh(covariance)
    noise = len(values) * np.finfo(values.dtype).eps * values[-1]
    kept = values > noise
    return vectors[:, kept] * np.sqrt(values[kept])
