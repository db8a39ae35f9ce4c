"""Maps of latents, projections to the plane, and lines between latents."""

import sys

import numpy as np
import pytest
from helpers.figure_checks import assert_draws
from matplotlib.colors import to_rgba

from mmvae_jax.plots import interpolate, latent_map, project_2d
from mmvae_jax.plots.style import COLORS


def test_latent_map_shows_class_by_colour_and_modality_by_shape():
    points = np.random.default_rng(0).standard_normal((30, 2))
    labels = np.arange(30) % 3 * 4  # classes 0, 4 and 8
    modalities = np.array(["image", "word"])[np.arange(30) % 2]
    figure = latent_map(points, labels, modalities.tolist(), method="PCA")
    (axes,) = figure.axes
    for name, cloud in zip(["image", "word"], axes.collections, strict=True):
        own = modalities == name
        np.testing.assert_array_equal(cloud.get_offsets(), points[own])
        expected = [to_rgba(COLORS[c // 4], 0.85) for c in labels[own]]
        np.testing.assert_allclose(cloud.get_facecolor(), expected)
    first, second = (cloud.get_paths()[0].vertices for cloud in axes.collections)
    assert first.shape != second.shape
    legends = {
        legend.get_title().get_text(): [text.get_text() for text in legend.get_texts()]
        for legend in figure.legends
    }
    assert legends == {"class": ["0", "4", "8"], "modality": ["image", "word"]}
    named = {text.get_text(): text.get_position() for text in axes.texts}
    for c in (0, 4, 8):
        np.testing.assert_allclose(named[str(c)], np.median(points[labels == c], axis=0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("PCA axis 1", "PCA axis 2")
    assert_draws(figure)


def test_latent_map_without_modalities():
    figure = latent_map(np.zeros((4, 2)), np.arange(4))
    assert [legend.get_title().get_text() for legend in figure.legends] == ["class"]
    assert figure.axes[0].get_xlabel() == "t-SNE axis 1"
    assert_draws(figure)
    with pytest.raises(ValueError, match=r"lengths are .*'modalities': 1"):
        latent_map(np.zeros((4, 2)), np.arange(4), ["image"])


def test_latent_map_names_the_classes():
    names = ["lung", "brain", "liver"]
    figure = latent_map(np.zeros((4, 2)), np.array([2, 0, 2, 0]), names=names)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lung", "liver"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["lung", "liver"]
    with pytest.raises(ValueError, match="names has 3 names, but labels hold 0 to 3"):
        latent_map(np.zeros((4, 2)), np.arange(4), names=names)


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


def test_latents_lie_evenly_on_the_line_and_include_both_ends():
    z0, z1 = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    line = interpolate(z0, z1, 7)
    np.testing.assert_array_equal(line[0], z0)
    np.testing.assert_array_equal(line[-1], z1)
    shares = np.arange(7)[:, None] / 6
    np.testing.assert_allclose(line, z0 + shares * (z1 - z0), atol=1e-6)  # one rounding
    np.testing.assert_array_equal(interpolate(z0, z1, 2), [z0, z1])
    with pytest.raises(ValueError, match="num is 1"):
        interpolate(z0, z1, 1)
