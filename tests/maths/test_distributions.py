"""Families, mixture and likelihoods against scipy and against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mmvae_jax.maths.distributions import (
    FAMILIES,
    FLOORED,
    MIN_SCALE,
    RAW_RANGE,
    family_of,
    mixture_log_prob,
    responsibilities,
)
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.likelihoods import LIKELIHOODS, Likelihood, log_likelihood
from mmvae_jax.maths.prior import Prior, prior_log_prob

SCIPY = {
    "normal": scipy.stats.norm,
    "normal_with_softplus": scipy.stats.norm,
    "laplace_with_softmax": scipy.stats.laplace,
}


@pytest.fixture
def points():
    z, loc, raw = jax.random.normal(jax.random.key(0), (3, 5, 4))
    return z, loc, raw


def test_scales(points):
    _, _, raw = points
    laplace = FAMILIES["laplace_with_softmax"].to_scale(raw)
    np.testing.assert_allclose(laplace.sum(-1), 4, rtol=1e-5)
    np.testing.assert_allclose(FAMILIES["normal"].to_scale(raw), np.exp(raw / 2), rtol=1e-6)
    softplus = FAMILIES["normal_with_softplus"].to_scale(raw)
    np.testing.assert_allclose(softplus, np.log1p(np.exp(raw)) + 1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", FLOORED)
def test_scales_have_a_floor(name):
    """Raw outputs of -100 give scales of ``min_scale``, which is added to all others."""
    raw, min_scale = jnp.array([-100.0, 0.0, 1.0]), 0.03
    found = family_of(name, min_scale).to_scale(raw)
    np.testing.assert_allclose(found[0], min_scale, rtol=1e-6)
    np.testing.assert_allclose(found - family_of(name).to_scale(raw), min_scale - 1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_settings_are_one_family(name):
    """A family is static under jit: another object would compile again."""
    min_scale = 0.03 if name in FLOORED else MIN_SCALE
    assert family_of(name) is FAMILIES[name]
    assert family_of(name, min_scale) is family_of(name, min_scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_density_and_draws(name, points):
    z, loc, raw = points
    family, reference = FAMILIES[name], SCIPY[name]
    scale = family.to_scale(raw)
    expected = reference.logpdf(z, loc, scale).sum(-1)
    np.testing.assert_allclose(family.log_prob(z, loc, scale), expected, rtol=1e-4)
    draws = family.standard(jax.random.key(1), (20_000,), jnp.float32)
    assert scipy.stats.kstest(draws, reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_prior_integrates_to_one(name):
    z, step = jnp.linspace(-40, 40, 20_001, retstep=True)
    prior = Prior(jnp.array([0.3]))
    log_p = prior_log_prob(FAMILIES[name], LatentAxes(1), prior, z[:, None])
    np.testing.assert_allclose((jnp.exp(log_p) * step).sum(), 1, rtol=1e-4)


def test_mixture_of_the_observed(points):
    """log of the mean density of the observed experts; responsibilities are shares of it."""
    log_q = points[0]
    mask = jnp.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 0, 0]], bool)
    spoilt = jnp.where(mask, log_q, jnp.nan)
    density = np.where(mask, np.exp(log_q), 0)
    np.testing.assert_allclose(
        mixture_log_prob(spoilt, mask), np.log(density.sum(0) / mask.sum(0)), rtol=1e-5
    )
    np.testing.assert_allclose(
        responsibilities(spoilt, mask), density / density.sum(0), rtol=1e-5, atol=1e-7
    )


def test_likelihoods_against_scipy():
    """Every entry by itself, in the order of the flattened array, and their sum."""
    decoded = np.asarray(jax.random.normal(jax.random.key(2), (6, 3, 4)))
    x = np.asarray(jax.random.uniform(jax.random.key(3), (6, 3, 4)))
    binary = (x > 0.5).astype(np.float32)
    classes = x.argmax(-1)
    logits = decoded - scipy.special.logsumexp(decoded, axis=-1, keepdims=True)
    probs = scipy.special.expit(decoded)
    picked = np.take_along_axis(logits, classes[..., None], -1)[..., 0]
    table = [
        ("normal", x, {"scale": 0.3}, scipy.stats.norm.logpdf(x, decoded, 0.3)),
        ("laplace", x, {"scale": 0.3}, scipy.stats.laplace.logpdf(x, decoded, 0.3)),
        ("bernoulli", binary, {}, scipy.stats.bernoulli.logpmf(binary, probs)),
        ("categorical", classes, {}, picked),
        ("categorical", np.eye(4, dtype=np.float32)[classes], {}, picked),
    ]
    for name, data, params, expected in table:
        likelihood, arrays = LIKELIHOODS[name], (jnp.asarray(decoded), jnp.asarray(data))
        of_entries = jax.vmap(lambda *x, f=likelihood.entry_log_prob, p=params: f(*x, **p))
        entries = of_entries(*arrays)
        axes = (1, 2) if expected.ndim == 3 else (1,)
        np.testing.assert_allclose(entries, expected.reshape(6, -1), rtol=1e-4, err_msg=name)
        ours = log_likelihood(likelihood, params)(*arrays)
        np.testing.assert_allclose(ours, expected.sum(axes), rtol=1e-4, err_msg=name)
        np.testing.assert_array_equal(ours, entries.sum(1))


def test_users_likelihood():
    """A function of one example with its own parameters, such as a Poisson."""

    def poisson(decoded, x, *, exposure):
        return jax.scipy.stats.poisson.logpmf(x, exposure * jnp.exp(decoded)).sum()

    rates, counts = jnp.full((3, 2), 0.4), jnp.array([[0, 1], [2, 3], [4, 5]])
    ours = log_likelihood(Likelihood(poisson), {"exposure": 2.0})(rates, counts)
    expected = scipy.stats.poisson.logpmf(counts, 2 * np.exp(0.4)).sum(-1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_every_named_likelihood_has_a_sampler():
    assert all(likelihood.sample for likelihood in LIKELIHOODS.values())


@pytest.mark.slow
def test_extreme_raw_outputs_have_finite_scales():
    """The scale is ``exp(raw / 2)`` bit for bit in the range, and smooth, finite and increasing."""
    low, high = RAW_RANGE
    to_scale = FAMILIES["normal"].to_scale
    inside = jnp.linspace(low, high, 1001)
    np.testing.assert_array_equal(to_scale(inside), jnp.exp(inside / 2))
    raw = jnp.array([-1e6, -300, low - 1, low, -5, 0, 5, high, high + 1, 300, 1e6])
    scale, slope = to_scale(raw), jax.vmap(jax.grad(lambda x: to_scale(x[None])[0]))(raw)
    assert (jnp.diff(scale) > 0).all()
    assert (jnp.isfinite(scale) & jnp.isfinite(slope) & (slope > 0)).all()
    for edge in RAW_RANGE:
        sides = jnp.array([edge - 1e-3, edge + 1e-3])
        values, slopes = jax.vmap(jax.value_and_grad(lambda x: to_scale(x[None])[0]))(sides)
        np.testing.assert_allclose(values[0], values[1], rtol=2e-3)
        np.testing.assert_allclose(slopes[0], slopes[1], rtol=5e-3)
