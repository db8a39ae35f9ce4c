"""Log-likelihoods of a data set against the estimates of its examples."""

import jax
import numpy as np
import pytest
from helpers.small_model import DIMS, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.data import MultimodalArrays
from mmvae_jax.metrics import bits_per_dim, mean_variance, measure_log_likelihoods
from mmvae_jax.metrics.likelihood import _log_likelihood

PAIRS = [("a", "b"), (("a", "b"), "c")]
K = 30


def make_dataset(mask=None):
    return MultimodalArrays({name: np.asarray(x) for name, x in make_data().items()}, mask=mask)


def assert_is(found, estimate, defined):
    """Checks all numbers against the estimates of the examples that define the likelihood."""
    values, k = -np.asarray(estimate[0])[defined], np.asarray(estimate[1].pareto_k)[defined]
    assert np.isfinite(values).all()
    assert found.num_rows == len(values)
    np.testing.assert_allclose(found.mean, values.mean(), rtol=1e-6)
    np.testing.assert_allclose(
        found.standard_error, values.std(ddof=1) / len(values) ** 0.5, rtol=1e-6
    )
    np.testing.assert_allclose(found.pareto_k, np.median(k), rtol=1e-6)
    np.testing.assert_allclose(found.unreliable, np.mean(k > 1 - 1 / np.log10(K)))


@pytest.mark.slow
def test_means_and_errors_are_of_the_examples_for_which_each_is_defined():
    model, mask, key = make_model(), every_mask(), jax.random.key(0)
    batch = mm.Batch(make_data(), mask)
    found = measure_log_likelihoods(
        model, make_dataset(mask), key.copy(), conditional=PAIRS, K=K, batch_size=8
    )
    keys = jax.random.split(jax.random.fold_in(key, 0), 6)
    options = {"K": K, "return_diagnostics": True}
    a, b, c = (mask[name] for name in DIMS)
    assert_is(found.joint, mm.compute_joint_nll(model, batch, keys[0], **options), a | b | c)
    for name, key in zip(DIMS, keys[1:4], strict=True):
        nll = mm.compute_marginal_nll(model, batch, key, modality=name, cond_mod=name, **options)
        assert_is(found.marginal[name], nll, mask[name])
    defined = [a & b, (a | b) & c]
    for pair, key, where in zip(PAIRS, keys[4:], defined, strict=True):
        nll = mm.compute_cond_nll_ratio(
            model, batch, key, cond_mod=pair[0], pred_mods=pair[1], **options
        )
        assert_is(found.conditional[pair], nll, where)


def test_unknown_numbers_are_none_in_json():
    """One example has no standard error; too few particles have no k-hat, and are unreliable."""
    moments = mean_variance(np.array([-3.0]))
    estimate = _log_likelihood(moments, np.array([np.nan]), 5)
    assert estimate.as_json() == {
        "mean": -3.0,
        "standard_error": None,
        "pareto_k": None,
        "unreliable": 1.0,
    }


@pytest.mark.slow
def test_batches_add_up_to_all_examples():
    model, dataset = make_model(), make_dataset()
    found = measure_log_likelihoods(model, dataset, jax.random.key(0), K=500, batch_size=3)
    whole = measure_log_likelihoods(model, dataset, jax.random.key(1), K=500, batch_size=8)
    assert found.joint.num_rows == whole.joint.num_rows == 8
    np.testing.assert_allclose(found.joint.mean, whole.joint.mean, rtol=0.02)  # other particles


@pytest.mark.parametrize("num_levels", [1, 256])
def test_the_uniform_costs_every_bit(num_levels):
    """A density of 1 on 0 to 1 makes all levels equally probable: log2 levels bits each."""
    log_density = 0.0
    assert bits_per_dim(log_density, (28, 28, 3), num_levels=num_levels) == np.log2(num_levels)
