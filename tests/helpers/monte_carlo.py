"""Comparisons of random estimates with exact values."""

from functools import partial

import jax
import numpy as np

NUM_SIGMA = 4  # standard errors that an estimate may be away

# `jax.jit` for programs that run for seconds; the other tests compile without optimisation.
optimised_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "2"})


def on_keys(estimate, num_keys, seed=0):
    """Results of ``estimate(key)`` for independent keys, stacked."""
    keys = jax.random.split(jax.random.key(seed), num_keys)
    results = [jax.device_get(estimate(key)) for key in keys]
    return jax.tree.map(lambda *values: np.stack(values), *results)


def mean_and_error(values):
    """Mean over independent keys, and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def relative_error(diagnostics, K):
    """Standard error of the log of a mean of K weights (delta method)."""
    return np.sqrt(np.maximum(1 / diagnostics.ess - 1 / K, 1e-12))


def assert_within(estimate, standard_error, exact):
    """Equal up to the Monte-Carlo error, and undefined in the same places."""
    exact = np.broadcast_to(exact, estimate.shape)
    np.testing.assert_array_equal(np.isnan(estimate), np.isnan(exact))
    z = np.abs(estimate - exact) / standard_error
    assert np.nanmax(z) < NUM_SIGMA, f"{np.nanmax(z):.1f} standard errors away"


def rms(errors):
    return np.sqrt(np.nanmean(np.square(errors)))
