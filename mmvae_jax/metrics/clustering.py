"""k-means clustering of latents, scored against classes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import linear_sum_assignment


class Clustering(NamedTuple):
    """Agreement of clusters and classes, from ``score_clusters``.

    Attributes:
      accuracy: share of examples in the cluster matched with their class, in 0 to 1.
      nmi: mutual information of clusters and classes over the mean of their entropies, in 0 to 1.
      ari: Rand index adjusted for chance (Hubert and Arabie 1985): 1 at best, 0 by chance.
    """

    accuracy: float
    nmi: float
    ari: float


def cluster_latents(
    z: Float[Array | np.ndarray, "n d"],
    labels: Int[Array | np.ndarray, " _n"],
    *,
    num_clusters: int,
    seed: int = 0,
    num_starts: int = 10,
) -> Clustering:
    """Returns the agreement of k-means clusters of latents with the classes.

    Protocol: scikit-learn's ``KMeans`` with Lloyd's algorithm, the best of ``num_starts`` k-means++
    starts, euclidean distances, axes not standardised.

    Args:
      z: latents, such as posterior means.
      labels: class of each latent, used only for the scores.
      num_clusters: number of clusters.
      seed: seed of the starts.
      num_starts: number of starts.

    Raises:
      ValueError: if latents hold NaN or infinity, are fewer than the clusters, or differ from the
        labels in number.
      ImportError: if scikit-learn is missing.

    >>> z = np.repeat([[0.0, 0.0], [9.0, 9.0]], 10, axis=0)
    >>> cluster_latents(z, np.repeat([4, 2], 10), num_clusters=2).accuracy
    1.0
    """
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            "cluster_latents needs scikit-learn: pip install 'mmvae_jax[experiments]'"
        ) from error
    kmeans = KMeans(
        num_clusters,
        n_init=num_starts,  # pyright: ignore[reportArgumentType] (inferred from the default, "auto")
        random_state=seed,
    )
    # Threads synchronise at every step: on shared cores one thread is far faster.
    with threadpool_limits(1):
        clusters = kmeans.fit_predict(np.asarray(z))
    return score_clusters(clusters, labels)


def score_clusters(
    clusters: Int[Array | np.ndarray, " n"], labels: Int[Array | np.ndarray, " _n"]
) -> Clustering:
    """Returns the agreement of any clusters with the classes.

    Args:
      clusters: cluster of each example, such as the ``argmax`` of ``mm.predict_clusters``.
      labels: class of each example.

    Raises:
      ValueError: if there is no example, or clusters and labels differ in number.
      ImportError: if scikit-learn is missing.

    >>> score_clusters(np.array([5, 5, 7, 7]), np.array([1, 1, 0, 0]))
    Clustering(accuracy=1.0, nmi=1.0, ari=1.0)
    """
    try:
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    except ImportError as error:
        raise ImportError(
            "score_clusters needs scikit-learn: pip install 'mmvae_jax[experiments]'"
        ) from error
    clusters, labels = np.asarray(clusters), np.asarray(labels)
    return Clustering(
        accuracy=matched_accuracy(clusters, labels),
        nmi=float(normalized_mutual_info_score(labels, clusters)),
        ari=float(adjusted_rand_score(labels, clusters)),
    )


def matched_accuracy(
    clusters: Int[Array | np.ndarray, " n"], labels: Int[Array | np.ndarray, " _n"]
) -> float:
    """Returns the share of examples in the cluster matched with their class, for the best match.

    Clusters and classes are matched one to one (Kuhn 1955, "The Hungarian method"); examples of
    unmatched clusters or classes count as wrong.

    Raises:
      ValueError: if there is no example, or clusters and labels differ in number.

    >>> matched_accuracy(np.array([5, 5, 7, 7]), np.array([1, 1, 0, 1]))
    0.75
    """
    if len(clusters) != len(labels) or not len(labels):
        raise ValueError(
            f"clusters has {len(clusters)} examples and labels has {len(labels)}: give the same "
            "number, at least one"
        )
    _, cluster = np.unique(clusters, return_inverse=True)
    _, label = np.unique(labels, return_inverse=True)
    together = np.zeros((cluster.max() + 1, label.max() + 1), int)
    np.add.at(together, (cluster, label), 1)
    matched = together[linear_sum_assignment(together, maximize=True)]
    return float(matched.sum() / len(label))
