"""Latents: laid out in the plane, and on the way from one to another."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure

from mmvae_jax.plots.style import PAPER


def latent_map(
    points: Float[Array | np.ndarray, "n 2"], labels: Int[Array | np.ndarray, " n"]
) -> Figure:
    """Draws points of the plane coloured by class (see ``project_2d``).

    >>> figure = latent_map(np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([4, 9]))
    """
    points, labels = np.asarray(points), np.asarray(labels)
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for c in np.unique(labels):
        x, y = points[labels == c].T
        axes.scatter(x, y, s=14, color=f"C{c % 10}", alpha=0.75, linewidths=0, label=str(c))
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")  # Fills the figure.
    axes.spines[:].set_color(PAPER)
    figure.legend(title="class", loc="outside right center", frameon=False, markerscale=2)
    return figure


def project_2d(z: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Lays latents out in the plane by t-SNE, neighbours next to each other; the same every time.

    Distances between far clusters mean nothing. About a second for 400 latents, ten for
    2,000.

    Raises:
      ImportError: if scikit-learn is missing.

    >>> project_2d(np.random.default_rng(0).normal(size=(12, 3))).shape
    (12, 2)
    """
    try:
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise ImportError(
            "project_2d is scikit-learn's t-SNE: pip install 'mmvae_jax[experiments]'"
        ) from error
    perplexity = min(30, (len(z) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    # Its threads wait for each other at every step: where cores are shared, one is far faster.
    with threadpool_limits(1):
        return tsne.fit_transform(np.asarray(z))


def interpolate(
    z0: Float[Array | np.ndarray, " d"], z1: Float[Array | np.ndarray, " d"], num: int
) -> Float[Array, "num d"]:
    """Returns ``num`` latents on the straight line from ``z0`` to ``z1``, both included.

    Raises:
      ValueError: for fewer than two latents.

    >>> interpolate(jnp.zeros(2), jnp.array([1.0, 4.0]), 3).tolist()
    [[0.0, 0.0], [0.5, 2.0], [1.0, 4.0]]
    """
    if num < 2:
        raise ValueError(f"num is {num}: give at least 2, the ends")
    return jnp.linspace(jnp.asarray(z0), jnp.asarray(z1), num)
