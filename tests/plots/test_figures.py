"""Figures: every example is where it belongs, and nothing global is left behind."""

import sys

import jax
import numpy as np
import pytest
from helpers.figure_checks import assert_draws
from matplotlib.colors import to_rgba

from mmvae_jax.plots import (
    cross_generation_grid,
    interpolate,
    latent_interpolation,
    latent_map,
    prior_samples,
    project_2d,
    training_curve,
)

WORDS = ["zero", "one", "two", "three", "four"]


def make_images(seed: int, num_channels: int, side: int = 6, num_images: int = 5) -> np.ndarray:
    shape = (num_images, side, side + 1, num_channels)
    return np.random.default_rng(seed).random(shape, np.float32)


def assert_shows(axes, images: np.ndarray, num_across: int) -> None:
    """Checks every tile of the axes against the image that belongs there."""
    (shown,) = axes.images
    mosaic = np.asarray(shown.get_array())
    _, height, width, _ = images.shape
    num_down = -(-len(images) // num_across)
    assert mosaic.shape == (num_down * (height + 1) - 1, num_across * (width + 1) - 1, 3)
    for i, image in enumerate(images):
        top, left = (i // num_across) * (height + 1), (i % num_across) * (width + 1)
        tile = mosaic[top : top + height, left : left + width]
        np.testing.assert_array_equal(tile, np.broadcast_to(image, tile.shape))
    np.testing.assert_array_equal(mosaic[:, width : width + 1], 1)  # white between the tiles


@pytest.fixture
def given():
    return {"grey": make_images(0, 1, side=9), "colour": make_images(1, 3), "word": WORDS}


@pytest.fixture
def generated():
    return {
        name: {"grey": make_images(seed, 1), "colour": make_images(seed + 1, 3), "word": WORDS}
        for seed, name in [(10, "grey"), (20, "colour"), (30, "word")]
    }


def test_cross_generation_shows_every_example_in_its_cell(given, generated):
    figure = cross_generation_grid(given, generated)
    cells = np.array(figure.axes).reshape(3, 4)
    for r, name in enumerate(given):
        row = [given[name], *generated[name].values()]
        for axes, examples in zip(cells[r], row, strict=True):
            if isinstance(examples, np.ndarray):
                assert_shows(axes, examples, num_across=3)
            else:
                assert [text.get_text() for text in axes.texts] == WORDS
    assert_draws(figure)


def test_cross_generation_names_rows_and_columns(given, generated):
    cells = np.array(cross_generation_grid(given, generated).axes).reshape(3, 4)
    assert [axes.get_ylabel() for axes in cells[:, 0]] == ["grey", "colour", "word"]
    assert [axes.get_title() for axes in cells[0]] == ["given", "→ grey", "→ colour", "→ word"]
    assert {axes.get_title() for axes in cells[1:].ravel()} == {""}


def test_a_word_stands_in_its_own_tile():
    (axes,) = prior_samples({"word": WORDS}).axes
    mosaic = np.asarray(axes.images[0].get_array())
    for i, text in enumerate(axes.texts):
        x, y = text.get_position()
        assert (x, y) == (17 * i + 7.5, 7.5)
        assert mosaic[int(y), int(x), 0] < 1  # on the grey of a tile, not on the white between


def test_text_is_printed_as_it_is():
    figure = prior_samples({"word": ["$a_1$", "100%", r"\x"]})
    assert [text.get_parse_math() for text in figure.axes[0].texts] == [False] * 3
    assert_draws(figure)


def test_prior_samples_show_a_row_per_modality():
    grey, colour = make_images(0, 1, num_images=5), make_images(1, 3, num_images=5)
    figure = prior_samples({"grey": jax.numpy.asarray(grey), "colour": colour, "word": WORDS})
    assert [axes.get_ylabel() for axes in figure.axes] == ["grey", "colour", "word"]
    assert_shows(figure.axes[0], grey, num_across=5)
    assert_shows(figure.axes[1], colour, num_across=5)
    assert_draws(figure)


def test_interpolations_show_every_step_in_its_place(given):
    figure = latent_interpolation(given, ends=["0", "9"])
    cells = np.array(figure.axes).reshape(3, 3)
    parts = [slice(0, 1), slice(1, 4), slice(4, 5)]
    for row, examples in zip(cells, given.values(), strict=True):
        for axes, part, num_across in zip(row, parts, [1, 3, 1], strict=True):
            if isinstance(examples, np.ndarray):
                assert_shows(axes, examples[part], num_across)
            else:
                assert [text.get_text() for text in axes.texts] == examples[part]
    assert [axes.get_ylabel() for axes in cells[:, 0]] == ["grey", "colour", "word"]
    assert [axes.get_title() for axes in cells[0]] == ["0", "→", "9"]
    assert {axes.get_title() for axes in cells[1:].ravel()} == {""}
    figure.draw_without_rendering()
    first, between, last = (axes.get_window_extent() for axes in cells[0])
    tile = first.width
    assert between.x0 - first.x1 > 0.25 * tile  # further than tiles are from each other
    assert last.x0 - between.x1 > 0.25 * tile
    np.testing.assert_allclose([between.width, last.width], [3 * tile, tile], rtol=0.1)
    assert_draws(figure)


def test_interpolations_without_steps_or_of_different_numbers_are_refused(given):
    with pytest.raises(ValueError, match="there are 2 steps: give at least 3"):
        latent_interpolation({"word": WORDS[:2]})
    with pytest.raises(ValueError, match=r"'word': \[4\]"):
        latent_interpolation(given | {"word": WORDS[:4]})


def test_latents_lie_evenly_on_the_line_and_include_both_ends():
    z0, z1 = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    way = interpolate(z0, z1, 7)
    assert way.shape == (7, 3)
    np.testing.assert_array_equal(way[0], z0)
    np.testing.assert_array_equal(way[-1], z1)
    shares = np.arange(7)[:, None] / 6
    np.testing.assert_allclose(way, z0 + shares * (z1 - z0), atol=1e-6)  # rounding of one sum
    np.testing.assert_array_equal(interpolate(z0, z1, 2), [z0, z1])
    with pytest.raises(ValueError, match="num is 1: give at least 2"):
        interpolate(z0, z1, 1)


def test_values_out_of_range_are_cut_off(caplog):
    images = 3 * make_images(0, 3) - 1
    (axes,) = prior_samples({"x": images}).axes
    assert_shows(axes, np.clip(images, 0, 1), num_across=5)
    assert not caplog.records  # matplotlib, which would cut them off too, logs that it does


def test_examples_that_do_not_fit_are_refused(given, generated):
    with pytest.raises(ValueError, match=r"given names \['grey'\]"):
        cross_generation_grid({"grey": given["grey"]}, generated)
    with pytest.raises(ValueError, match=r"'word': \[4, 5, 5, 5\]"):
        cross_generation_grid(given | {"word": WORDS[:4]}, generated)
    with pytest.raises(ValueError, match=r"'word': \[4\]"):
        prior_samples({"grey": given["grey"], "word": WORDS[:4]})
    with pytest.raises(ValueError, match="images have 2 channels"):
        prior_samples({"x": make_images(0, 2)})


def test_training_curve_draws_a_line_per_name():
    steps = np.array([0, 10, 20])
    values = {"train": np.array([3.0, 2.0, 1.0]), "test": np.array([4.0, 3.0, 2.5])}
    figure = training_curve(steps, values, ylabel="nats")
    (axes,) = figure.axes
    for line, (name, expected) in zip(axes.lines, values.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), steps)
        np.testing.assert_array_equal(line.get_ydata(), expected)
    assert axes.get_xlim() == (0, 20)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "nats")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]
    assert_draws(figure)


