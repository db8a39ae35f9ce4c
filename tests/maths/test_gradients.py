"""Estimators on a one-dimensional mixture whose exact gradient quadrature knows."""

from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import optimised_jit

from mmvae_jax.maths.bounds import BOUNDS
from mmvae_jax.maths.distributions import FAMILIES, mixture_log_prob
from mmvae_jax.maths.estimators import ESTIMATORS
from mmvae_jax.maths.gradients import bound
from mmvae_jax.maths.latent_axes import LatentAxes
from mmvae_jax.maths.particles import Inputs
from mmvae_jax.maths.problem import Objective
from mmvae_jax.maths.weights import Experts

LOC = jnp.array([0.6, -0.4])
SCALE = jnp.array([0.5, 0.9])
X = jnp.array([1.0, -0.3])
FACTORS = (1.5, 1.0)
NUM_DRAWS = 60_000


def likelihoods(z, slope):
    """log p(x_j|z) of two made-up decoders, ``[j *n]``."""
    decoded = jnp.stack([jnp.tanh(slope[0] * z), slope[1] * z])
    return -2 * jnp.square(X.reshape(2, *[1] * z.ndim) - decoded)


def log_prior(z):
    return -0.5 * jnp.square(z) - 0.5 * jnp.log(2 * jnp.pi)


@cache
def objective(family="normal", name="looser", estimator="reparam", num_experts=2, K=5):
    """The same object for the same arguments, so that each is compiled once."""
    return Objective(
        log_likelihood=lambda theta, state, rows, z: likelihoods(z[..., 0], theta)[:num_experts],
        log_prior=lambda theta, z, source: log_prior(z[..., 0]),
        family=FAMILIES[family],
        axes=LatentAxes(1),
        bound=BOUNDS[name],
        estimator=ESTIMATORS[estimator],
        num_particles=K,
    )


def inputs_of(noise, factors=FACTORS, beta=1.0):
    """Nothing missing; `likelihoods` holds the data."""
    num_experts, _, num_examples, _ = noise.shape
    mask, factors = jnp.ones((num_experts, num_examples), bool), factors[:num_experts]
    weight = jnp.ones(num_examples)
    return Inputs((), mask, noise, jnp.array(factors, float), jnp.array(beta, float), weight)


def experts_of(num_examples, num_experts=2):
    """The same experts for every example, in float64."""
    shape = (num_experts, num_examples, 1)
    return Experts(
        *(jnp.broadcast_to(a[:num_experts, None, None], shape).astype(float) for a in (LOC, SCALE))
    )


def sampled_gradients(objective, beta=1.0, *, num_experts=2, seed=0):
    """The gradient of many independent draws: one example of the batch each.

    Returns ``[2 m n]``: with respect to the locations and the scales.
    """
    return _sampled_gradients(objective, num_experts, beta, jax.random.key(seed))


@partial(optimised_jit, static_argnums=(0, 1))
def _sampled_gradients(objective, num_experts, beta, key):
    shape = (num_experts, objective.num_particles, NUM_DRAWS, 1)
    inputs = inputs_of(objective.family.standard(key, shape, jnp.float64), beta=beta)

    def total(experts):
        return bound(objective, jnp.ones(2), experts, inputs)[0]

    return jnp.stack(jax.grad(total)(experts_of(NUM_DRAWS, num_experts)))[..., 0]


def mean_and_error(gradients):
    """Mean over draws, and its standard error."""
    return gradients.mean(-1), gradients.std(-1) / np.sqrt(gradients.shape[-1])


@cache
def exact_gradient(family, beta, step=0.02):
    """Gradient of the two-particle looser bound by quadrature on a grid of both particles.

    The parameters enter through the densities alone, so nothing is reparameterised here. The
    kinks of Laplace densities, at `LOC`, fall between the midpoints of two cells.
    """
    z = jnp.arange(-10, 10, step) + step / 2

    def value(params):
        log_q = FAMILIES[family].log_prob(z[None, :, None], *(a[:, None, None] for a in params))
        ones = jnp.ones(log_q.shape, bool)
        log_w = jnp.array(FACTORS) @ likelihoods(z, jnp.ones(2))
        log_w += beta * (log_prior(z) - mixture_log_prob(log_q, ones))
        probs = jnp.exp(log_q) * step
        pair = jnp.logaddexp(log_w[:, None], log_w[None]) - jnp.log(2)
        return sum(p @ pair @ p for p in probs) / 2

    return jnp.stack(optimised_jit(jax.grad(value))((LOC.astype(float), SCALE.astype(float))))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beta", [1.0, 0.4])
@pytest.mark.parametrize("estimator", ["reparam", "mixture_dreg", "adaptive_dreg"])
def test_unbiased_against_quadrature(x64, family, beta, estimator):
    """The Monte-Carlo mean of the two-particle gradient is the gradient of the integral."""
    exact = exact_gradient(family, beta)
    target = objective(family, "looser", estimator, K=2)
    mean, error = mean_and_error(sampled_gradients(target, beta))
    assert (jnp.abs(mean - exact) < 4 * error).all(), (mean, exact, error)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_without_beta_only_the_likelihoods_count(x64, family):
    """At ``beta = 0`` the density of the mixture does not enter: the estimators agree."""
    reparam, ours = (
        sampled_gradients(objective(family, "looser", name), beta=0.0)
        for name in ("reparam", "mixture_dreg")
    )
    np.testing.assert_allclose(ours, reparam, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["looser", pytest.param("tight", marks=pytest.mark.slow)])
