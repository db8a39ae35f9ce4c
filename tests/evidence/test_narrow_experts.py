"""Likelihoods where the experts are ten times too narrow: the share of the prior makes them right.

Without a share of the prior, joint and marginal estimates miss most of the likelihood.
"""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from helpers.linear_gaussian import hide, linear_gaussian, masks
from helpers.monte_carlo import assert_within, mean_and_error, on_keys

import mmvae_jax as mm

pytestmark = pytest.mark.usefixtures("x64")

NUM_KEYS = 24
K = 300


@pytest.fixture(scope="module")
def narrow():
    """A closed form, its model with narrow experts, complete data, and an incomplete batch."""
    case = dataclasses.replace(linear_gaussian(2), inflation=0.01)
    mask = masks(case.names)
    data = case.sample(len(mask["a"]))
    with jax.enable_x64(True):
        return case, case.model(), data, mm.Batch(hide(data, mask), mask)


def ratios(estimate, log_p):
    """Estimated over exact likelihoods for independent keys, ``[keys b]``; NaN where undefined."""
    nll = on_keys(partial(estimate, K=K, batch_size_K=K), NUM_KEYS)
    return np.exp(-nll - log_p)


def seen_rows(batch, names):
    """True for the rows that observe all of these."""
    return np.all([batch.mask[name] for name in names], axis=0)


@pytest.mark.slow
def test_joint_likelihood_is_unbiased(narrow):
    """Of both modalities and of each by itself: the mean of p-hat / p is 1."""
    case, model, data, batch = narrow
    log_p = np.zeros(3)
    for names in (case.names, case.names[:1], case.names[1:]):
        rows = [[name in names for name in case.names]] == np.stack(list(batch.mask.values()), 1)
        log_p[rows.all(1)] = case.log_prob(data, names)[rows.all(1)]
    joint = partial(mm.compute_joint_nll, model, batch)
    found = ratios(joint, log_p)
    mean, standard_error = mean_and_error(found)
    assert_within(mean, standard_error, 1)
    assert standard_error.max() < 0.1
    without = ratios(partial(joint, prior_share=0.0), log_p)
    assert np.median(without, axis=0).max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("cond_mod", [pytest.param("a", marks=pytest.mark.slow), "b"])
def test_marginal_likelihood_is_unbiased(narrow, cond_mod):
    case, model, data, batch = narrow
    defined = seen_rows(batch, {"a", cond_mod})
    log_p = np.where(defined, case.log_prob(data, ["a"]), np.nan)
    marginal = partial(mm.compute_marginal_nll, model, batch, modality="a", cond_mod=cond_mod)
    mean, standard_error = mean_and_error(ratios(marginal, log_p))
    assert_within(mean, standard_error, np.where(defined, 1, np.nan))
    without = ratios(partial(marginal, prior_share=0.0), log_p)
    assert np.nanmax(np.median(without, axis=0)) < 0.5


@pytest.mark.slow
def test_conditional_likelihood_converges(narrow):
    """A ratio of two estimates with the same particles: consistent, its bias of order 1/K."""
    case, model, data, batch = narrow
    defined = seen_rows(batch, case.names)
    log_p = np.where(defined, case.log_cond(data, ["b"], ["a"]), np.nan)
    ratio = partial(mm.compute_cond_nll_ratio, model, batch, cond_mod="a", pred_mods="b")
    found = np.log(ratios(ratio, log_p))
    mean, standard_error = mean_and_error(found)
    np.testing.assert_array_equal(np.isnan(mean), ~defined)
    assert np.nanmax(np.abs(mean)) < 4 * np.nanmax(standard_error) + 0.02


@pytest.mark.slow
def test_pareto_k_tells_them_apart(narrow):
    """Above the threshold for most keys without a share of the prior, below it with half of it."""
    _, model, _, batch = narrow

    def k(key, prior_share):
        return mm.compute_joint_nll(
            model, batch, key, K=K, prior_share=prior_share, return_diagnostics=True
        )[1].pareto_k

    without, half = (on_keys(partial(k, prior_share=share), 5) for share in (0.0, 0.5))
    assert np.median(without) > 0.7
    assert np.median(half) < 0.5
