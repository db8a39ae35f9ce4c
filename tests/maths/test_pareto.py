"""Pareto k-hat against arviz-stats, where its fit degenerates, and the weights that it is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

from mmvae_jax.maths.pareto import keep_largest, largest_reliable_k, tail_size
from mmvae_jax.maths.pareto import pareto_k as fit

pareto_k = jax.jit(fit)


def largest_of(log_w):
    """The tail and its threshold, descending, of ``log_w [s *b]``."""
    return jnp.asarray(-np.sort(-log_w, axis=0)[: tail_size(len(log_w)) + 1])


def samples(num_weights):
    """Log weights by column: powers of uniform numbers, log-normal, tied, and some zero."""
    rng = np.random.default_rng(num_weights)
    u = rng.uniform(size=num_weights)
    shapes = [-k * np.log(u) for k in (-0.5, 0.1, 0.5, 0.7, 1.0, 3.0)]
    tied = np.round(2 * np.log(u), 1)  # some 50 distinct weights
    zeros = np.where(rng.uniform(size=num_weights) < 0.3, -np.inf, -0.6 * np.log(u))
    return np.stack([*shapes, 2 * rng.normal(size=num_weights) - 300, -tied, zeros], axis=1)


@pytest.mark.parametrize("num_weights", [40, 224, 226, 1000])
def test_equals_arviz(x64, num_weights):
    log_w = samples(num_weights)
    expected = [array_stats.psislw(-column)[1] for column in log_w.T]
    np.testing.assert_allclose(pareto_k(largest_of(log_w)), expected, rtol=1e-9)


def test_single_precision(x64):
    log_w = samples(1000)
    expected = pareto_k(largest_of(log_w))
    with jax.enable_x64(False):
        found = pareto_k(largest_of(log_w.astype(np.float32)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_tails(x64, dtype):
    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=1000)
    columns = {
        "equal": np.full(1000, 7.0),
        "equal up to rounding": 3000 + 1e-4 * uniform
        if dtype == np.float32
        else 3000 + 0 * uniform,
        "one outweighs": np.where(np.arange(1000) == 5, 0, -200 - uniform),
        "three are not zero": np.where(np.arange(1000) < 3, uniform, -np.inf),
        "no weight at all": np.full(1000, -np.inf),
        "thousands of nats apart": 3000 * rng.normal(size=1000),
    }
    log_w = np.stack(list(columns.values()), axis=1).astype(dtype)
    found = dict(zip(columns, np.asarray(pareto_k(largest_of(log_w))), strict=True))
    assert found.pop("equal") == found.pop("equal up to rounding") == -np.inf
    assert all(k == np.inf for k in found.values()), found


def test_too_few_weights():
    """Fewer than 25 weights have no tail of five."""
    log_w = np.random.default_rng(0).normal(size=(24, 3))
    np.testing.assert_array_equal(pareto_k(largest_of(log_w)), np.full(3, np.inf))
    assert np.isfinite(pareto_k(largest_of(np.tile(log_w, (2, 1))[:25]))).all()


@pytest.mark.parametrize("num_draws", [1, 4, 40])  # one by one, or all at once
def test_largest_of_tiles_are_the_largest_of_all(num_draws):
    rng = np.random.default_rng(num_draws)
    log_w = np.round(rng.normal(size=(2, 120, 3)), 1).astype(np.float32)
    log_w[0, ::7] = -np.inf
    kept = jnp.full((2, 15, 3), -jnp.inf)
    merge = jax.jit(keep_largest)
    for tile in np.split(log_w, 120 // num_draws, axis=1):
        kept = merge(kept, tile)
    np.testing.assert_array_equal(kept, -np.sort(-log_w, axis=1)[:, :15])


def test_threshold_of_reliable_estimates():
    """It grows with the sample, and every larger one than 10^(1/0.3) has 0.7."""
    found = [largest_reliable_k(num) for num in (10, 100, 1000, 2155, 10**6)]
    np.testing.assert_allclose(found, [0, 0.5, 2 / 3, 0.7, 0.7], atol=1e-4)