def test_a_curve_of_one_step_is_seen():
    figure = training_curve(np.array([2]), {"loss": np.array([3.0])})
    (line,) = figure.axes[0].lines
    assert line.get_marker() == "o"
    left, right = figure.axes[0].get_xlim()
    assert left < 2 < right
    assert_draws(figure)


def test_latent_map_colours_points_by_class():
    points = np.random.default_rng(0).standard_normal((30, 2))
    labels = np.arange(30) % 3 * 4  # classes 0, 4 and 8
    figure = latent_map(points, labels)
    (axes,), (legend,) = figure.axes, figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "4", "8"]
    for c, cloud in zip([0, 4, 8], axes.collections, strict=True):
        np.testing.assert_array_equal(cloud.get_offsets(), points[labels == c])
        np.testing.assert_array_equal(cloud.get_facecolor()[0], to_rgba(f"C{c}", 0.75))
    assert_draws(figure)


def test_the_projection_keeps_clusters_apart_and_is_repeatable():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    z = (10 * np.eye(3, 8)[labels] + rng.standard_normal((60, 8))).astype(np.float32)
    points = project_2d(z)
    assert points.shape == (60, 2)
    distances = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(60)
    np.testing.assert_array_equal(labels[distances.argmin(axis=1)], labels)
    np.testing.assert_array_equal(project_2d(z), points)


def test_without_scikit_learn_the_projection_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ImportError, match=r"mmvae_jax\[experiments\]"):
        project_2d(np.zeros((3, 2)))
