"""The adaptive estimator: unbiased in batches of unlike examples, quiet at every scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import NUM_SIGMA, mean_and_error, optimised_jit

from experiments.estimator_noise import objective, relative_gradients
from mmvae_jax.maths.control_variate import MIN_OTHERS, coefficients_from_others
from mmvae_jax.maths.weights import Experts

K = 5
DIM = 2


def draws(objective, experts, mask, num, seed=0):
    """Gradients of ``num`` independent batches."""
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(_draws(objective, experts, mask, keys))


_draws = optimised_jit(relative_gradients, static_argnums=0)


def same_experts(scale, num_examples, loc=0.5):
    """Two experts on both sides of the target, the same for every example and axis."""
    shape = (2, num_examples, DIM)
    sides = jnp.array([loc, -loc]).reshape(2, 1, 1)
    return Experts(jnp.broadcast_to(sides, shape), jnp.full(shape, scale))


@pytest.mark.parametrize(
    "scale",
    [1e-3, pytest.param(0.1, marks=pytest.mark.slow), pytest.param(1.0, marks=pytest.mark.slow)],
)
def test_as_quiet_as_the_quieter(x64, scale):
    experts, mask = same_experts(scale, 64), jnp.ones((2, 64), bool)
    noise = {
        name: draws(objective(name, K, dim=DIM), experts, mask, 200).std(0).mean((1, 2, 3))
        for name in ("reparam", "mixture_dreg", "adaptive_dreg")
    }
    quieter = np.minimum(noise["reparam"], noise["mixture_dreg"])
    assert (noise["adaptive_dreg"] < 1.05 * quieter).all(), noise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["looser", pytest.param("tight", marks=pytest.mark.slow)])
def test_unbiased_among_unlike_examples(x64, name):
    """The coefficients come from examples of other scales, some of which lack an expert."""
    keys = jax.random.split(jax.random.key(5), 2)
    loc = 1 + jax.random.normal(keys[0], (2, 12, DIM))
    experts = Experts(loc, jnp.exp2(jax.random.uniform(keys[1], (2, 12, DIM), minval=-3, maxval=1)))
    mask = jnp.ones((2, 12), bool).at[0, :2].set(False).at[1, 2:4].set(False)
    ours = mean_and_error(draws(objective("adaptive_dreg", K, name, DIM), experts, mask, 6000))
    exact = mean_and_error(draws(objective("reparam", K, name, DIM), experts, mask, 6000, seed=1))
    z_scores = np.abs(ours[0] - exact[0]) / np.maximum(np.hypot(ours[1], exact[1]), 1e-12)
    # 88 entries are not zero: a few of these exceed three standard errors.
    assert z_scores.max() < NUM_SIGMA, z_scores.max()
    assert (ours[0][:, ~mask] == 0).all()


def test_own_noise_does_not_enter(x64):
    """c of an example does not change with its gradients, however large these are."""
    g, delta = jax.random.normal(jax.random.key(0), (2, 1, 20, 1))
    scale, counts = jnp.full((1, 20, 1), 0.3), jnp.ones((1, 20), bool)
    c = coefficients_from_others(g, delta, scale, counts)
    other = coefficients_from_others(g.at[0, 4].set(1e3), delta.at[0, 4].set(-1e3), scale, counts)
    np.testing.assert_allclose(c[0, 4], other[0, 4], rtol=1e-6)
    assert (jnp.abs(c - other)[0, :4] > 0.01).any()


def test_the_regression_finds_the_coefficient(x64):
    """Where g is a constant minus c Delta and small noise, c is found, among unlike scales too."""
    keys = jax.random.split(jax.random.key(1), 3)
    scale = jnp.exp2(jax.random.uniform(keys[0], (1, 400, 1), minval=-9, maxval=-1))
    delta = jax.random.normal(keys[1], scale.shape) / scale
    exact = jnp.minimum(2.5 * scale**2, 1)
    g = -1 / scale - exact * delta + 0.1 * scale * jax.random.normal(keys[2], scale.shape)
    c = coefficients_from_others(g, delta, scale, jnp.ones((1, 400), bool))
    np.testing.assert_allclose(c, exact, rtol=0.05)


@pytest.mark.slow
def test_a_collapsed_example_stays_quiet(x64):
    """Among examples at c near 1, one of scale 1e-5 keeps the small noise of reparam."""
    experts, mask = same_experts(1.0, 32), jnp.ones((2, 32), bool)
    experts = experts._replace(scale=experts.scale.at[:, 7].set(1e-5))
    noise = {
        name: draws(objective(name, K, dim=DIM), experts, mask, 200).std(0)[:, :, 7].mean()
        for name in ("reparam", "mixture_dreg", "adaptive_dreg")
    }
    assert noise["adaptive_dreg"] < 1.05 * noise["reparam"] < 1e-3 * noise["mixture_dreg"]


@pytest.mark.slow
@pytest.mark.parametrize("num_examples", [pytest.param(1, marks=pytest.mark.slow), MIN_OTHERS])
def test_few_examples_are_reparam(x64, num_examples):
    experts, mask = same_experts(0.3, num_examples), jnp.ones((2, num_examples), bool)
    ours, expected = (
        draws(objective(name, K, dim=DIM), experts, mask, 1)
        for name in ("adaptive_dreg", "reparam")
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-15)  # equal up to rounding


@pytest.mark.slow
def test_one_particle(x64):
    """With K = 1, the step is from reparam towards stl; both ends have the same mean."""
    experts, mask = same_experts(0.5, 32), jnp.ones((2, 32), bool)
    ours, exact = (
        mean_and_error(draws(objective(name, 1, dim=DIM), experts, mask, 1000, seed=seed))
        for seed, name in enumerate(("adaptive_dreg", "reparam"))
    )
    assert (np.abs(ours[0] - exact[0]) < NUM_SIGMA * np.hypot(ours[1], exact[1])).all()
    assert ours[1].mean() < exact[1].mean()
