"""Densities of counts against scipy, their sums, gradients and draws."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mmvae_jax.maths.counts import LARGEST, MAX_LOG_MEAN
from mmvae_jax.maths.likelihoods import LIKELIHOODS

COUNTS = np.array([0, 1, 2, 7, 15, 16, 17, 40, 300, 20_000, 1e6])
MEANS = np.array([0.02, 1.0, 9.5, 250, 2.1e4, 1.001e6])
DISPERSIONS = np.array([1e-3, 0.3, 1.0, 16.5, 2e3])
#: Every count under every mean and dispersion, one entry each.
X, MEAN, DISPERSION = (a.ravel() for a in np.meshgrid(COUNTS, MEANS, DISPERSIONS))
ODDS = np.resize([1e-3, 0.4, 30.0], X.shape)
PARAMS = {
    "poisson": {},
    "negative_binomial": {"dispersion": DISPERSION},
    "zero_inflated_negative_binomial": {"dispersion": DISPERSION, "zero_odds": ODDS},
}


def reference(name):
    """Log densities of ``X`` from scipy, in double precision."""
    if name == "poisson":
        return scipy.stats.poisson.logpmf(X, MEAN)
    log_p = scipy.stats.nbinom.logpmf(X, DISPERSION, DISPERSION / (DISPERSION + MEAN))
    if name == "negative_binomial":
        return log_p
    with np.errstate(divide="ignore"):
        return np.logaddexp(log_p, np.log(np.where(X == 0, ODDS, 0))) - np.log1p(ODDS)


def entries(name, log_mean, x, **params):
    as_arrays = {param: jnp.asarray(value) for param, value in params.items()}
    return LIKELIHOODS[name].entry_log_prob(jnp.asarray(log_mean), jnp.asarray(x), **as_arrays)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PARAMS)
def test_densities_against_scipy(name):
    found = entries(name, np.log(MEAN), X, **PARAMS[name])
    # scipy itself loses digits of log x! for large counts.
    rtol = np.where(X > 1000, 1e-8, 1e-10)
    expected = reference(name)
    assert (np.abs(found - expected) <= rtol * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("name", PARAMS)
def test_single_precision(name):
    """Near the mode, a count of a million has the digits of a count of one."""
    log_mean = np.float32(np.log(MEAN))
    params = {param: np.float32(x) for param, x in PARAMS[name].items()}
    with jax.debug_nans(True):  # no NaN on the way, either
        found = entries(name, log_mean, np.float32(X), **params)
    assert found.dtype == jnp.float32
    with jax.enable_x64(True):
        wide = {param: np.float64(x) for param, x in params.items()}
        expected = np.asarray(entries(name, np.float64(log_mean), X, **wide))
    is_likely = expected > -30
    np.testing.assert_allclose(found[is_likely], expected[is_likely], atol=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.usefixtures("x64")
def test_a_count_under_an_almost_constant_rate():
    """With r of a million, where scipy fails, against the product form of the coefficient."""
    x, mean, r = np.arange(12.0), 3.0, 1e6
    found = entries("negative_binomial", np.full(12, np.log(mean)), x, dispersion=r)
    coefficient = [sum(math.log1p(i / r) for i in range(int(n))) for n in x]
    log_zero = math.log1p(mean / r)
    expected = coefficient - scipy.special.gammaln(x + 1) + x * np.log(mean) - (r + x) * log_zero
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    poisson = entries("poisson", np.full(12, np.log(mean)), x)
    np.testing.assert_allclose(found, poisson, atol=1e-4)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PARAMS)
def test_probabilities_sum_to_one_and_have_the_mean(name):
    x = np.arange(4000.0)
    params = {"dispersion": 0.7, "zero_odds": 0.4}
    params = {param: params[param] for param in PARAMS[name]}
    p = np.exp(entries(name, np.full(x.shape, np.log(20.0)), x, **params))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-10)
    mean = LIKELIHOODS[name].mean(jnp.log(jnp.full(1, 20.0)), **params)[0]
    np.testing.assert_allclose(p @ x, mean, rtol=1e-10)
    if name != "poisson":
        share = 1 / (1 + params.get("zero_odds", 0))
        square = share * (20 + 20**2 / 0.7 + 20**2)
        np.testing.assert_allclose(p @ x**2, square, rtol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PARAMS)
def test_gradients_are_finite_differences(name):
    """By the log mean and by every parameter, in central differences of fourth order."""
    is_small = X <= 300
    values = {param: value[is_small] for param, value in PARAMS[name].items()}
    values["log_mean"] = np.log(MEAN[is_small])

    @jax.jit
    def of(values):
        return entries(name, x=X[is_small], **values)

    gradient = jax.grad(lambda values: of(values).sum())(values)
    for param, value in values.items():
        step = 1e-3 * (1 if param == "log_mean" else value)
        at = {c: of({**values, param: value + c * step}) for c in (-2, -1, 1, 2)}
        difference = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
        np.testing.assert_allclose(gradient[param], difference, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("x", [0.0, 3.0, 400.0])
def test_second_derivatives(x):
    """The rules of derivatives can be differentiated themselves."""
    likelihood = LIKELIHOODS["zero_inflated_negative_binomial"]

    def log_prob(v):
        params = {"dispersion": jnp.exp(v[1]), "zero_odds": jnp.exp(v[2])}
        return likelihood.log_prob(v[:1], jnp.full(1, x), **params)

    point, gradient = jnp.array([0.4, 0.4, -1.0]), jax.jit(jax.grad(log_prob))
    columns = [(gradient(point + e) - gradient(point - e)) / 2e-5 for e in 1e-5 * np.eye(3)]
    found = jax.jit(jax.hessian(log_prob))(point)
    np.testing.assert_allclose(found, np.stack(columns), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PARAMS)
def test_gradients_are_finite_everywhere(name):
    """Also for log means far beyond single precision, and for libraries without a count."""
    decoded = jnp.array([-1e6, -200.0, -88.0, 0.0, MAX_LOG_MEAN, 88.0, 200.0, 1e6])
    values = {"dispersion": jnp.array(0.5), "zero_odds": jnp.array(0.1)}
    values = {param: values[param] for param in PARAMS[name]}

    @partial(jax.jit, static_argnames="library_size")
    @partial(jax.value_and_grad, argnums=(0, 2))
    def value_and_grad(decoded, x, values, library_size):
        return LIKELIHOODS[name].log_prob(decoded, x, **values, library_size=library_size)

    for library_size in (None, 100.0):
        for x in (0.0, 1.0, 1e6):
            x = jnp.full(decoded.shape, x)
            assert all(
                jnp.isfinite(leaf).all()
                for leaf in jax.tree.leaves(value_and_grad(decoded, x, values, library_size))
            )
    value, _ = value_and_grad(decoded, jnp.zeros(8), values, 100.0)
    np.testing.assert_allclose(value, 0, atol=1e-6)  # an empty library has no other count


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PARAMS)
def test_library_size(name):
    """The mean is the row's total times the shares; a shift of the logits changes nothing."""
    logits = np.random.default_rng(0).normal(size=(2, 5))
    x = np.array([[3.0, 0, 7, 1, 0], [0, 0, 400, 2, 90]])
    shares = scipy.special.softmax(logits, -1)
    params = {"dispersion": jnp.linspace(0.3, 2, 5), "zero_odds": 0.2}
    params = {param: params[param] for param in PARAMS[name]}
    expected = entries(name, np.log(shares * x.sum(-1, keepdims=True)), x, **params)
    for shifted in (logits, logits + 3):
        found = entries(name, shifted, x, library_size=1.0, **params)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    mean = LIKELIHOODS[name].mean(jnp.asarray(logits), library_size=1e4, **params)
    np.testing.assert_allclose(mean, 1e4 * shares / (1 + params.get("zero_odds", 0)), rtol=1e-12)


