"""Correlation of images and captions by canonical correlation analysis (CCA).

Protocol of Shi et al. (2019, section 4.3), after Massiceti et al. (2018, "Visual dialogue without
vision or dialogue"). CCA finds directions of image features and of caption embeddings along which
real training pairs correlate most. The score of a pair is the cosine of its two projections, and
the score of a set is the mean over its pairs. Real test pairs give the ceiling.

The paper takes features of ResNet-101, embeddings of FastText and 40 axes. Here any fixed features
and embeddings serve; scores compare only within one choice of them. Unlike in the paper's code,
projections of the training pairs have variance 1 along every axis.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from mmvae_jax.metrics import mean_covariance


class CCA(NamedTuple):
    """Projections of x and y onto correlated axes, from ``fit_cca``.

    Attributes:
      x_mean: mean of x, ``[p]``.
      y_mean: mean of y, ``[q]``.
      x_axes: directions for x, ``[p a]``.
      y_axes: directions for y, ``[q a]``.
      correlations: correlation of the training projections on each axis, falling, ``[a]``.
    """

    x_mean: Float[np.ndarray, " p"]
    y_mean: Float[np.ndarray, " q"]
    x_axes: Float[np.ndarray, "p a"]
    y_axes: Float[np.ndarray, "q a"]
    correlations: Float[np.ndarray, " a"]

    def score(
        self, x: Float[Array | np.ndarray, "n p"], y: Float[Array | np.ndarray, "n q"]
    ) -> Float[np.ndarray, " n"]:
        """Returns the cosine of each pair's projections, from -1 to 1; 0 for a zero projection."""
        u = (np.asarray(x, np.float64) - self.x_mean) @ self.x_axes
        v = (np.asarray(y, np.float64) - self.y_mean) @ self.y_axes
        norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
        return (u * v).sum(1) / np.where(norms > 0, norms, 1)


def fit_cca(
    x: Float[Array | np.ndarray, "n p"],
    y: Float[Array | np.ndarray, "n q"],
    *,
    num_axes: int = 40,
    ridge: float = 0.0,
) -> CCA:
    """Returns the axes along which the pairs (x, y) correlate most (Hotelling 1936).

    ``W_x^T C_xy W_y = P diag(correlations) Q^T`` with whitening ``W^T C W = 1``; the axes are
    ``W_x P`` and ``W_y Q``.

    Args:
      x: one side of the pairs, such as features of images.
      y: the other side, such as embeddings of captions.
      num_axes: number of axes to keep.
      ridge: variance added to every entry of x and y. Without it, correlations of fewer pairs than
        entries are 1 and mean nothing.

    Raises:
      ValueError: if x and y differ in length, or either varies along fewer than ``num_axes``
        directions.

    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> fit_cca(x, x @ np.diag([1.0, -2.0, 3.0]), num_axes=3).correlations.round(3)
    array([1., 1., 1.])
    """
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} rows and y has {len(y)}: row i of both is pair i")
    num_x = x.shape[1]
    pairs = np.concatenate([np.asarray(x, np.float64), np.asarray(y, np.float64)], axis=1)
    moments = mean_covariance(pairs)
    covariance = moments.covariance
    x_white = _whitening(covariance[:num_x, :num_x], ridge)
    y_white = _whitening(covariance[num_x:, num_x:], ridge)
    rank = min(x_white.shape[1], y_white.shape[1])
    if not 1 <= num_axes <= rank:
        raise ValueError(
            f"num_axes is {num_axes}: choose 1 to {rank}, the directions that both x and y vary in"
        )
    cross = x_white.T @ covariance[:num_x, num_x:] @ y_white
    left, correlations, right = np.linalg.svd(cross, full_matrices=False)
    return CCA(
        moments.mean[:num_x],
        moments.mean[num_x:],
        x_white @ left[:, :num_axes],
        y_white @ right[:num_axes].T,
        correlations[:num_axes],
    )


def _whitening(covariance: Float[np.ndarray, "f f"], ridge: float) -> Float[np.ndarray, "f rank"]:
    """Returns W with W^T (C + ridge) W = 1, on the directions of non-zero variance."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(values.dtype).eps * values[-1]  # the rest is rounding
    return vectors[:, kept] / np.sqrt(values[kept] + ridge)
