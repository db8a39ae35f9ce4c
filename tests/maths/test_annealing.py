"""The transition of annealed importance sampling leaves its density invariant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.monte_carlo import assert_within, mean_and_error
from scipy.stats import laplace

from mmvae_jax.maths.annealing import Path, evaluate, sigmoid_schedule, transition

STEP = np.array([0.7])


@pytest.mark.parametrize("num_leapfrog", [1, 3])
@pytest.mark.usefixtures("x64")
def test_moments_stay_after_transitions(num_leapfrog):
    """Exact draws of a product of a Laplace and a normal at beta = 1/2, moved three times."""
    num_chains, beta = 40_000, jnp.asarray(0.5)
    path = Path(
        log_prior=lambda z: -jnp.abs(z).sum(-1),
        log_likelihood=lambda z: -jnp.square(z - 1).sum(-1),
        scale=jnp.array([0.7, 1.3]),
        num_leapfrog=num_leapfrog,
    )
    grid = np.linspace(-8, 8, 32_001)
    density = laplace.pdf(grid) * np.exp(-0.5 * (grid - 1) ** 2)
    density /= density.sum()
    rng = np.random.default_rng(0)
    point = evaluate(path, jnp.asarray(rng.choice(grid, (num_chains, 1, 2), p=density)))
    for key in jax.random.split(jax.random.key(0), 3):
        point, acceptance = jax.jit(
            lambda point, key: transition(path, point, beta, jnp.asarray(STEP), key)
        )(point, key)
    assert 0.4 < acceptance.mean() < 0.95  # refusals matter, and moves do
    z = np.asarray(point.z[:, 0])
    for power in (1, 2, 4):
        assert_within(*mean_and_error(z**power), (grid**power * density).sum())


def test_schedule_is_finest_at_its_ends():
    betas = np.asarray(sigmoid_schedule(50, jnp.float32))
    assert betas[0] == 0
    assert betas[-1] == 1
    steps = np.diff(betas)
    assert np.all(steps > 0)
    assert steps.argmax() in (24, 25)
