"""Grids of examples: generated from each other, from the prior, and between two latents."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mmvae_jax.plots.style import INK
from mmvae_jax.plots.tiles import Examples, draw_tiles, name_row, shared_count, size_of

#: Width of the empty column that sets two kinds of examples apart, in tiles.
_GAP = 0.3


def cross_generation_grid(
    given: Mapping[str, Examples], generated: Mapping[str, Mapping[str, Examples]]
) -> Figure:
    """Draws what is generated from each modality: a row per given one, a column per generated one.

    The first column shows what was given. A cell holds ``n`` examples as a square of tiles; tiles
    at the same place in a row belong to the same example.

    Args:
      given: examples by modality; its order is the order of the rows.
      generated: ``generated[given][modality]``, as many examples of every modality.

    Raises:
      ValueError: if the rows are not named alike, or cells differ in number of examples.

    >>> images, words = np.zeros((2, 8, 8, 1)), ["one", "two"]
    >>> figure = cross_generation_grid(
    ...     {"image": images, "word": words},
    ...     {"image": {"image": images, "word": words}, "word": {"image": images, "word": words}})
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
    num_examples = shared_count(cells)
    num_across = math.ceil(math.sqrt(num_examples))
    num_down = math.ceil(num_examples / num_across)
    # A narrow empty column sets what was given apart from what was generated.
    widths = [1, 0.1, *[1] * len(targets)]
    figure = Figure(
        figsize=size_of(given, len(given) * num_down, sum(widths) * num_across, title=True),
        layout="compressed",
    )
    grid = figure.add_gridspec(len(given), len(widths), width_ratios=widths)
    titles = ["given", *(f"\N{RIGHTWARDS ARROW} {target}" for target in targets)]
    for r, (name, row) in enumerate(cells.items()):
        for c, (title, examples) in enumerate(zip(titles, row, strict=True)):
            axes = figure.add_subplot(grid[r, c + (c > 0)])
            draw_tiles(axes, examples, num_across)
            if r == 0:
                axes.set_title(title, fontsize=10, color=INK)
            if c == 0:
                name_row(axes, name)
    return figure


def prior_samples(samples: Mapping[str, Examples]) -> Figure:
    """Draws samples from the prior: a row per modality, a column per sample.

    Args:
      samples: ``n`` examples by modality, decoded from the same ``n`` latents.

    Raises:
      ValueError: if modalities differ in number of examples.

    >>> figure = prior_samples({"image": np.zeros((3, 8, 8, 1)), "word": ["one", "two", "six"]})
    """
    num_samples = shared_count({name: [examples] for name, examples in samples.items()})
    size = size_of(samples, len(samples), float(num_samples), title=False)
    figure = Figure(figsize=size, layout="compressed")
    rows = figure.subplots(len(samples), squeeze=False)[:, 0]
    for axes, (name, examples) in zip(rows, samples.items(), strict=True):
        draw_tiles(axes, examples, num_samples)
        name_row(axes, name)
    return figure


def latent_interpolation(
    steps: Mapping[str, Examples], *, ends: Sequence[str] = ("from", "to")
) -> Figure:
    """Draws the way from one latent to another: a row per modality, a column per step.

    The two ends stand apart, under their titles.

    Args:
      steps: ``n`` examples by modality, decoded from the same ``n`` latents (see ``interpolate``).
      ends: titles of the first and of the last column.

    Raises:
      ValueError: if there is no step between the ends, or modalities differ in number of steps.

    >>> figure = latent_interpolation({"image": np.zeros((5, 8, 8, 3))}, ends=["3", "8"])
    """
    num_steps = shared_count({name: [examples] for name, examples in steps.items()})
    if num_steps < 3:
        raise ValueError(f"there are {num_steps} steps: give at least 3, the ends and one between")
    widths = [1, _GAP, num_steps - 2, _GAP, 1]
    size = size_of(steps, len(steps), sum(widths), title=True)
    figure = Figure(figsize=size, layout="compressed")
    grid = figure.add_gridspec(len(steps), len(widths), width_ratios=widths)
    titles = [ends[0], "\N{RIGHTWARDS ARROW}", ends[1]]
    parts = [slice(0, 1), slice(1, -1), slice(-1, None)]
    for r, (name, examples) in enumerate(steps.items()):
        for c, (title, part) in enumerate(zip(titles, parts, strict=True)):
            axes = figure.add_subplot(grid[r, 2 * c])
            draw_tiles(axes, examples[part], num_across=num_steps - 2 if c == 1 else 1)
            if r == 0:
                axes.set_title(title, fontsize=10, color=INK)
            if c == 0:
                name_row(axes, name)
    return figure