@pytest.mark.parametrize("name", PARAMS)
def test_draws(name):
    """Means, variances and shares of zeros, within four standard errors."""
    log_mean, num = jnp.log(jnp.array([0.05, 2.0, 60.0])), 20_000
    params = {"dispersion": jnp.array([0.2, 1.5, 4.0]), "zero_odds": 0.5}
    params = {param: params[param] for param in PARAMS[name]}
    draw = jax.jit(LIKELIHOODS[name].sample)
    x = np.asarray(draw(jax.random.key(0), jnp.broadcast_to(log_mean, (num, 3)), **params))
    assert (x == np.floor(x)).all()
    assert x.dtype == np.float32
    support = np.arange(3000.0)[:, None]
    p = np.exp(entries(name, np.broadcast_to(log_mean, (3000, 3)), support + np.zeros(3), **params))
    p = p.reshape(3000, 3)
    for statistic in (lambda x: x, np.square, lambda x: np.float64(x == 0)):
        expected = (p * statistic(support)).sum(0)
        error = np.sqrt(((p * statistic(support) ** 2).sum(0) - expected**2) / num)
        assert (np.abs(statistic(np.float64(x)).mean(0) - expected) < 4 * error).all()


def test_draws_of_a_library():
    logits = jnp.broadcast_to(jnp.array([0.0, 1.0, -1.0]), (4000, 3))
    x = LIKELIHOODS["poisson"].sample(jax.random.key(1), logits, library_size=50.0)
    expected = 50 * scipy.special.softmax([0.0, 1.0, -1.0])
    assert (np.abs(x.mean(0) - expected) < 4 * np.sqrt(expected / 4000)).all()


@pytest.mark.parametrize("log_mean", [25.0, 60.0])
def test_draws_of_enormous_means_are_the_largest_counts(log_mean):
    """JAX draws 32-bit integers, which larger means would overflow."""
    x = LIKELIHOODS["poisson"].sample(jax.random.key(0), jnp.full(8, log_mean))
    np.testing.assert_allclose(x, LARGEST, rtol=1e-3)
