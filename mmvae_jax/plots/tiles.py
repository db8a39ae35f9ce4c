"""Sheets of examples: images and words on tiles of one height, in rows and columns that align."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmvae_jax.plots.style import INK, PAPER, name_row

Examples: TypeAlias = Float[Array | np.ndarray, "_n _height _width _channel"] | Sequence[str]

#: Height of a tile in inches; all other lengths are in tile heights.
_TILE_INCHES = 0.48
#: Space between tiles, and between the cells of two rows.
_GAP, _ROW_GAP = 0.06, 0.18


def shared_count(cells: Mapping[str, Sequence[Examples]]) -> int:
    """Returns the number of examples in every cell.

    Raises:
      ValueError: if cells differ in the number of examples, or there are none.
    """
    counts = {name: [len(examples) for examples in row] for name, row in cells.items()}
    if len({count for row in counts.values() for count in row}) != 1:
        raise ValueError(f"numbers of examples are {counts}: give the same number everywhere")
    return next(iter(counts.values()))[0]


def draw_sheet(
    cells: Mapping[str, Sequence[Examples]],
    num_across: Sequence[int],
    gaps: Sequence[float],
    titles: Sequence[str] = (),
) -> Figure:
    """Draws a row of cells per name, and the examples of a cell as lines of tiles.

    Tiles are of one height, and of one width within a column, so that examples at the same place of
    two cells align, whatever their shapes.

    Args:
      cells: examples of each cell of a row, by the row's name.
      num_across: number of tiles in a line, by column.
      gaps: space on the left of each column.
      titles: title of each column, above the first row.
    """
    columns = list(zip(*cells.values(), strict=True))
    boxes = [max(map(_tile_width, column)) for column in columns]
    widths = [n * (box + _GAP) - _GAP for n, box in zip(num_across, boxes, strict=True)]
    num_down = math.ceil(len(columns[0][0]) / num_across[0])
    height = num_down * (1 + _GAP) - _GAP
    left = (0.3 + 0.09 * max(map(len, cells))) / _TILE_INCHES
    top = 0.6 if titles else 0.1
    total_width = left + sum(widths) + sum(gaps) + 0.1
    total_height = top + len(cells) * (height + _ROW_GAP) - _ROW_GAP + 0.1
    figure = Figure(figsize=(_TILE_INCHES * total_width, _TILE_INCHES * total_height))
    for r, (name, row) in enumerate(cells.items()):
        x, y = left, total_height - top - r * (height + _ROW_GAP) - height
        for c, examples in enumerate(row):
            x += gaps[c]
            place = (
                x / total_width,
                y / total_height,
                widths[c] / total_width,
                height / total_height,
            )
            axes = figure.add_axes(place)
            _draw_tiles(axes, examples, num_across[c], boxes[c])
            axes.set(xlim=(0, widths[c]), ylim=(height, 0), xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            x += widths[c]
            if c == 0:
                name_row(axes, name)
            if r == 0 and titles:
                axes.set_title(titles[c], fontsize=10, color=INK)
    return figure


def _draw_tiles(axes: Axes, examples: Examples, num_across: int, box: float) -> None:
    """Draws the examples in lines of ``num_across`` boxes, each ``box`` wide and 1 high."""
    width = _tile_width(examples)
    places = [divmod(i, num_across) for i in range(len(examples))]
    corners = [(c * (box + _GAP) + (box - width) / 2, r * (1 + _GAP)) for r, c in places]
    if isinstance(examples, Array | np.ndarray):
        for image, (x, y) in zip(_as_rgb(np.asarray(examples)), corners, strict=True):
            extent = (x, x + width, y + 1, y)
            axes.imshow(image, extent=extent, aspect="auto", interpolation="nearest")
    else:
        texts = [_wrapped(text) for text in examples]
        font = {"family": "monospace", "size": _font_size(texts), "color": INK}
        for lines, (x, y) in zip(texts, corners, strict=True):
            axes.add_patch(Rectangle((x, y), width, 1, facecolor=PAPER))
            text = axes.text(x + width / 2, y + 0.5, "\n".join(lines), ha="center", va="center")
            text.set(**font, parse_math=False)


def _tile_width(examples: Examples) -> float:
    """Returns the width of a tile: that of an image 1 high, or of a square of text."""
    if isinstance(examples, Array | np.ndarray):
        return examples.shape[2] / examples.shape[1]
    return 1.0


def _as_rgb(
    images: Float[np.ndarray, "n height width channel"],
) -> Float[np.ndarray, "n height width 3"]:
    """Returns the images with three channels and values in 0 to 1."""
    num_channels = images.shape[3]
    if num_channels not in (1, 3):
        raise ValueError(f"images have {num_channels} channels: draw 1 (grey) or 3 (RGB)")
    return np.broadcast_to(np.clip(images, 0, 1), (*images.shape[:3], 3))


def _wrapped(text: str) -> list[str]:
    """Returns the lines of a text, which make it about square; a single word is one line."""
    longest = max(map(len, text.split()), default=0)
    width = max(1, longest, math.ceil(math.sqrt(2 * len(text))))
    return textwrap.wrap(text, width) or [""]


def _font_size(texts: Sequence[Sequence[str]]) -> float:
    """Returns the size in points at which every text fits a tile, 8 at most."""
    longest = max(len(line) for lines in texts for line in lines)
    most = max(map(len, texts))
    # Monospaced letters are 0.6 em wide, and lines are 1.2 em high; the rest is margin.
    return min(8.0, 72 * _TILE_INCHES / max(0.66 * longest, 1.35 * most))
