"""Weights of particles, and responsibilities of the experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from flax import nnx
from helpers.small_model import every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax.metrics import measure_log_weights, measure_responsibilities


class Constant(nnx.Module):
    """An encoder that ignores x."""

    def __init__(self, loc, log_var):
        self.loc, self.log_var = loc, log_var

    def __call__(self, x):
        return jnp.full((len(x), 1), self.loc), jnp.full((len(x), 1), self.log_var)


def constant_model(experts, aggregation="moe"):
    config = mm.MMVAEConfig(
        input_dims={name: (1,) for name in experts},
        latent_dim=1,
        prior_and_posterior_dist="normal",
        aggregation=aggregation,
    )
    encoders = {name: Constant(*expert) for name, expert in experts.items()}
    return mm.MMVAE(config, encoders, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("aggregation", ["moe", "mopoe"])
def test_responsibilities_are_integrals(aggregation):
    """E_{q_m}[r_j] of two normals, and with mopoe of their product, against quadrature."""
    model = constant_model({"a": (0.0, 0.0), "b": (1.5, -0.7)}, aggregation)
    q = [scipy.stats.norm(0.0, 1.0), scipy.stats.norm(1.5, np.exp(-0.35))]
    if aggregation == "mopoe":
        precision = np.exp(0.7)
        scale = (1 + precision) ** -0.5
        q.append(scipy.stats.norm(1.5 * precision * scale**2, scale))
    places = range(len(q))

    def share(z, m, j):
        return q[m].pdf(z) * q[j].pdf(z) / sum(each.pdf(z) for each in q)

    expected = [
        [scipy.integrate.quad(share, -9, 9, args=(m, j))[0] for j in places] for m in places
    ]
    x = {name: jnp.zeros((50, 1)) for name in "ab"}
    found = measure_responsibilities(model, mm.Batch(x), jax.random.key(0), num_draws=800)
    # Of values between 0 and 1 the standard deviation is at most 1/2.
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(50 * 800))


def test_one_component_is_responsible_for_all():
    model = constant_model({"a": (0.0, 0.0), "b": (1.5, -0.7)}, "poe")
    batch = mm.Batch({name: jnp.zeros((4, 1)) for name in "ab"})
    assert measure_responsibilities(model, batch, jax.random.key(0)).tolist() == [[1.0]]


def test_only_what_is_observed_has_a_share():
    model = constant_model({"a": (0.0, 0.0), "b": (0.0, 0.0), "c": (0.0, 0.0)})
    x = {name: jnp.zeros((4, 1)) for name in "abc"}
    mask = {"a": [True] * 4, "b": [True, True, False, False], "c": [False] * 4}
    batch = mm.Batch(x, {name: np.array(m) for name, m in mask.items()})
    found = measure_responsibilities(model, batch, jax.random.key(0))
    np.testing.assert_allclose(found[:2], [[0.75, 0.25, 0], [0.5, 0.5, 0]], atol=1e-6)
    assert np.isnan(found[2]).all()
    some = measure_responsibilities(model, mm.Batch({"b": x["b"]}), jax.random.key(0))
    np.testing.assert_array_equal(some[1], [0, 1, 0])


@pytest.mark.slow
def test_log_weights_are_those_of_the_bound():
    """Their looser bound equals the one that ``value_and_grad`` reports for each modality."""
    model = make_model(K=6)
    batch = mm.Batch(make_data(), every_mask())
    log_w = measure_log_weights(model, batch, jax.random.key(1))
    bounds = jax.nn.logsumexp(log_w, axis=1) - np.log(6)
    metrics, _ = mm.value_and_grad(model, batch, jax.random.key(1))
    for m, (name, observed) in enumerate(every_mask().items()):
        np.testing.assert_allclose(bounds[m][observed].mean(), metrics[f"bound/{name}"], rtol=1e-5)


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_draws is 0"):
        measure_responsibilities(
            make_model(), mm.Batch(make_data()), jax.random.key(0), num_draws=0
        )
