"""Grids: every example is in its place, and rows and columns of tiles align."""

import jax
import numpy as np
import pytest
from helpers.figure_checks import assert_draws

from mmvae_jax.plots import (
    cross_generation_grid,
    latent_interpolation,
    prior_samples,
    style_transfer_grid,
)

WORDS = ["zero", "one", "two", "three", "four", "five"]


def make_images(seed: int, num_channels: int, size=(6, 6), num_images: int = 6) -> np.ndarray:
    shape = (num_images, *size, num_channels)
    return np.random.default_rng(seed).random(shape, np.float32)


def tiles_of(axes) -> list:
    """Returns images or texts, with the left, right and upper edges of their tiles in inches."""
    width, height = axes.figure.get_size_inches()
    box = axes.get_position()
    x_unit = box.width * width / np.ptp(axes.get_xlim())
    y_unit = box.height * height / np.ptp(axes.get_ylim())
    top = (1 - box.y1) * height
    if axes.images:
        shown = [np.asarray(image.get_array()) for image in axes.images]
        extents = [image.get_extent() for image in axes.images]
    else:
        shown = [text.get_text() for text in axes.texts]
        boxes = [patch.get_bbox() for patch in axes.patches]
        extents = [(b.x0, b.x1, b.y1, b.y0) for b in boxes]
    left = box.x0 * width
    edges = [(left + x_unit * x0, left + x_unit * x1, top + y_unit * y) for x0, x1, _, y in extents]
    return list(zip(shown, edges, strict=True))


def assert_shows(axes, examples, num_across: int) -> None:
    """Checks every tile, in lines of ``num_across`` from the top left."""
    tiles = tiles_of(axes)
    assert len(tiles) == len(examples)
    for i, ((shown, (left, right, upper)), example) in enumerate(zip(tiles, examples, strict=True)):
        if isinstance(example, str):
            assert shown == example
        else:
            np.testing.assert_array_equal(shown, np.broadcast_to(example, shown.shape))
        row, column = divmod(i, num_across)
        first = tiles[row * num_across][1]
        np.testing.assert_allclose(upper, first[2])
        if column:
            assert left > tiles[i - 1][1][1]  # on the right of the one before
        if row:
            np.testing.assert_allclose((left, right), tiles[i - num_across][1][:2])
            assert upper > tiles[i - num_across][1][2]


@pytest.fixture
def given():
    return {"grey": make_images(0, 1, (9, 5)), "colour": make_images(1, 3, (4, 8)), "word": WORDS}


@pytest.fixture
def generated():
    return {
        name: {
            "grey": make_images(seed, 1, (9, 5)),
            "colour": make_images(seed + 1, 3, (4, 8)),
            "word": WORDS[::-1],
        }
        for seed, name in [(10, "grey"), (20, "colour"), (30, "word")]
    }


def test_cross_generation_shows_every_example_in_its_cell(given, generated):
    figure = cross_generation_grid(given, generated)
    cells = np.array(figure.axes).reshape(3, 4)
    for r, name in enumerate(given):
        for axes, examples in zip(cells[r], [given[name], *generated[name].values()], strict=True):
            assert_shows(axes, examples, num_across=3)
    assert [axes.get_ylabel() for axes in cells[:, 0]] == ["grey", "colour", "word"]
    assert [axes.get_title() for axes in cells[0]] == ["given", "→ grey", "→ colour", "→ word"]
    assert {axes.get_title() for axes in cells[1:].ravel()} == {""}
    assert_draws(figure)


def test_examples_of_different_shapes_align(given, generated):
    """The i-th tiles of a row have one height, those of a column one centre, undistorted."""
    cells = np.array(cross_generation_grid(given, generated).axes).reshape(3, 4)
    edges = np.array([[[edge for _, edge in tiles_of(axes)] for axes in row] for row in cells])
    left, right, upper = np.moveaxis(edges, -1, 0)  # [row, column, example]
    np.testing.assert_allclose(upper, np.broadcast_to(upper[:, :1], upper.shape))
    centre = (left + right) / 2
    np.testing.assert_allclose(centre, np.broadcast_to(centre[:1], centre.shape))
    height = np.diff(upper[0, 0, [0, 3]])[0] / 1.06  # of a tile, without the gap below it
    shapes = {"grey": 5 / 9, "colour": 8 / 4, "word": 1.0}
    for r, name in enumerate(given):
        np.testing.assert_allclose((right - left)[r, 0] / height, shapes[name])
        np.testing.assert_allclose(
            (right - left)[r, 1:] / height, np.repeat([[*shapes.values()]], 6, axis=0).T
        )


@pytest.mark.parametrize(
    ("num_examples", "num_across"),
    [(1, 1), (2, 2), (6, 3), (5, 5), (7, 4), (8, 4), (9, 3), (10, 5)],
)
def test_cells_have_no_holes_where_that_is_possible(num_examples, num_across):
    x = make_images(0, 1, num_images=num_examples)
    (first, _) = cross_generation_grid({"x": x}, {"x": {"x": x}}).axes
    assert_shows(first, x, num_across)


