"""Examples as tiles: images side by side, words on tiles of the same size."""

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from mmvae_jax.plots.style import INK, PAPER, bare

Examples: TypeAlias = Float[Array | np.ndarray, "_n _height _width _channel"] | Sequence[str]

_TILE_INCHES = 0.48


def shared_count(cells: Mapping[str, Sequence[Examples]]) -> int:
    """Returns the number of examples in every cell, which must be one number.

    Raises:
      ValueError: if it is not, or there is no cell.
    """
    counts = {name: [len(examples) for examples in row] for name, row in cells.items()}
    if len({count for row in counts.values() for count in row}) != 1:
        raise ValueError(f"numbers of examples differ: {counts}; draw as many of every modality")
    return next(iter(counts.values()))[0]


def size_of(
    names: Iterable[str], num_down: int, num_across: float, *, title: bool
) -> tuple[float, float]:
    """Returns inches for so many tiles and the names on their left."""
    left = 0.3 + 0.09 * max(len(name) for name in names)
    return 1.1 * _TILE_INCHES * num_across + left, 1.1 * _TILE_INCHES * num_down + 0.4 * title


def draw_tiles(axes: Axes, examples: Examples, num_across: int) -> None:
    """Fills the axes with the examples, ``num_across`` side by side."""
    if isinstance(examples, Array | np.ndarray):
        axes.imshow(_mosaic(np.asarray(examples), num_across), interpolation="nearest")
    else:
        _draw_words(axes, examples, num_across)
    bare(axes)


def name_row(axes: Axes, name: str) -> None:
    """Writes the name on the left of the axes."""
    axes.set_ylabel(name, rotation=0, ha="right", va="center", labelpad=8, color=INK)


def _draw_words(axes: Axes, words: Sequence[str], num_across: int) -> None:
    side, gap = 16, 1
    axes.imshow(_mosaic(np.full((len(words), side, side, 3), to_rgb(PAPER)), num_across))
    wrapped = [_wrapped(word) for word in words]
    longest = max(len(line) for lines in wrapped for line in lines)
    most = max(len(lines) for lines in wrapped)
    # Monospaced letters are 0.6 em wide and lines 1.2 em high: the longest just fill a tile.
    size = min(8, 72 * _TILE_INCHES / max(0.62 * longest, 1.22 * most))
    for i, lines in enumerate(wrapped):
        row, column = divmod(i, num_across)
        x, y = (side + gap) * column + side / 2 - 0.5, (side + gap) * row + side / 2 - 0.5
        label = "\n".join(lines)
        text = axes.text(x, y, label, ha="center", va="center", color=INK, parse_math=False)
        text.set(family="monospace", fontsize=size)


def _wrapped(text: str) -> list[str]:
    """Lines of a text, about as many as make it square; a single word is one line."""
    longest = max(map(len, text.split()), default=0)
    width = max(1, longest, math.ceil(math.sqrt(2 * len(text))))
    return textwrap.wrap(text, width) or [""]


def _mosaic(
    images: Float[np.ndarray, "n height width channel"], num_across: int
) -> Float[np.ndarray, "rows columns 3"]:
    """Returns the images as one, ``num_across`` side by side, white between them."""
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
