"""Figures of a multi-modal model: arrays in, a matplotlib `Figure` out, no global state.

Examples of a modality are images `[n, height, width, channel]` (one channel is grey, three are
RGB, values in 0 to 1) or a sequence of `n` strings, which are printed.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

Examples: TypeAlias = Float[Array | np.ndarray, "_n _height _width _channel"] | Sequence[str]

_INK, _FAINT, _PAPER = "#1f2430", "#8a90a0", "#f1f2f5"
_TILE_INCHES = 0.48


def cross_generation_grid(
    given: Mapping[str, Examples], generated: Mapping[str, Mapping[str, Examples]]
) -> Figure:
    """Draws what is generated from each modality: a row per given one, a column per generated one.

    The first column shows what was given. A cell holds `n` examples as a square of tiles; tiles at
    the same place in a row belong to the same example.

    Args:
        given: examples by modality; its order is the order of the rows.
        generated: `generated[given][modality]`, as many examples of every modality.

    Raises:
        ValueError: if the rows are not named alike, or cells differ in number of examples.
    """
    if not given or given.keys() != generated.keys():
        raise ValueError(
            f"given names {sorted(given)} and generated names {sorted(generated)}: "
            "give at least one row, and to every row its examples and what they generated"
        )
    targets = list(next(iter(generated.values())))
    cells = {
        name: [given[name], *(generated[name][target] for target in targets)] for name in given
    }
    num_examples = _shared_count(cells)
    num_across = math.ceil(math.sqrt(num_examples))
    num_down = math.ceil(num_examples / num_across)
    # A narrow empty column sets what was given apart from what was generated.
    widths = [1, 0.1, *[1] * len(targets)]
    figure = Figure(
        figsize=_size(given, len(given) * num_down, sum(widths) * num_across, title=True),
        layout="compressed",
    )
    grid = figure.add_gridspec(len(given), len(widths), width_ratios=widths)
    titles = ["given", *(f"\N{RIGHTWARDS ARROW} {target}" for target in targets)]
    for r, (name, row) in enumerate(cells.items()):
        for c, (title, examples) in enumerate(zip(titles, row, strict=True)):
            axes = figure.add_subplot(grid[r, c + (c > 0)])
            _draw_tiles(axes, examples, num_across)
            if r == 0:
                axes.set_title(title, fontsize=10, color=_INK)
            if c == 0:
                _name_row(axes, name)
    return figure


def prior_samples(samples: Mapping[str, Examples]) -> Figure:
    """Draws samples from the prior: a row per modality, a column per sample.

    Args:
        samples: `n` examples by modality, decoded from the same `n` latents.

    Raises:
        ValueError: if modalities differ in number of examples.
    """
    num_samples = _shared_count({name: [examples] for name, examples in samples.items()})
    size = _size(samples, len(samples), float(num_samples), title=False)
    figure = Figure(figsize=size, layout="compressed")
    rows = figure.subplots(len(samples), squeeze=False)[:, 0]
    for axes, (name, examples) in zip(rows, samples.items(), strict=True):
        _draw_tiles(axes, examples, num_samples)
        _name_row(axes, name)
    return figure


def training_curve(
    steps: Int[Array | np.ndarray, " t"],
    values: Mapping[str, Float[Array | np.ndarray, " t"]],
    *,
    ylabel: str = "loss",
) -> Figure:
    """Draws quantities against the training step, one line per name."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(steps) == 1 else None  # a line from a point to itself is not seen
    for name, line in values.items():
        axes.plot(np.asarray(steps), np.asarray(line), linewidth=1.8, marker=marker, label=name)
    axes.set_xlabel("step", color=_INK)
    axes.set_ylabel(ylabel, color=_INK)
    axes.margins(x=0)
    axes.grid(color=_PAPER, linewidth=1.2)
    axes.tick_params(color=_FAINT, labelcolor=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.legend(frameon=False, labelcolor=_INK)
    return figure


def latent_map(
    points: Float[Array | np.ndarray, "n 2"], labels: Int[Array | np.ndarray, " n"]
) -> Figure:
    """Draws points of the plane coloured by class (see `project_2d`)."""
    points, labels = np.asarray(points), np.asarray(labels)
    figure = Figure(figsize=(5.6, 4.8), layout="constrained")
    axes = figure.subplots()
    for c in np.unique(labels):
        x, y = points[labels == c].T
        axes.scatter(x, y, s=14, color=f"C{c % 10}", alpha=0.75, linewidths=0, label=str(c))
    axes.set(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")  # Fills the figure.
    axes.spines[:].set_color(_PAPER)
    figure.legend(title="class", loc="outside right center", frameon=False, markerscale=2)
    return figure


def divergence_bars(
    divergence: Mapping[str, Mapping[str, float]], *, xlabel: str = "KL divergence, nats"
) -> Figure:
    """Draws how far the posterior of each modality is from others and from the prior, as bars.

    Args:
        divergence: `divergence[source][target]`, one number each, on a logarithmic axis if the
            largest is more than 30 times the smallest.
        xlabel: what the numbers are.

    Raises:
        ValueError: if there is no number, or one is negative.
    """
    pairs = {(a, b): value for a, row in divergence.items() for b, value in row.items()}
    if not pairs or min(pairs.values()) < 0:
        raise ValueError(f"divergence is {dict(divergence)}: give one number or more, none below 0")
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    colors = {name: f"C{i % 10}" for i, name in enumerate(divergence)}
    values = list(pairs.values())
    places = np.arange(len(pairs))[::-1] - 0.5 * np.repeat(
        np.arange(len(divergence)), [len(row) for row in divergence.values()]
    )
    bars = axes.barh(places, values, height=0.8, color=[colors[source] for source, _ in pairs])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8, color=_INK)
    axes.set_yticks(places, [f"{a} \N{RIGHTWARDS ARROW} {b}" for a, b in pairs], fontsize=8)
    if min(values) > 0 and max(values) > 30 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(xlabel, color=_INK)
    axes.margins(x=0.12)
    axes.tick_params(color=_FAINT, labelcolor=_INK, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    return figure


def project_2d(z: Float[Array | np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Lays latents out in the plane by t-SNE, neighbours next to each other; the same every time.

    Distances between far clusters mean nothing. About a second for 400 latents, ten for
    2,000.

    Raises:
        ImportError: if scikit-learn is missing.
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


def _shared_count(cells: Mapping[str, Sequence[Examples]]) -> int:
    """Returns the number of examples in every cell, which must be one number."""
    counts = {name: [len(examples) for examples in row] for name, row in cells.items()}
    if len({count for row in counts.values() for count in row}) != 1:
        raise ValueError(f"numbers of examples differ: {counts}; draw as many of every modality")
    return next(iter(counts.values()))[0]


def _size(
    names: Iterable[str], num_down: int, num_across: float, *, title: bool
) -> tuple[float, float]:
    """Returns inches for so many tiles and the names on their left."""
    left = 0.3 + 0.09 * max(len(name) for name in names)
    return 1.1 * _TILE_INCHES * num_across + left, 1.1 * _TILE_INCHES * num_down + 0.4 * title


def _draw_tiles(axes: Axes, examples: Examples, num_across: int) -> None:
    if isinstance(examples, Array | np.ndarray):
        axes.imshow(_mosaic(np.asarray(examples), num_across), interpolation="nearest")
    else:
        _draw_words(axes, examples, num_across)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_words(axes: Axes, words: Sequence[str], num_across: int) -> None:
    side, gap = 16, 1
    axes.imshow(_mosaic(np.full((len(words), side, side, 3), to_rgb(_PAPER)), num_across))
    wrapped = [_wrapped(word) for word in words]
    longest = max(len(line) for lines in wrapped for line in lines)
    most = max(len(lines) for lines in wrapped)
    # Monospaced letters are 0.6 em wide and lines 1.2 em high: the longest just fill a tile.
    size = min(8, 72 * _TILE_INCHES / max(0.62 * longest, 1.22 * most))
    for i, lines in enumerate(wrapped):
        row, column = divmod(i, num_across)
        x, y = (side + gap) * column + side / 2 - 0.5, (side + gap) * row + side / 2 - 0.5
        label = "\n".join(lines)
        text = axes.text(x, y, label, ha="center", va="center", color=_INK, parse_math=False)
        text.set(family="monospace", fontsize=size)


def _wrapped(text: str) -> list[str]:
    """Lines of a text, about as many as make it square; a single word is one line."""
    longest = max(map(len, text.split()), default=0)
    width = max(1, longest, math.ceil(math.sqrt(2 * len(text))))
    return textwrap.wrap(text, width) or [""]


def _mosaic(
    images: Float[np.ndarray, "n height width channel"], num_across: int
) -> Float[np.ndarray, "rows columns 3"]:
    """Returns the images as one, `num_across` side by side, white between them."""
    num_images, height, width, num_channels = images.shape
    if num_channels not in (1, 3):
        raise ValueError(f"images have {num_channels} channels: draw 1 (grey) or 3 (RGB)")
    num_down = math.ceil(num_images / num_across)
    gap = max(1, height // 16)
    tiles = np.ones((num_down * num_across, height + gap, width + gap, 3), np.float32)
    tiles[:num_images, :height, :width] = np.clip(images, 0, 1)
    tiles = tiles.reshape(num_down, num_across, height + gap, width + gap, 3)
    rows = tiles.transpose(0, 2, 1, 3, 4).reshape(num_down * (height + gap), -1, 3)
    return rows[:-gap, :-gap]


def _name_row(axes: Axes, name: str) -> None:
    axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, color=_INK)
