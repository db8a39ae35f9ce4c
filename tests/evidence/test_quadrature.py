"""Likelihood estimates of a model that is not linear, in one and two latent dimensions."""

import warnings
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear_gaussian import EVIDENCE, hide, masks
from helpers.monte_carlo import assert_within, mean_and_error, on_keys
from scipy.special import logsumexp
from scipy.stats import laplace, norm

import mmvae_jax as mm

pytestmark = pytest.mark.usefixtures("x64")

STEP = 1e-3
GRID = np.arange(-14, 14, STEP) + STEP / 2


class Curve(nnx.Module):
    """``tanh(x A + a) B + b``, as a decoder or, with a log_var, as an expert."""

    def __init__(self, size, dim, seed, log_var=None):
        rng = np.random.default_rng(seed)
        draws = (rng.normal(size=shape) for shape in ((size, 4), (1, 4), (4, int(np.prod(dim)))))
        self.into, self.shift, self.out = (nnx.Param(jnp.asarray(draw)) for draw in draws)
        self.dim, self.log_var = dim, log_var

    def __call__(self, x):
        h = jnp.tanh(x.reshape(len(x), -1) @ self.into[...] + self.shift[...])
        y = (h @ self.out[...]).reshape(len(x), *self.dim)
        return y if self.log_var is None else (0.3 * y, jnp.full_like(y, self.log_var))


CURVED = {"a": (2,), "b": (3, 1), "c": (2, 3)}


def curved_problem(family, latent_dim=1, log_var=0.8):
    with warnings.catch_warnings():  # latent_dim is 1: the Laplace scales are constant
        warnings.simplefilter("ignore")
        config = mm.MMVAEConfig(
            input_dims=CURVED,
            latent_dim=latent_dim,
            decoders_dist={"a": "laplace", "b": "bernoulli", "c": "categorical"},
            decoder_dist_params={"a": {"scale": 0.6}},
            prior_and_posterior_dist=family,
        )
    encoders, decoders = {}, {}
    for i, (m, dim) in enumerate(CURVED.items()):
        encoders[m] = Curve(np.prod(dim), (latent_dim,), i, log_var)
        decoders[m] = Curve(latent_dim, dim, 10 + i)
    model = mm.MMVAE(config, encoders, decoders, rngs=nnx.Rngs(0))
    model.prior_log_var.set_value(jnp.full(latent_dim, 0.4))
    mask = masks(tuple(CURVED))
    rng = np.random.default_rng(1)
    size = len(mask["a"])
    data = {
        "a": rng.normal(size=(size, 2)),
        "b": rng.integers(0, 2, (size, 3, 1)).astype(float),
        "c": np.eye(3)[rng.integers(0, 3, (size, 2))],
    }
    return model, data, mask


def on_grid(model, row):
    """Densities of one complete example at every point of the grid, by scipy.

    Returns:
      log p(z), and by modality log q_m(z|x_m) and log p(x_m|z).
    """
    is_laplace = model.config.prior_and_posterior_dist == "laplace_with_softmax"
    density = laplace.logpdf if is_laplace else norm.logpdf
    z, log_q = GRID, {}
    scale = 1 + 1e-6 if is_laplace else np.exp(0.4)  # One latent axis: its softmax is 1.
    for name, encoder in model.encoders.items():
        log_q[name] = density(z, np.asarray(encoder(row[name])[0])[0, 0], scale)
    log_p = log_likelihoods(model, row, z[:, None])
    return density(z, 0, 1 + 1e-6 if is_laplace else np.exp(0.2)), log_q, log_p


def log_likelihoods(model, row, z):
    """log p(x_m|z) of one example by modality, ``[n]``."""
    log_p = {}
    decoded = {m: np.asarray(decode(z)) for m, decode in model.decoders.items()}
    log_p["a"] = laplace.logpdf(row["a"], decoded["a"], 0.6).sum(1)
    log_p["b"] = -np.logaddexp(0, np.where(row["b"] == 1, -1, 1) * decoded["b"]).sum((1, 2))
    logits = decoded["c"] - logsumexp(decoded["c"], axis=-1, keepdims=True)
    log_p["c"] = (row["c"] * logits).sum((1, 2))
    return log_p


def integral(log_values):
    return logsumexp(log_values, axis=-1) + np.log(STEP)


def exact(name, log_prior, log_q, log_p, seen):
    """The estimate's limit for one example of which the modalities `seen` are observed."""
    given = [m for m in ("a", "c") if m in seen]

    def evidence(names):
        return integral(log_prior + sum(log_p[m] for m in names))

    if name in ("joint", "paper"):
        return -evidence(seen)
    if "b" not in seen:
        return np.nan
    if name == "marginal":
        return -evidence("b")
    if not given:
        return np.nan
    if name == "ratio":
        return evidence(given) - evidence(["b", *given])
    return np.log(len(given)) - logsumexp([integral(log_q[m] + log_p["b"]) for m in given])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "names"),
    [
        pytest.param("laplace_with_softmax", tuple(EVIDENCE), marks=pytest.mark.slow),
        ("normal", ("joint", "cond")),
    ],
)
def test_curved_model_against_quadrature(family, names):
    """Every estimate of a model with Laplace, Bernoulli and categorical likelihoods."""
    model, data, mask = curved_problem(family)
    batch = mm.Batch(hide(data, mask), mask)
    size = len(mask["a"])
    seen = [[m for m in CURVED if mask[m][b]] for b in range(size)]
    densities = [on_grid(model, {m: x[b : b + 1] for m, x in data.items()}) for b in range(size)]
    for name in names:
        estimate = as_array(partial(EVIDENCE[name], model, batch))
        nll = on_keys(partial(estimate, K=3000, batch_size_K=1000), 24)
        truth = [exact(name, *densities[b], seen[b]) for b in range(size)]
        mean, standard_error = mean_and_error(nll)
        assert_within(mean, standard_error, np.array(truth))
        assert np.nanmax(standard_error) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("latent_dim", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_narrow_experts_against_quadrature(latent_dim):
    """Experts of a fifteenth of the prior's width, where likelihoods do not vanish in the tails."""
    model, data, mask = curved_problem("normal", latent_dim, log_var=-5.0)
    axis = np.arange(-7, 7, 0.05) + 0.025
    z = np.stack([a.ravel() for a in np.meshgrid(*[axis] * latent_dim)], axis=1)
    log_volume = norm.logpdf(z, 0, np.exp(0.2)).sum(1) + latent_dim * np.log(0.05)
    truth = []
    for b in range(len(mask["a"])):
        log_p = log_likelihoods(model, {m: x[b : b + 1] for m, x in data.items()}, z)
        seen = sum(log_p[m] for m in CURVED if mask[m][b])
        truth.append(logsumexp(log_volume + seen))
    joint = partial(mm.compute_joint_nll, model, mm.Batch(hide(data, mask), mask), K=1000)
    ratio = np.exp(-on_keys(joint, 40) - np.array(truth))
    assert_within(*mean_and_error(ratio), np.ones(len(truth)))
    without = np.exp(-on_keys(partial(joint, prior_share=0.0), 2) - np.array(truth))
    assert np.median(without) < 0.8


def as_array(estimate):
    """The estimate with the dict of `compute_cond_nll` reduced to its only modality."""

    def call(key, **counts):
        nll = estimate(key, **counts)
        return nll["b"] if isinstance(nll, dict) else nll

    return call
