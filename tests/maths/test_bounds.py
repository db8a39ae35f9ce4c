"""Bounds: their order, their derivatives, hand-computed values, masks."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvae_jax.maths.bounds import BOUNDS

NUM_EXPERTS, K, NUM_EXAMPLES = 3, 4, 200


@pytest.fixture
def log_w():
    return 5 * jax.random.normal(jax.random.key(0), (NUM_EXPERTS, K, NUM_EXAMPLES))


@pytest.fixture
def mask():
    """All patterns but the empty one, which has tests of its own."""
    mask = jax.random.bernoulli(jax.random.key(1), 0.6, (NUM_EXPERTS, NUM_EXAMPLES))
    return mask.at[0].set(mask[0] | ~mask.any(0))


def test_order(log_w, mask):
    """Jensen: tight >= looser >= elbo on the same weights, strictly where they vary."""
    tight, looser, elbo = (BOUNDS[name].value(log_w, mask) for name in ("tight", "looser", "elbo"))
    assert (looser > elbo).all()
    assert (tight >= looser - 1e-5).all()  # equal up to rounding where one expert is observed
    assert (tight > looser)[mask.sum(0) > 1].all()


def test_values_by_hand():
    """Two experts, two particles: numbers small enough to work out on paper."""
    log_w = jnp.log(jnp.array([[[1.0], [3.0]], [[4.0], [4.0]]]))
    everything = jnp.ones((2, 1), bool)
    second = jnp.array([[False], [True]])
    expected = {
        "tight": (np.log(3), np.log(4)),
        "looser": ((np.log(2) + np.log(4)) / 2, np.log(4)),
        "elbo": ((np.log(3) + np.log(16)) / 4, np.log(4)),
    }
    for name, values in expected.items():
        ours = [BOUNDS[name].value(log_w, mask)[0] for mask in (everything, second)]
        np.testing.assert_allclose(ours, values, rtol=1e-6)


@pytest.mark.parametrize("name", BOUNDS)
def test_derivative_is_share_times_weights(name, log_w, mask):
    bound = BOUNDS[name]
    derivative = jax.grad(lambda log_w: bound.value(log_w, mask).sum())(log_w)
    product = bound.share(mask)[:, None] * bound.normalise(log_w, mask)
    chex.assert_trees_all_close(derivative, product, atol=1e-6)


@pytest.mark.parametrize("name", BOUNDS)
def test_missing_experts_have_no_say(name, log_w, mask):
    """NaN among the log weights of missing experts changes no value and no weight."""
    bound = BOUNDS[name]
    spoilt = jnp.where(mask[:, None], log_w, jnp.nan)
    chex.assert_trees_all_equal(bound.value(spoilt, mask), bound.value(log_w, mask))
    chex.assert_trees_all_equal(bound.normalise(spoilt, mask), bound.normalise(log_w, mask))


@pytest.mark.parametrize("name", BOUNDS)
def test_nothing_observed(name, log_w):
    nothing = jnp.zeros((NUM_EXPERTS, NUM_EXAMPLES), bool)
    bound = BOUNDS[name]
    value, derivative = jax.value_and_grad(lambda log_w: bound.value(log_w, nothing).sum())(log_w)
    assert value == 0
    assert not derivative.any()
    assert not bound.normalise(log_w, nothing).any()
