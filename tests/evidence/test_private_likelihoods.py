"""Likelihoods of models with private latents and clusters, against closed forms."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from helpers.linear_gaussian import hide, masks
from helpers.monte_carlo import NUM_SIGMA, assert_within, mean_and_error, on_keys
from helpers.private_gaussian import private_gaussian

import mmvae_jax as mm

pytestmark = pytest.mark.usefixtures("x64")

FEW = {"num_chains": 4, "num_temperatures": 6, "num_leapfrog": 2, "step_size": 0.8}


def make_problem(num_clusters, num_modalities=3, **changes):
    """Closed forms, the model, complete data, masks and the batch with NaN where masked."""
    case = dataclasses.replace(private_gaussian(num_modalities, num_clusters), **changes)
    mask = masks(case.names)
    data = case.sample(len(mask["a"]))
    return case, case.model(), data, mask, mm.Batch(hide(data, mask), mask)


def by_row(data, mask, value):
    """Values of ``value(row of the data, observed names)``, NaN where it gives None."""
    found = []
    for b in range(len(mask["a"])):
        row = {name: x[b : b + 1] for name, x in data.items()}
        x = value(row, [name for name in data if mask[name][b]])
        found.append(np.nan if x is None else x[0])
    return np.array(found)


def ratios(estimate, log_p, num_keys=20, K=2000):
    """Estimated over exact likelihoods."""
    return np.exp(-on_keys(partial(estimate, K=K, batch_size_K=500), num_keys) - log_p)


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_joint(num_clusters):
    """Unbiased for every pattern of masks, however narrow the experts are."""
    for inflation in (1.5, 0.05):
        case, model, data, mask, batch = make_problem(num_clusters, inflation=inflation)
        truth = by_row(data, mask, case.log_prob)
        found = ratios(partial(mm.compute_joint_nll, model, batch), truth)
        mean, error = mean_and_error(found)
        assert_within(mean, error, 1)
        # Few of the prior's particles fall near narrow posteriors: tails are heavy there.
        assert error.max() < (0.05 if inflation > 1 else 1)


def test_joint_of_clusters_and_private_latents():
    """The fast one of the cases above: two modalities, a few keys."""
    case, model, data, mask, batch = make_problem(3, num_modalities=2)
    truth = by_row(data, mask, case.log_prob)
    found = ratios(partial(mm.compute_joint_nll, model, batch), truth, num_keys=8)
    mean, error = mean_and_error(found)
    assert np.all(np.abs(mean - 1) < 6 * error)  # eight keys: a t distribution
    assert error.max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
@pytest.mark.parametrize("cond_mod", ["a", "b", "all"])
def test_marginal(num_clusters, cond_mod):
    """From the own expert, another one, which knows nothing of w_a, or all."""
    case, model, data, mask, batch = make_problem(num_clusters)
    given = case.names if cond_mod == "all" else (cond_mod,)

    def log_marginal(row, seen):
        return case.log_prob(row, ["a"]) if "a" in seen and {*given} & {*seen} else None

    truth = by_row(data, mask, log_marginal)
    estimate = partial(mm.compute_marginal_nll, model, batch, modality="a", cond_mod=cond_mod)
    mean, error = mean_and_error(ratios(estimate, truth))
    assert_within(mean, error, np.where(np.isnan(truth), np.nan, 1))
    assert np.nanmax(error) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_conditional(num_clusters):
    """log p(x_b, x_c | x_a): a ratio, whose bias is of order 1/K."""
    case, model, data, mask, batch = make_problem(num_clusters)

    def log_cond(row, seen):
        target = [name for name in ("b", "c") if name in seen]
        return case.log_cond(row, target, ["a"]) if target and "a" in seen else None

    truth = by_row(data, mask, log_cond)
    estimate = partial(mm.compute_cond_nll_ratio, model, batch, cond_mod="a", pred_mods=("b", "c"))
    mean, error = mean_and_error(np.log(ratios(estimate, truth, K=4000)))
    np.testing.assert_array_equal(np.isnan(mean), np.isnan(truth))
    assert np.nanmax(np.abs(mean) - NUM_SIGMA * error) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_annealed(num_clusters):
    """E[exp(-nll)] = p(X) with six temperatures."""
    case, model, data, mask, batch = make_problem(num_clusters)
    truth = by_row(data, mask, case.log_prob)
    keys = jax.random.split(jax.random.key(0), 1000)
    estimate = jax.jit(jax.vmap(partial(mm.compute_joint_nll_ais, model, batch, **FEW)))
    ratio = np.exp(-np.asarray(estimate(keys)) - truth)
    assert_within(*mean_and_error(ratio), 1)


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_annealed_bounds(num_clusters):
    """E[exp(lower)] p(X) = 1 = E[exp(-upper)] / p(X) for the data that the model draws."""
    case = private_gaussian(2, num_clusters)
    model, num_keys = case.model(), 600

    def drawn(key):
        """The example that ``bound_joint_nll_ais`` draws with this key."""
        prior_key, data_key, _ = jax.random.split(key, 3)
        z = mm.generate_from_prior(model, prior_key, 1)
        return mm.decode(model, z, key=data_key, sample=True)

    bounds = partial(mm.bound_joint_nll_ais, model, 1, **FEW)
    (lower, upper), data = (
        jax.device_get(jax.jit(jax.vmap(f))(jax.random.split(jax.random.key(1), num_keys)))
        for f in (bounds, drawn)
    )
    truth = -case.log_prob({m: x[:, 0] for m, x in data.items()}, case.names)
    for ratio in (np.exp(lower[:, 0] - truth), np.exp(truth - upper[:, 0])):
        assert_within(*mean_and_error(ratio), 1.0)
    assert (upper - lower).mean() > 0


@pytest.mark.slow
@pytest.mark.parametrize("num_clusters", [1, 3])
def test_importance_weighted_latents_are_the_posterior(num_clusters):
    """The mean of u and of every w, given two of three modalities; w of others is from p(w)."""
    case, model, data, mask, batch = make_problem(num_clusters)
    rows = np.flatnonzero(mask["a"] | mask["b"])
    batch = jax.tree.map(lambda x: x[rows], batch)
    weighting = mm.ImportanceWeighting(num_particles=4000)

    def encode(key):
        options = {"cond_mod": ("a", "b"), "return_mean": True, "weighting": weighting}
        return mm.encode(model, batch, key, **options)[:, 0]

    mean, error = mean_and_error(on_keys(encode, 16))
    for b, row in enumerate(rows):
        names = [m for m in ("a", "b") if mask[m][row]]
        exact = case.posterior_mean({m: x[row : row + 1] for m, x in data.items()}, names)[0]
        assert np.all(np.abs(mean[b] - exact) < 5 * error[b] + 0.01), (row, mean[b], exact)
    assert error.max() < 0.1
