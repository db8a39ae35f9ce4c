"""Means, variances and covariances of batches that can be merged, in double precision on the host.

Merging is the update of Chan, Golub and LeVeque (1983). It sums deviations from the mean instead of
raw squares, so that a mean far from zero costs no digits.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Real

# NumPy arithmetic turns arrays without axes into scalars.
Entries = Float[np.ndarray | np.float64, "*shape"]


class MeanVariance(NamedTuple):
    """Mean and variance of each entry of arrays, from ``mean_variance``.

    Attributes:
      num_rows: number of rows.
      mean: mean, ``[*shape]``; 0 without rows.
      squares: sum of squared deviations from the mean, ``[*shape]``.
    """

    num_rows: int
    mean: Entries
    squares: Entries

    @property
    def variance(self) -> Entries:
        """Mean squared deviation; NaN without rows."""
        return self.squares / (self.num_rows or np.nan)

    @property
    def standard_error(self) -> Entries:
        """Standard error of the mean of independent rows; NaN for fewer than two."""
        return np.sqrt(self.squares / (max(self.num_rows - 1, 0) * self.num_rows or np.nan))

    def merge(self, other: "MeanVariance") -> "MeanVariance":
        """Returns the moments of the rows of both."""
        count, share, delta = _merged(self, other)
        squares = self.squares + other.squares + delta**2 * share * self.num_rows
        return MeanVariance(count, self.mean + delta * share, squares)


class MeanCovariance(NamedTuple):
    """Mean and covariance of vectors, from ``mean_covariance``.

    Attributes:
      num_rows: number of vectors.
      mean: mean, ``[f]``; 0 without vectors.
      scatter: sum of the outer products of deviations from the mean, ``[f f]``.
    """

    num_rows: int
    mean: Float[np.ndarray, " f"]
    scatter: Float[np.ndarray, "f f"]

    @property
    def covariance(self) -> Float[np.ndarray, "f f"]:
        """Unbiased estimate, with ``num_rows - 1`` in the denominator.

        Raises:
          ValueError: if there are fewer than two vectors.
        """
        if self.num_rows < 2:
            raise ValueError(
                f"num_rows is {self.num_rows}: give at least two vectors for a covariance"
            )
        return self.scatter / (self.num_rows - 1)

    def merge(self, other: "MeanCovariance") -> "MeanCovariance":
        """Returns the moments of the vectors of both."""
        count, share, delta = _merged(self, other)
        between = np.outer(delta, delta) * share * self.num_rows
        scatter = self.scatter + other.scatter + between
        return MeanCovariance(count, self.mean + delta * share, scatter)


def mean_variance(
    x: Real[Array | np.ndarray, "n *shape"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> MeanVariance:
    """Returns mean and variance of each entry over the rows where ``mask`` is True.

    >>> some, more = mean_variance(np.array([1.0, 2.0])), mean_variance(np.array([6.0]))
    >>> float(some.merge(more).mean), float(some.merge(more).variance.round(3))
    (3.0, 4.667)
    """
    rows = _rows(x, mask)
    mean = rows.sum(0) / max(len(rows), 1)
    return MeanVariance(len(rows), mean, np.square(rows - mean).sum(0))


def mean_covariance(
    x: Real[Array | np.ndarray, "n f"], mask: Bool[Array | np.ndarray, " n"] | None = None
) -> MeanCovariance:
    """Returns mean and covariance of the rows where ``mask`` is True.

    >>> first, second = mean_covariance(np.eye(2)), mean_covariance(np.ones((2, 2)))
    >>> first.merge(second).mean
    array([0.75, 0.75])
    """
    rows = _rows(x, mask)
    mean = rows.sum(0) / max(len(rows), 1)
    deviations = rows - mean
    return MeanCovariance(len(rows), mean, deviations.T @ deviations)


def _rows(x: Array | np.ndarray, mask: Array | np.ndarray | None) -> np.ndarray:
    rows = np.asarray(x, np.float64)
    return rows if mask is None else rows[np.asarray(mask)]


def _merged(a: MeanVariance | MeanCovariance, b: MeanVariance | MeanCovariance):
    """Returns the number of rows of both, b's share of them, and b's mean minus a's."""
    count = a.num_rows + b.num_rows
    return count, b.num_rows / max(count, 1), b.mean - a.mean
