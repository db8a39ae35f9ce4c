"""Frechet distances against closed forms, the textbook's formula and its invariances."""

import numpy as np
import pytest
import scipy.linalg

from mmvae_jax.metrics import MeanCovariance, frechet_distance, mean_covariance


def of_normal(mean, covariance):
    """Returns the moments of infinitely many draws."""
    mean, covariance = np.asarray(mean, float), np.asarray(covariance, float)
    return MeanCovariance(2, mean, covariance)  # of two vectors, scatter / (2 - 1)


def make_moments(seed, num_rows=200, num_features=6):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((num_rows, num_features)) @ rng.standard_normal((num_features,) * 2)
    return mean_covariance(x + rng.standard_normal(num_features))


def test_normals_of_one_axis():
    """(m - n)^2 + (s - t)^2."""
    distance = frechet_distance(of_normal([1], [[4]]), of_normal([3], [[25]]))
    np.testing.assert_allclose(distance, 2**2 + 3**2, rtol=1e-14)


def test_the_mean_alone():
    p, shift = make_moments(0), np.array([3, 4, 0, 0, 0, 0])
    np.testing.assert_allclose(frechet_distance(p, p._replace(mean=p.mean + shift)), 25)


def test_covariances_with_common_axes():
    """The squared distance of the standard deviations along them."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    a, b = np.array([1.0, 2, 3, 0]), np.array([2.0, 2, 0, 5])
    p, q = (of_normal(np.zeros(4), axes * scale**2 @ axes.T) for scale in (a, b))
    np.testing.assert_allclose(frechet_distance(p, q), np.square(a - b).sum(), rtol=1e-12)


def test_the_formula_of_the_textbook():
    p, q = make_moments(0), make_moments(1)
    root = scipy.linalg.sqrtm(p.covariance @ q.covariance)
    expected = np.square(p.mean - q.mean).sum() + np.trace(
        p.covariance + q.covariance - 2 * np.real(root)
    )
    np.testing.assert_allclose(frechet_distance(p, q), expected, rtol=1e-9)


def test_rotations_and_shifts_of_both_change_nothing_and_scale_its_square():
    rng = np.random.default_rng(3)
    turn, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    x, y = rng.standard_normal((50, 6)), 2 * rng.standard_normal((70, 6)) + 1
    plain = frechet_distance(mean_covariance(x), mean_covariance(y))
    np.testing.assert_allclose(frechet_distance(mean_covariance(y), mean_covariance(x)), plain)
    moved = [mean_covariance(3 * v @ turn + 7) for v in (x, y)]
    np.testing.assert_allclose(frechet_distance(*moved), 9 * plain)


def test_fewer_images_than_features():
    """Of 20 rows each, 100 features: the matrix square root of a product that has no inverse."""
    p, q = make_moments(0, 20, 100), make_moments(1, 20, 100)
    assert frechet_distance(p, p) < 1e-12 * np.trace(p.covariance)
    cross = np.linalg.eigvals(p.covariance @ q.covariance).real
    expected = np.square(p.mean - q.mean).sum() + np.trace(p.covariance + q.covariance)
    expected -= 2 * np.sqrt(cross[cross > 1e-9 * cross.max()]).sum()
    np.testing.assert_allclose(frechet_distance(p, q), expected, rtol=1e-6)


def test_the_estimate_comes_close_with_many_rows():
    """Both sets are of one distribution: the bias falls as features / rows."""
    rng = np.random.default_rng(0)
    distances = [
        frechet_distance(*(mean_covariance(rng.standard_normal((n, 4))) for _ in range(2)))
        for n in (100, 10_000)
    ]
    assert 0 < distances[1] < distances[0] / 10


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="p has 6 features and q has 4"):
        frechet_distance(make_moments(0), make_moments(0, num_features=4))
