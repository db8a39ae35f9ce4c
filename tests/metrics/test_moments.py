"""Moments of merged batches against those of all rows at once."""

import functools

import numpy as np
import pytest

from mmvae_jax.metrics import MeanCovariance, MeanVariance, mean_covariance, mean_variance


def make_batches():
    """Returns batches of different sizes, one of them empty, masks, and the rows that count."""
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((n, 3)) @ rng.standard_normal((3, 3)) for n in (5, 1, 0, 8)]
    mask = [rng.random(len(rows)) < 0.7 for rows in x]
    kept = np.concatenate([rows[where] for rows, where in zip(x, mask, strict=True)])
    return x, mask, kept


def test_merged_variances_are_those_of_all_rows_that_count():
    x, mask, kept = make_batches()
    merged = functools.reduce(MeanVariance.merge, map(mean_variance, x, mask))
    assert merged.num_rows == len(kept)
    np.testing.assert_allclose(merged.mean, kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.variance, kept.var(0), rtol=1e-12)
    standard_error = kept.std(0, ddof=1) / np.sqrt(len(kept))
    np.testing.assert_allclose(merged.standard_error, standard_error, rtol=1e-12)


def test_merged_covariances_are_those_of_all_rows_that_count():
    x, mask, kept = make_batches()
    merged = functools.reduce(MeanCovariance.merge, map(mean_covariance, x, mask))
    np.testing.assert_allclose(merged.mean, kept.mean(0), rtol=1e-12)
    np.testing.assert_allclose(merged.covariance, np.cov(kept.T), rtol=1e-12)


def test_what_is_masked_may_be_anything():
    x = np.array([1.0, np.nan, 3.0, np.inf])
    moments = mean_variance(x, np.array([True, False, True, False]))
    assert (moments.num_rows, moments.mean, moments.variance) == (2, 2, 1)


def test_a_mean_far_from_zero_costs_no_digits():
    """Raw sums of squares, 1e16, would hold the variance, about 1, in their last bits."""
    x = np.random.default_rng(0).standard_normal((1000, 2))
    parts = np.split(x + 1e8, 10)
    merged = functools.reduce(MeanCovariance.merge, map(mean_covariance, parts))
    np.testing.assert_allclose(merged.covariance, np.cov(x.T), rtol=1e-6, atol=1e-7)
    merged = functools.reduce(MeanVariance.merge, map(mean_variance, parts))
    np.testing.assert_allclose(merged.variance, x.var(0), rtol=1e-6)


def test_moments_of_too_few_rows_are_undefined():
    none, one = mean_variance(np.zeros((0, 2))), mean_variance(np.ones((1, 2)))
    assert np.isnan(none.variance).all()
    assert np.isnan(none.standard_error).all()
    assert np.isnan(one.standard_error).all()
    assert (none.merge(one).mean == 1).all()
    with pytest.raises(ValueError, match="num_rows is 1"):
        _ = mean_covariance(np.ones((1, 2))).covariance
