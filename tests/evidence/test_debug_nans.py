"""``jax_debug_nans`` finds nothing in healthy estimates: no NaN is made on the way."""

import jax
import numpy as np
import pytest
from helpers.small_model import NUM_EXAMPLES, make_data, make_model

import mmvae_jax as mm


@pytest.mark.slow
@pytest.mark.parametrize(
    "num", [pytest.param(20, marks=pytest.mark.slow), 200]
)  # and with a tail for k-hat
def test_estimates_make_no_nan(num):
    model, key, other = make_model(), *jax.random.split(jax.random.key(0))
    some = np.arange(NUM_EXAMPLES) > 2
    batch = mm.Batch(make_data(), mask={"a": some, "b": ~some, "c": some})
    weighting = mm.ImportanceWeighting(num_particles=num)
    with jax.debug_nans(True):
        nll, diagnostics = mm.compute_joint_nll(model, batch, key, K=num, return_diagnostics=True)
        z = mm.encode(model, batch, other, N=2, weighting=weighting)
    assert np.isfinite(nll).all()
    assert np.isfinite(z).all()
    assert np.isinf(diagnostics.pareto_k).all() == (num < 25)