def test_mixture_dreg_agrees_with_reparam(x64, family, name):
    """The same mean with less noise; the means have separate seeds, so their errors add."""
    reparam = sampled_gradients(objective(family, name, "reparam"))
    ours = sampled_gradients(objective(family, name, "mixture_dreg"), seed=1)
    (mean, error), (our_mean, our_error) = mean_and_error(reparam), mean_and_error(ours)
    assert (jnp.abs(mean - our_mean) < 4 * jnp.hypot(error, our_error)).all()
    assert (our_error < 0.95 * error).all(), our_error / error


@pytest.mark.parametrize(
    ("estimator", "name", "num_seeds"),
    [
        ("dreg", "looser", 1),
        pytest.param("dreg", "tight", 4, marks=pytest.mark.slow),
        pytest.param("stl", "looser", 1, marks=pytest.mark.slow),
        pytest.param("stl", "tight", 1, marks=pytest.mark.slow),
    ],
)
def test_dreg_and_stl_are_biased_for_a_mixture(x64, estimator, name, num_seeds):
    def many(estimator, seeds):
        target = objective(name=name, estimator=estimator)
        return jnp.concatenate([sampled_gradients(target, seed=seed) for seed in seeds], axis=-1)

    reparam, biased = many("reparam", range(num_seeds)), many(estimator, range(4, 4 + num_seeds))
    (mean, error), (biased_mean, biased_error) = mean_and_error(reparam), mean_and_error(biased)
    z_scores = jnp.abs(mean - biased_mean) / jnp.hypot(error, biased_error)
    assert z_scores.max() > 10, z_scores


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_one_expert_is_dreg(x64, family, beta):
    """With one expert dreg and mixture_dreg are one estimator, and it is unbiased."""
    draws = {
        name: sampled_gradients(
            objective(family, "looser", name, num_experts=1), beta, num_experts=1, seed=seed
        )
        for seed, name in [(0, "dreg"), (0, "mixture_dreg"), (1, "reparam")]
    }
    chex.assert_trees_all_close(draws["dreg"], draws["mixture_dreg"], atol=1e-9)
    (mean, error), (exact, exact_error) = (
        mean_and_error(draws[name]) for name in ("dreg", "reparam")
    )
    assert (jnp.abs(mean - exact) < 4 * jnp.hypot(error, exact_error)).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("name", ["looser", "tight"])
def test_decoders_get_the_true_gradient(x64, estimator, name):
    """theta's gradient is plain autodiff of the bound whatever the estimator, draw by draw."""
    noise = jax.random.normal(jax.random.key(2), (2, 5, 50, 1), jnp.float64)

    @partial(jax.jit, static_argnums=0)
    def gradient(estimator):
        target = objective(name=name, estimator=estimator)
        experts, inputs = experts_of(50), inputs_of(noise)
        return jax.grad(lambda slope: bound(target, slope, experts, inputs)[0])(jnp.ones(2))

    chex.assert_trees_all_close(gradient(estimator), gradient("reparam"), rtol=1e-10)


@pytest.mark.slow
def test_reparam_is_plain_autodiff(x64):
    """The custom derivative of reparam equals autodiff through the same formulas, draw by draw."""
    noise = jax.random.normal(jax.random.key(3), (2, 3, 7, 1), jnp.float64)
    mask = jnp.ones((2, 7), bool)
    experts = experts_of(7)

    def plain(experts):
        z = (experts.loc[:, None] + experts.scale[:, None] * noise)[..., 0]
        log_q = FAMILIES["normal"].log_prob(
            z[None, ..., None], *(a[:, None, None] for a in experts)
        )
        log_w = jnp.tensordot(jnp.array(FACTORS), likelihoods(z, jnp.ones(2)), 1)
        log_w += log_prior(z) - mixture_log_prob(log_q, jnp.ones(log_q.shape, bool))
        return BOUNDS["tight"].value(log_w, mask).sum()

    def ours(experts):
        target = objective(name="tight", K=3)
        return bound(target, jnp.ones(2), experts, inputs_of(noise))[0]

    chex.assert_trees_all_close(ours(experts), plain(experts), rtol=1e-12)
    chex.assert_trees_all_close(jax.grad(ours)(experts), jax.grad(plain)(experts), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("tight", marks=pytest.mark.slow), "looser"])
def test_limit_of_many_particles(x64, name):
    """As K grows, tight reaches log p(x); looser the mean over experts of log E_{q_m}[w]."""
    z, step = jnp.linspace(-12, 12, 4001, retstep=True)
    log_q = FAMILIES["normal"].log_prob(z[None, :, None], LOC[:, None, None], SCALE[:, None, None])
    log_joint = likelihoods(z, jnp.ones(2)).sum(0) + log_prior(z)
    log_w = log_joint - mixture_log_prob(log_q, jnp.ones(log_q.shape, bool))
    per_expert = jnp.log((jnp.exp(log_q + log_w[None]) * step).sum(-1))
    limit = jnp.log((jnp.exp(log_joint) * step).sum()) if name == "tight" else per_expert.mean()

    @partial(optimised_jit, static_argnums=(0, 1))
    def values_of(K, num_draws, key):
        noise = jax.random.normal(key, (2, K, num_draws, 1), jnp.float64)
        inputs = inputs_of(noise, factors=(1.0, 1.0))
        target = objective(name=name, K=K)
        return bound(target, jnp.ones(2), experts_of(num_draws), inputs)[1].bound

    gaps = []
    for K, num_draws in [(1, 40_000), (10, 20_000), (100, 10_000), (1000, 4_000)]:
        values = values_of(K, num_draws, jax.random.key(K))
        error = values.std() / np.sqrt(num_draws)
        gaps.append(limit - values.mean())
        assert gaps[-1] > -4 * error  # a lower bound of its limit
    assert gaps == sorted(gaps, reverse=True)
    assert abs(gaps[-1]) < 4 * error + gaps[0] / 500  # the gap falls like 1 / K