def test_text_is_printed_as_it_is():
    figure = prior_samples({"word": ["$a_1$", "100%", r"\x"]})
    assert [text.get_parse_math() for text in figure.axes[0].texts] == [False] * 3
    assert_draws(figure)


def test_long_texts_fit_their_tiles():
    figure = prior_samples({"caption": ["a small bird with a red head", "bird"]})
    figure.draw_without_rendering()
    (axes,) = figure.axes
    for text, patch in zip(axes.texts, axes.patches, strict=True):
        inner, outer = text.get_window_extent(), patch.get_window_extent()
        assert outer.x0 < inner.x0 < inner.x1 < outer.x1
        assert outer.y0 < inner.y0 < inner.y1 < outer.y1


def test_prior_samples_show_a_row_per_modality_and_a_column_per_sample(given):
    samples = given | {"grey": jax.numpy.asarray(given["grey"])}
    figure = prior_samples(samples)
    assert [axes.get_ylabel() for axes in figure.axes] == ["grey", "colour", "word"]
    for axes, examples in zip(figure.axes, given.values(), strict=True):
        assert_shows(axes, examples, num_across=6)
    assert_draws(figure)


def test_interpolations_set_the_ends_apart(given):
    figure = latent_interpolation(given, ends=["0", "9"])
    cells = np.array(figure.axes).reshape(3, 3)
    parts = [slice(0, 1), slice(1, 5), slice(5, 6)]
    for row, examples in zip(cells, given.values(), strict=True):
        for axes, part in zip(row, parts, strict=True):
            assert_shows(axes, examples[part], num_across=4)
    assert [axes.get_title() for axes in cells[0]] == ["0", "→", "9"]
    widest = [tiles_of(axes) for axes in cells[1]]  # colour, whose tiles fill their boxes
    inside = widest[1][1][1][0] - widest[1][0][1][1]
    for before, after in ((widest[0], widest[1]), (widest[1], widest[2])):
        assert after[0][1][0] - before[-1][1][1] > 4 * inside
    assert_draws(figure)


@pytest.mark.parametrize("kind", ["image", "word"])
def test_style_transfer_shows_a_row_per_content_and_a_column_per_style(kind):
    image = kind == "image"
    content = make_images(0, 3, (4, 8), 2) if image else WORDS[:2]
    style = make_images(1, 3, (4, 8), 5) if image else WORDS[:5]
    made = [make_images(2 + row, 3, (4, 8), 5) if image else WORDS[row : row + 5] for row in (0, 1)]
    cells = np.array(style_transfer_grid(content, style, made, names=["4", "9"]).axes).reshape(3, 2)
    assert_shows(cells[0, 1], style, num_across=5)
    for row in (0, 1):
        assert_shows(cells[row + 1, 0], content[row : row + 1], num_across=1)
        assert_shows(cells[row + 1, 1], made[row], num_across=5)
    above, below = ([edge for _, edge in tiles_of(axes)] for axes in cells[:2, 1])
    np.testing.assert_allclose(np.array(above)[:, :2], np.array(below)[:, :2])
    assert [axes.get_ylabel() for axes in cells[:, 0]] == ["style", "4", "9"]
    assert_draws(cells[0, 0].figure)


def test_values_out_of_range_are_clipped(caplog):
    images = 3 * make_images(0, 3) - 1
    (axes,) = prior_samples({"x": images}).axes
    assert_shows(axes, np.clip(images, 0, 1), num_across=6)
    assert not caplog.records  # matplotlib logs when it clips


def test_examples_that_do_not_fit_are_refused(given, generated):
    with pytest.raises(ValueError, match=r"given has rows \['grey'\]"):
        cross_generation_grid({"grey": given["grey"]}, generated)
    with pytest.raises(ValueError, match=r"numbers of examples are .*'word': \[4, 6, 6, 6\]"):
        cross_generation_grid(given | {"word": WORDS[:4]}, generated)
    with pytest.raises(ValueError, match=r"numbers of examples are .*'word': \[4\]"):
        prior_samples({"grey": given["grey"], "word": WORDS[:4]})
    with pytest.raises(ValueError, match="images have 2 channels"):
        prior_samples({"x": make_images(0, 2)})
    with pytest.raises(ValueError, match=r"generated has rows of \[6\] examples: give 2 of 6"):
        style_transfer_grid(WORDS[:2], WORDS, [WORDS])
    with pytest.raises(ValueError, match=r"names is \['4', 'style'\]: give 2 different"):
        style_transfer_grid(WORDS[:2], WORDS, [WORDS, WORDS], names=["4", "style"])
    with pytest.raises(ValueError, match="number of steps is 2"):
        latent_interpolation({"word": WORDS[:2]})
    with pytest.raises(ValueError, match=r"numbers of examples are .*'word': \[4\]"):
        latent_interpolation(given | {"word": WORDS[:4]})
