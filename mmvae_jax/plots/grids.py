"""Grids of examples: generated from each other, from the prior, and between two latents."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mmvae_jax.plots.tiles import Examples, draw_sheet, shared_count

#: Spaces between columns of cells, in tile heights: to columns of another kind, and of the same.
_WIDE, _NARROW = 0.45, 0.18


def cross_generation_grid(
    given: Mapping[str, Examples], generated: Mapping[str, Mapping[str, Examples]]
) -> Figure:
    """Draws modalities generated from each other: a row per given one, a column per generated one.

    The first column shows the given examples. Tiles at the same place of the cells of a row belong
    to the same example. Cells that are both given and generated are reconstructions.

    Args:
      given: given examples by modality, in the order of the rows.
      generated: ``generated[given][modality]``, the same number of examples everywhere.

    Raises:
      ValueError: if rows have different names, or cells have different numbers of examples.

    >>> images, words = np.zeros((2, 8, 8, 1)), ["one", "two"]
    >>> figure = cross_generation_grid(
    ...     {"image": images, "word": words},
    ...     {"image": {"image": images, "word": words}, "word": {"image": images, "word": words}})
    """
    if not given or given.keys() != generated.keys():
        raise ValueError(
            f"given has rows {sorted(given)} and generated has {sorted(generated)}: "
            "give both the same rows, at least one"
        )
    targets = list(next(iter(generated.values())))
    cells = {
        name: [given[name], *(generated[name][target] for target in targets)] for name in given
    }
    across = _num_across(shared_count(cells))
    return draw_sheet(
        cells,
        num_across=[across] * (1 + len(targets)),
        gaps=[0.0, _WIDE, *[_NARROW] * (len(targets) - 1)],
        titles=["given", *(f"\N{RIGHTWARDS ARROW} {target}" for target in targets)],
    )


def prior_samples(samples: Mapping[str, Examples]) -> Figure:
    """Draws samples from the prior: a row per modality, a column per sample.

    Args:
      samples: examples by modality, decoded from the same latents.

    Raises:
      ValueError: if modalities have different numbers of examples.

    >>> figure = prior_samples({"image": np.zeros((3, 8, 8, 1)), "word": ["one", "two", "six"]})
    """
    cells = {name: [examples] for name, examples in samples.items()}
    return draw_sheet(cells, num_across=[shared_count(cells)], gaps=[0.0])


def latent_interpolation(
    steps: Mapping[str, Examples], *, ends: Sequence[str] = ("from", "to")
) -> Figure:
    """Draws examples between two latents: a row per modality, a column per step.

    The two ends are set apart, under their titles.

    Args:
      steps: examples by modality, decoded from the same latents (see ``interpolate``).
      ends: titles of the first and the last column, such as the classes of the two latents.

    Raises:
      ValueError: if there are fewer than three steps, or modalities have different numbers of
        them.

    >>> figure = latent_interpolation({"image": np.zeros((5, 8, 8, 3))}, ends=["3", "8"])
    """
    num_steps = shared_count({name: [examples] for name, examples in steps.items()})
    if num_steps < 3:
        raise ValueError(f"number of steps is {num_steps}: give at least 3, with both ends")
    return draw_sheet(
        {name: [x[:1], x[1:-1], x[-1:]] for name, x in steps.items()},
        num_across=[1, num_steps - 2, 1],
        gaps=[0.0, _WIDE, _WIDE],
        titles=[ends[0], "\N{RIGHTWARDS ARROW}", ends[1]],
    )


def style_transfer_grid(
    content: Examples,
    style: Examples,
    generated: Sequence[Examples],
    *,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draws examples with the content of one and the style of another.

    Rows have the content of the example on their left, columns the style of the example above.

    Args:
      content: examples that give the shared latent, one per row.
      style: examples that give the private latent, one per column.
      generated: ``generated[row][column]``, decoded from ``join_latents`` of both.
      names: names of the rows, such as classes; numbers by default. The name "style" is taken.

    Raises:
      ValueError: if rows, columns, examples and names differ in number, or names repeat.

    >>> images = np.zeros((3, 8, 8, 1))
    >>> figure = style_transfer_grid(images[:2], images, [images, images], names=["4", "9"])
    """
    rows = [str(row) for row in range(len(content))] if names is None else list(names)
    if len({*rows, "style"}) != len(content) + 1:
        raise ValueError(f"names is {rows}: give {len(content)} different names but 'style'")
    counts = [len(row) for row in generated]
    if counts != [len(style)] * len(content):
        raise ValueError(
            f"generated has rows of {counts} examples: give {len(content)} of {len(style)}"
        )
    blank = [""] if isinstance(content, Sequence) else np.ones_like(content[:1])
    cells: dict[str, list[Examples]] = {"style": [blank, style]}
    for row, name in enumerate(rows):
        cells[name] = [content[row : row + 1], generated[row]]
    return draw_sheet(cells, num_across=[1, len(style)], gaps=[0.0, _WIDE], titles=["content", ""])


def _num_across(num_examples: int) -> int:
    """Returns the number of tiles in a line: a nearly square cell, without holes if possible."""
    square = math.ceil(num_examples / math.isqrt(num_examples))
    full = next(n for n in range(square, num_examples + 1) if num_examples % n == 0)
    return full if full <= 1.7 * square else square
