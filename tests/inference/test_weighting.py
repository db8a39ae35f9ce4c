"""Importance weighting of ``encode`` and ``predict``: the model's posterior, masks, composition."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear_gaussian import hide, make_problem
from helpers.monte_carlo import NUM_SIGMA
from helpers.small_model import make_data, make_model

import mmvae_jax as mm

FEW = mm.ImportanceWeighting(num_particles=30, chunk=40)


def exact_posterior(case, data, names, b):
    """Mean and covariance of p(z|x_given) of example b."""
    rows = [case.weight[m] / case.sigma[m] for m in names]
    residuals = [(data[m][b].ravel() - case.bias[m]) / case.sigma[m] for m in names]
    w = np.concatenate(rows)
    covariance = np.linalg.inv(np.diag(case.prior_scale**-2) + w.T @ w)
    return covariance @ w.T @ np.concatenate(residuals), covariance


@pytest.mark.slow
@pytest.mark.parametrize("prior_share", [pytest.param(0.0, marks=pytest.mark.slow), 0.3])
@pytest.mark.usefixtures("x64")
def test_draws_and_mean_of_the_posterior(prior_share):
    """Every pattern of three modalities, of which two are conditioned on; NaN where masked."""
    case, model, data, mask, batch = make_problem(3)
    given = ("a", "c")
    rows = np.flatnonzero(mask["a"] | mask["c"])
    batch = jax.tree.map(lambda a: a[rows], batch)
    num = 10_000
    weighting = mm.ImportanceWeighting(num_particles=num, prior_share=prior_share, chunk=6000)
    encode = partial(mm.encode, model, batch, cond_mod=given, weighting=weighting, N=num)
    draws = np.asarray(encode(jax.random.key(0)))
    mean, diagnostics = encode(jax.random.key(1), return_mean=True, return_diagnostics=True)
    assert np.all(diagnostics.ess > num / 6)
    for b, row in enumerate(rows):
        names = [m for m in given if mask[m][row]]
        loc, covariance = exact_posterior(case, data, names, row)
        # Draws have the particles' error and that of the choice.
        for found, share in ((mean[b, 0], 0), (draws[b].mean(0), 1 / num)):
            error = np.sqrt(np.diag(covariance) * (1 / diagnostics.ess[b] + share))
            assert np.all(np.abs(found - loc) < NUM_SIGMA * error)
        variances = np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2
        error = np.sqrt(variances * (1 / diagnostics.ess[b] + 1 / num))
        assert np.all(np.abs(np.cov(draws[b].T) - covariance) < NUM_SIGMA * error)


@pytest.mark.slow
def test_examples_are_independent_of_neighbours():
    """Other data, fillers or masks of other examples: not a bit of an example's draws changes."""
    model, data = make_model(), {m: np.asarray(x) for m, x in make_data().items()}
    first = np.arange(8) == 0
    mask = {m: first | (np.arange(8) % 3 != i) for i, m in enumerate(data)}

    def draws(data, mask):
        batch = mm.Batch(data, mask)
        return mm.encode(model, batch, jax.random.key(0), N=5, weighting=FEW)

    expected = draws(hide(data, mask), mask)
    chex.assert_trees_all_equal(draws(hide(data, mask, np.inf), mask), expected)
    other = {m: np.concatenate([x[:1], np.roll(x[1:], 1, axis=0)]) for m, x in data.items()}
    everything = dict.fromkeys(mask, np.ones(8, bool))
    changed = draws(other, everything)
    chex.assert_trees_all_equal(changed[0], expected[0])
    assert np.all(changed[1:] != expected[1:])


@pytest.mark.slow
def test_chunks_and_what_is_not_named():
    """Tiles of any size, a modality masked or not named: the same draws."""
    model, data = make_model(), make_data()
    encode = partial(mm.encode, model, N=5, return_diagnostics=True)
    expected, diagnostics = encode(
        mm.Batch(data), jax.random.key(0), cond_mod=("a", "c"), weighting=FEW
    )
    whole = mm.ImportanceWeighting(num_particles=30, chunk=1000)
    mask = dict.fromkeys(data, np.ones(8, bool)) | {"b": np.zeros(8, bool)}
    for batch, weighting in ((mm.Batch(data, mask), whole), (mm.Batch(data, mask), FEW)):
        again = encode(batch, jax.random.key(0), weighting=weighting)
        chex.assert_trees_all_close(again, (expected, diagnostics), rtol=1e-4, atol=1e-5)
    assert np.all((diagnostics.ess >= 1) & (diagnostics.ess <= 30))
    assert np.all(diagnostics.max_weight * diagnostics.ess >= 0.99)


def test_predict_decodes_what_encode_draws():
    model, batch = make_model(), mm.Batch(make_data())
    options = {"cond_mod": ("a", "c"), "N": 2, "flatten": True, "weighting": FEW}
    predicted = mm.predict(model, batch, jax.random.key(0), gen_mod="b", **options)
    z = mm.encode(model, batch, jax.random.split(jax.random.key(0))[0], **options)
    chex.assert_trees_all_close(predicted["b"], mm.decode(model, z)["b"], rtol=1e-6)


def mean_and_draws(model, mask):
    encode = partial(mm.encode, model, mm.Batch(make_data(), mask), weighting=FEW)
    return encode(jax.random.key(0), return_mean=True), encode(jax.random.key(1), N=3)


@pytest.mark.slow
def test_nothing_given_under_jit():
    mask = dict.fromkeys(make_data(), np.arange(8) > 0)
    for z in jax.jit(mean_and_draws)(make_model(), mask):
        np.testing.assert_array_equal(np.isnan(z).all((1, 2)), np.arange(8) == 0)
        assert np.isfinite(z[1:]).all()


@pytest.mark.slow
def test_gradients_are_finite():
    mask = dict.fromkeys(make_data(), np.arange(8) > 0)

    def total(model):
        return sum(jnp.square(z[1:]).sum() for z in jax.jit(mean_and_draws)(model, mask))

    grads = jax.tree.leaves(nnx.state(jax.grad(total)(make_model()), nnx.Param))
    assert all(np.isfinite(grad).all() for grad in grads)
    assert any(np.abs(grad).max() > 1e-3 for grad in grads)


@pytest.mark.slow
def test_vmap_over_models():
    model, batch = make_model(), mm.Batch(make_data())
    graphdef, state = nnx.split(model)
    states = [state, jax.tree.map(lambda a: 1.1 * a, state)]

    def encode(model):
        return mm.encode(model, batch, jax.random.key(0), N=3, weighting=FEW)

    stack = nnx.merge(graphdef, jax.tree.map(lambda *a: jnp.stack(a), *states))
    single = jnp.stack([encode(nnx.merge(graphdef, state)) for state in states])
    chex.assert_trees_all_close(jax.vmap(encode)(stack), single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mm.ImportanceWeighting(num_particles=0), "num_particles is 0"),
        (lambda: mm.ImportanceWeighting(prior_share=1.0), "prior_share is 1.0"),
        (lambda: mm.ImportanceWeighting(chunk=0), "chunk is 0"),
    ],
)
def test_bad_setting(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "product"}, "weighting is 'product'"),
        ({"return_diagnostics": True}, "return_diagnostics is True"),
        ({"weighting": "importance", "key": None, "return_mean": True}, "key is None"),
    ],
)
def test_bad_arguments(options, message):
    arguments = {"key": jax.random.key(0), **options}
    with pytest.raises(ValueError, match=message):
        mm.encode(make_model(), mm.Batch(make_data()), **arguments)
