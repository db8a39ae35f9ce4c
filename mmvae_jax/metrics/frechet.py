"""Frechet distance between two sets of images, by the moments of their features.

With the features of ``load_inception`` it is the FID of Heusel et al. (2017). Features of a
classifier (``Classifier.features``) suit images unlike Inception's training images. Distances
compare only for the same features and the same number of images, because the estimate is biased
upwards for small sets.
"""

import numpy as np
from jaxtyping import Float

from mmvae_jax.metrics.moments import MeanCovariance


def frechet_distance(p: MeanCovariance, q: MeanCovariance) -> float:
    """Returns the squared 2-Wasserstein distance of two normals with the given moments.

    ``|m_p - m_q|^2 + tr C_p + tr C_q - 2 tr (C_p C_q)^(1/2)`` (Dowson and Landau 1982). With
    ``C = F F^T`` the last trace is the sum of the singular values of ``F_p^T F_q``. This needs no
    square root of a non-symmetric matrix, and singular covariances are exact.

    Args:
      p: moments of the features of one set of images, such as real ones.
      q: moments of the features of another set. ``MeanCovariance.merge`` adds up batches.

    Raises:
      ValueError: if p and q differ in the number of features, or either has fewer than two images.

    >>> from mmvae_jax.metrics import mean_covariance
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
    # Rounding may leave a distance of 0 slightly negative.
    return max(float(np.square(p.mean - q.mean).sum() + total - 2 * cross), 0.0)


def _factor(covariance: Float[np.ndarray, "f f"]) -> Float[np.ndarray, "f rank"]:
    """Returns F with F F^T = C, from the eigenvalues of C above rounding error."""
    values, vectors = np.linalg.eigh(covariance)
    noise = len(values) * np.finfo(values.dtype).eps * values[-1]
    kept = values > noise
    return vectors[:, kept] * np.sqrt(values[kept])
