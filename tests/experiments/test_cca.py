"""CCA on pairs whose canonical correlations are known, and its invariances."""

import doctest

import numpy as np
import pytest

import experiments.cca
from experiments.cca import fit_cca

CORRELATIONS = np.array([0.9, 0.6, 0.0])


def make_pairs(num_pairs, seed=0, correlations=CORRELATIONS):
    """Returns x and y, mixtures of variates whose i-th pair has the i-th correlation."""
    rng, mix = np.random.default_rng(seed), np.random.default_rng(99)
    u, noise = rng.standard_normal((2, num_pairs, 3))
    v = correlations * u + np.sqrt(1 - correlations**2) * noise
    extra = rng.standard_normal((num_pairs, 2))  # y has two axes more
    y = np.concatenate([v, extra], axis=1)
    return u @ mix.standard_normal((3, 3)) + 5, y @ mix.standard_normal((5, 5)) - 2


def test_correlations_are_found():
    """The standard error is (1 - rho^2) / sqrt(n); the smallest is biased upwards by as much."""
    n = 40_000
    cca = fit_cca(*make_pairs(n), num_axes=3)
    error = np.abs(cca.correlations - CORRELATIONS) * np.sqrt(n) / (1 - CORRELATIONS**2)
    assert error.max() < 4


def test_projections_of_training_data_have_unit_variance_and_those_correlations():
    x, y = make_pairs(500)
    cca = fit_cca(x, y, num_axes=3)
    u, v = (x - cca.x_mean) @ cca.x_axes, (y - cca.y_mean) @ cca.y_axes
    covariance = np.cov(np.concatenate([u, v], axis=1).T)
    np.testing.assert_allclose(covariance[:3, :3], np.eye(3), atol=1e-10)
    np.testing.assert_allclose(covariance[3:, 3:], np.eye(3), atol=1e-10)
    np.testing.assert_allclose(covariance[:3, 3:], np.diag(cca.correlations), atol=1e-10)


def test_linear_maps_of_either_side_change_nothing():
    x, y = make_pairs(500)
    test_x, test_y = make_pairs(50, seed=1)
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((3, 3)), rng.standard_normal((5, 5))
    plain, mapped = fit_cca(x, y, num_axes=2), fit_cca(x @ a + 1, y @ b - 1, num_axes=2)
    np.testing.assert_allclose(mapped.correlations, plain.correlations, rtol=1e-8)
    scores = plain.score(test_x, test_y)
    np.testing.assert_allclose(mapped.score(test_x @ a + 1, test_y @ b - 1), scores, atol=1e-8)


def test_pairs_score_more_than_strangers():
    cca = fit_cca(*make_pairs(2000), num_axes=2)
    x, y = make_pairs(2000, seed=1)
    paired, strangers = cca.score(x, y), cca.score(x, np.roll(y, 1, axis=0))
    assert np.abs(paired).max() <= 1 + 1e-12
    assert paired.mean() > 0.5
    assert abs(strangers.mean()) < 4 * strangers.std() / np.sqrt(2000)
    exact = make_pairs(100, correlations=np.ones(3))
    np.testing.assert_allclose(fit_cca(*exact, num_axes=3).score(*exact), 1, atol=1e-6)
    np.testing.assert_array_equal(cca.score(cca.x_mean[None], y[:1]), 0)


def test_a_ridge_keeps_few_pairs_from_correlating_by_chance():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 30)), rng.standard_normal((20, 30))
    np.testing.assert_allclose(fit_cca(x, y, num_axes=5).correlations, 1, atol=1e-9)
    assert fit_cca(x, y, num_axes=5, ridge=10.0).correlations.max() < 0.6


def test_a_duplicated_entry_is_no_direction_of_its_own():
    x, y = make_pairs(500)
    doubled = np.concatenate([x, x[:, :1]], axis=1)
    plain, found = fit_cca(x, y, num_axes=3), fit_cca(doubled, y, num_axes=3)
    np.testing.assert_allclose(found.correlations, plain.correlations, rtol=1e-8)


def test_what_does_not_fit_is_refused():
    x, y = make_pairs(50)
    with pytest.raises(ValueError, match="num_axes is 4"):
        fit_cca(x, y, num_axes=4)
    with pytest.raises(ValueError, match="x has 50 rows and y has 49"):
        fit_cca(x, y[1:])


def test_examples_in_docstrings():
    results = doctest.testmod(experiments.cca)
    assert results.attempted >= 2
    assert results.failed == 0
