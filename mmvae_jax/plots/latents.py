"""Latents: maps in the plane, and lines from one latent to another."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from mmvae_jax.plots.style import FAINT, INK, color

#: Marker shapes of the modalities.
MARKERS = "o^sDPXv*"


def latent_map(
    points: Float[Array | np.ndarray, "n 2"],
    labels: Int[Array | np.ndarray, " n"],
    modalities: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    method: str = "t-SNE",
) -> Figure:
    """Draws points of the plane, such as projected latents, coloured by class.

    The name or number of each class stands at the median of its points.

    Args:
      points: positions, such as those from ``project_2d``.
      labels: class of each point.
      modalities: name of the modality of each point, which its marker shape shows.
      names: names of the classes ``0, 1, ...``; None to show their numbers.
      method: name of the projection, for the axes.

    Raises:
      ValueError: if points, labels and modalities differ in number, or a class has no name.

    >>> figure = latent_map(
    ...     np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([4, 9]), ["image", "word"])
    """
    points, labels = np.asarray(points), np.asarray(labels)
    sources = np.asarray([""] * len(points) if modalities is None else modalities)
    lengths = {"points": len(points), "labels": len(labels), "modalities": len(sources)}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"lengths are {lengths}: give a label and a modality per point")
    classes, kinds = np.unique(labels), list(dict.fromkeys(sources.tolist()))
    titles = _class_names(classes, names)
    colors = np.array([color(i) for i in range(len(classes))])[np.searchsorted(classes, labels)]
    figure = Figure(figsize=(6.6, 5.2), layout="constrained")
    axes = figure.subplots()
    for name, marker in zip(kinds, itertools.cycle(MARKERS), strict=False):
        own = sources == name
        style = {"s": 24, "alpha": 0.85, "edgecolors": "white", "linewidths": 0.4}
        axes.scatter(*points[own].T, c=colors[own], marker=marker, **style)
    outline: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="white")]
    for c, title in zip(classes, titles, strict=True):
        x, y = np.median(points[labels == c], axis=0)
        text = axes.text(x, y, title, ha="center", va="center", color=INK, weight="bold")
        text.set_path_effects(outline)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(f"{method} axis 1", color=INK)
    axes.set_ylabel(f"{method} axis 2", color=INK)
    axes.set_aspect("equal", adjustable="datalim")  # fills the figure
    axes.spines[:].set_color(FAINT)
    _legend(
        figure,
        "class",
        "outside right upper",
        {title: ("o", color(i)) for i, title in enumerate(titles)},
    )
    if modalities is not None:
        shapes = dict(zip(kinds, itertools.cycle(MARKERS), strict=False))
        _legend(
            figure,
            "modality",
            "outside right lower",
            {n: (marker, FAINT) for n, marker in shapes.items()},
        )
    return figure


def _class_names(classes: Int[np.ndarray, " c"], names: Sequence[str] | None) -> list[str]:
    """Returns the names of the classes that occur, their numbers without names."""
    if names is None:
        return [str(c) for c in classes]
    if len(classes) and not 0 <= classes.min() <= classes.max() < len(names):
        raise ValueError(
            f"names has {len(names)} names, but labels hold {classes.min()} to {classes.max()}: "
            "give a name for each class"
        )
    return [str(names[int(c)]) for c in classes]


def _legend(figure: Figure, title: str, loc: Any, styles: Mapping[str, tuple[str, str]]) -> None:
    """Adds a legend of marker shapes and colours on the right of the figure."""
    handles = [
        Line2D([], [], linestyle="", marker=marker, color=color, markersize=7, label=label)
        for label, (marker, color) in styles.items()
    ]
    figure.legend(handles=handles, title=title, loc=loc, frameon=False, labelcolor=INK)


def project_2d(z: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Projects latents to the plane by t-SNE (van der Maaten and Hinton 2008), deterministically.

    Close latents stay close; distances between far clusters mean nothing. It takes about a second
    for 400 latents and ten seconds for 2,000.

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
            "project_2d needs scikit-learn: pip install 'mmvae_jax[experiments]'"
        ) from error
    perplexity = min(30, (len(z) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=0)
    # Threads synchronise at every step: on shared cores one thread is far faster.
    with threadpool_limits(1):
        return tsne.fit_transform(np.asarray(z))


def interpolate(
    z0: Float[Array | np.ndarray, " d"], z1: Float[Array | np.ndarray, " d"], num: int
) -> Float[Array, "num d"]:
    """Returns ``num`` evenly spaced latents on the line from ``z0`` to ``z1``, both included.

    Raises:
      ValueError: if ``num`` is below 2.

    >>> interpolate(jnp.zeros(2), jnp.array([1.0, 4.0]), 3).tolist()
    [[0.0, 0.0], [0.5, 2.0], [1.0, 4.0]]
    """
    if num < 2:
        raise ValueError(f"num is {num}: give at least 2, the ends")
    return jnp.linspace(jnp.asarray(z0), jnp.asarray(z1), num)
