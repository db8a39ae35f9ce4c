"""Noise and direction of the encoders' gradient, against closed forms and one draw at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.small_model import make_data, make_model
from jax.flatten_util import ravel_pytree

import mmvae_jax as mm
from experiments.gradient_noise import encoder_gradients, measure_gradient_noise, with_loss

K = 4
SIGMA = 0.5


class Constant(nnx.Module):
    """The same posterior for every example."""

    def __init__(self, loc, log_var):
        self.loc, self.log_var = nnx.Param(jnp.asarray(loc)), nnx.Param(jnp.asarray(log_var))

    def __call__(self, x):
        shape = (len(x), self.loc.shape[0])
        loc, log_var = (
            jnp.broadcast_to(p[None], shape) for p in (self.loc[...], self.log_var[...])
        )
        return loc, log_var


class Slope(nnx.Module):
    """Decodes ``slope * z``."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, z):
        return self.slope * z


def constant_model(experts, *, slopes=None, sigma=SIGMA, **fields):
    """Returns a model with constant posteriors (loc, log_var) and a standard normal prior."""
    dims = {name: (len(loc),) for name, (loc, _) in experts.items()}
    config = mm.MMVAEConfig(
        input_dims=dims,
        latent_dim=len(next(iter(experts.values()))[0]),
        prior_and_posterior_dist="normal",
        learn_prior=False,
        decoder_dist_params={name: {"scale": sigma} for name in dims},
        **fields,
    )
    encoders = {name: Constant(*expert) for name, expert in experts.items()}
    decoders = {name: Slope((slopes or {}).get(name, 1.0)) for name in dims}
    return mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))


def known_elbo(loc, log_var, x):
    """Returns a model with one latent, a batch, and mean and variance of its ELBO's gradient.

    Let z = m + s e. Up to constants, the loss is -log N(x; z, sigma^2) - log N(z; 0, 1) - log s.
    Its derivatives are g = (z - x) / sigma^2 + z = a + b e for m, and g s e / 2 - 1/2 for log s^2.
    """
    model = constant_model({"x": ([loc], [log_var])}, K=K, loss="elbo")
    batch = mm.Batch({"x": jnp.array([[x]])})
    s = np.exp(log_var / 2)
    a, b = (loc - x) / SIGMA**2 + loc, (1 / SIGMA**2 + 1) * s
    mean = {"loc": a, "log_var": (b * s - 1) / 2}
    variance = b**2 / K + (s / 2) ** 2 * (a**2 + 2 * b**2) / K  # Var e = 1, Var e^2 = 2
    return model, batch, mean, variance


def test_moments_are_those_of_the_gradient():
    model, batch, mean, variance = known_elbo(0.3, -1.0, 1.0)
    num = 2000
    found = encoder_gradients(model, batch, jax.random.key(0), num)
    standard_error = np.sqrt(variance / num)
    expected = np.array([mean["loc"], mean["log_var"]])
    assert (np.abs(found.mean - expected) < 4 * standard_error).all()
    # The squared deviation of a nearly normal gradient has a standard deviation of a little more
    # than sqrt(2) times its mean.
    np.testing.assert_allclose(found.variance, variance, rtol=4 * np.sqrt(3 / num))


def test_signal_to_noise_does_not_depend_on_the_number_of_gradients():
    model, batch, mean, variance = known_elbo(0.3, -1.0, 1.0)
    expected = np.sqrt(sum(g**2 for g in mean.values()) / variance)
    for num in (400, 2000):
        found = measure_gradient_noise(model, batch, jax.random.key(1), num=num)
        np.testing.assert_allclose(found["signal_to_noise"], expected, rtol=0.15)
        np.testing.assert_allclose(found["cosine"], 1, atol=0.1)  # reparam against itself


def test_at_the_optimum_there_is_no_signal():
    """The mean of ``num`` gradients is only noise, of norm sqrt(variance / num)."""
    model, batch, mean, _ = known_elbo(0.0, -np.log(1 / SIGMA**2 + 1), 0.0)
    np.testing.assert_allclose([*mean.values()], 0, atol=1e-12)
    num = 400
    signals = [encoder_gradients(model, batch, jax.random.key(i), num) for i in range(8)]
    shares = np.array([found.signal / (float(found.variance) / num) for found in signals])
    # Distributed as chi-squared with two degrees of freedom, scaled to mean 1, minus 1.
    assert abs(shares.mean()) < 4 / np.sqrt(len(shares))
    assert shares.min() < 0 < shares.max()


@pytest.mark.slow
def test_moments_equal_those_of_separately_computed_gradients():
    model, batch, key, num = make_model(), mm.Batch(make_data()), jax.random.key(3), 5
    found = encoder_gradients(model, batch, key.copy(), num)
    draws = jax.random.split(jax.random.split(key)[1], num)

    @jax.jit
    def gradient(key):
        _, grads = mm.value_and_grad(model, batch, key)
        return ravel_pytree(nnx.to_pure_dict(grads)["encoders"])[0]

    rows = np.stack([np.asarray(gradient(key), np.float64) for key in draws])
    num_parameters = sum(p.size for p in jax.tree.leaves(nnx.state(model.encoders, nnx.Param)))
    assert rows.shape == (num, num_parameters)
    np.testing.assert_allclose(found.mean, rows.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.variance, rows.var(0, ddof=1).sum(), rtol=1e-4)
    signal = np.square(rows.mean(0)).sum() - rows.var(0, ddof=1).sum() / num
    np.testing.assert_allclose(found.signal, signal, rtol=1e-3)


@pytest.mark.slow
def test_only_an_unbiased_gradient_has_cosine_one():
    """The two experts overlap; copies of the example reduce the noise."""
    experts = {"a": ([0.2, -0.4], [0.0, -0.3]), "b": ([-0.2, 0.5], [-0.2, 0.2])}
    x = {
        "a": jnp.tile(jnp.array([2.0, 0.0]), (16, 1)),
        "b": jnp.tile(jnp.array([0.0, -2.0]), (16, 1)),
    }
    found = {}
    for loss in ("mixture_dreg_looser", "dreg_looser"):
        model = constant_model(experts, sigma=2.0, K=20, loss=loss)
        noise = measure_gradient_noise(model, mm.Batch(x), jax.random.key(0), num=200)
        found[loss] = noise["cosine"]
    # The relative error of each mean gradient is about 1 / (2.9 sqrt(200)).
    np.testing.assert_allclose(found["mixture_dreg_looser"], 1, atol=0.03)
    assert 0.85 < found["dreg_looser"] < 0.94


@pytest.mark.slow
def test_with_loss_changes_only_the_copy():
    model = make_model(loss="dreg_looser")
    copy = with_loss(model, "stl")
    assert (model.config.loss, copy.config.loss) == ("dreg_looser", "stl")
    batch, key = mm.Batch(make_data()), jax.random.key(0)
    same = make_model(loss="stl")
    loss = jax.jit(mm.loss)
    np.testing.assert_array_equal(loss(copy, batch, key.copy()), loss(same, batch, key))
