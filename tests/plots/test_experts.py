"""Figures of experts: numbers in their places, with lengths and tints that show their size."""

import numpy as np
import pytest
from helpers.figure_checks import assert_draws
from matplotlib.colors import to_rgba

from mmvae_jax.plots import divergence_bars, responsibilities, weight_histogram


def test_divergence_bars_are_as_long_as_the_numbers():
    divergence = {"a": {"b": 3.0, "prior": 5.0}, "b": {"a": 4.0, "prior": 12.0}}
    figure = divergence_bars(divergence, xlabel="nats")
    (axes,) = figure.axes
    names = ["KL(a \u2016 b)", "KL(a \u2016 prior)", "KL(b \u2016 a)", "KL(b \u2016 prior)"]
    assert [text.get_text() for text in axes.get_yticklabels()] == names
    bars = axes.patches
    assert [bar.get_width() for bar in bars] == [3, 5, 4, 12]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    np.testing.assert_allclose(axes.get_yticks(), middles)
    assert middles == sorted(middles, reverse=True)  # from the top, in groups by posterior
    assert middles[1] - middles[2] > middles[0] - middles[1]
    colours = [to_rgba(bar.get_facecolor()) for bar in bars]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    assert [text.get_text() for text in axes.texts] == ["3", "5", "4", "12"]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("nats", "linear")
    assert_draws(figure)


@pytest.mark.parametrize(
    ("values", "scale"), [((1.0, 30.0), "linear"), ((1.0, 31.0), "log"), ((0.0, 31.0), "linear")]
)
def test_divergences_of_very_different_sizes_get_a_logarithmic_axis(values, scale):
    (axes,) = divergence_bars({"a": dict(zip("bc", values, strict=True))}).axes
    assert axes.get_xscale() == scale


@pytest.mark.parametrize("divergence", [{}, {"a": {}}, {"a": {"b": -0.5}}])
def test_missing_or_negative_divergences_are_refused(divergence):
    with pytest.raises(ValueError, match=r"divergence is {"):
        divergence_bars(divergence)


SHARES = {"a": {"a": 0.7, "b": 0.3}, "b": {"a": 0.105, "b": 0.895}}


def test_responsibilities_are_printed_and_tinted():
    figure = responsibilities(SHARES)
    (axes,) = figure.axes
    printed = {text.get_position(): text.get_text() for text in axes.texts}
    assert printed == {
        (0.5, 0.5): "0.70",
        (1.5, 0.5): "0.30",
        (0.5, 1.5): "0.10",
        (1.5, 1.5): "0.90",
    }
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), [[0.7, 0.3], [0.105, 0.895]])
    assert mesh.get_clim() == (0, 1)  # the same tint is the same share in every figure
    assert axes.yaxis_inverted()  # the first row is above
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [text.get_text() for text in labels] == ["a", "b"]
    assert "0.50 everywhere: the posteriors agree" in figure.get_supxlabel()
    assert_draws(figure)


def test_other_tables_are_no_responsibilities():
    with pytest.raises(ValueError, match=r"shares has experts {}"):
        responsibilities({})
    with pytest.raises(ValueError, match=r"shares has experts .*'b': \['b', 'a'\]"):
        responsibilities({"a": SHARES["a"], "b": {"b": 0.5, "a": 0.5}})
    with pytest.raises(ValueError, match=r"rows of shares sum to {'a': 1.0, 'b': 0.75}"):
        responsibilities({"a": SHARES["a"], "b": {"a": 0.5, "b": 0.25}})
    with pytest.raises(ValueError, match=r"rows of shares sum to {'a': nan}"):
        responsibilities({"a": {"a": float("nan"), "b": 0.5}})


def log_weights_of(num_equal: list[int], K: int) -> np.ndarray:
    """Returns log weights [k b]: ``num_equal[b]`` equal ones, the others negligible."""
    is_equal = np.arange(K)[:, None] < np.array(num_equal)[None]
    return np.where(is_equal, 1000.0, -1e9).astype(np.float32)


def test_weight_histograms_show_the_effective_sample_sizes_of_observed_examples():
    # Of n equal weights the effective sample size is n.
    log_w = np.stack([log_weights_of([1, 1, 4, 2], 4), log_weights_of([3, 3, 1, 4], 4)])
    log_w[1, :, 3] = np.nan  # a placeholder of the missing modality
    mask = np.array([[True, True, True, True], [True, True, True, False]])
    figure = weight_histogram(log_w, ["a", "b"], mask)
    expected = [{1: 2 / 4, 2: 1 / 4, 4: 1 / 4}, {1: 1 / 3, 3: 2 / 3}]
    for axes, shares in zip(figure.axes, expected, strict=True):
        bars = [bar for bar in axes.patches if bar.get_height()]
        np.testing.assert_allclose([bar.get_height() for bar in bars], list(shares.values()))
        for bar, size in zip(bars, shares, strict=True):
            left = bar.get_x()
            assert left - 1e-6 <= size <= left + bar.get_width() + 1e-6
    tops = [axes.get_yticklabels()[0].get_text() for axes in figure.axes]
    assert tops == ["50%", "67%"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "b"]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["median 1.5", "median 3"]
    assert "K = 4" in figure.axes[-1].get_xlabel()
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["1", "2", "4"]
    assert_draws(figure)


@pytest.mark.parametrize("K", [1, 3, 17])
def test_the_smallest_and_the_largest_sample_sizes_are_counted(K):
    (axes,) = weight_histogram(log_weights_of([1, K], K)[None], ["a"]).axes
    np.testing.assert_allclose(sum(bar.get_height() for bar in axes.patches), 1)


def test_a_modality_that_was_never_observed_has_no_histogram():
    figure = weight_histogram(np.zeros((2, 3, 4)), ["a", "b"], np.eye(2, dtype=bool)[:, [0] * 4])
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["median 3", "never observed"]
    assert not any(bar.get_height() for bar in figure.axes[1].patches)
    assert_draws(figure)


def test_weights_without_a_name_are_refused():
    with pytest.raises(ValueError, match=r"names is \['a'\], log_w has 2 experts"):
        weight_histogram(np.zeros((2, 3, 4)), ["a"])
