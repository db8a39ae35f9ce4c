"""What must not change a likelihood estimate, and how the estimates compose with JAX."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear_gaussian import EVIDENCE, LinearDecoder, hide, linear_gaussian, make_problem

import mmvae_jax as mm

pytestmark = pytest.mark.usefixtures("x64")

each = pytest.mark.parametrize("name", list(EVIDENCE))
some = pytest.mark.parametrize(  # all ways to draw and weigh
    "name", ["joint", *(pytest.param(name, marks=pytest.mark.slow) for name in ("paper", "ratio"))]
)

K = 31
# Sums of numbers of size 10 in 64 bits, in another order.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}


def estimate(name, model, batch, seed=0, **counts):
    """One array ``[b]``, whatever the estimator's result."""
    counts = {"K": K, "batch_size_K": 10, **counts}
    nll = EVIDENCE[name](model, batch, jax.random.key(seed), **counts)
    return nll["b"] if isinstance(nll, dict) else nll


def rows(batch, indices):
    return jax.tree.map(lambda a: a[np.asarray(indices)], batch)


@pytest.mark.slow
@some
def test_chunks(name):
    """Chunks of ten, of which the last is not full, are as good as one of all particles."""
    _, model, _, _, batch = make_problem(3)
    whole = estimate(name, model, batch, batch_size_K=1000)
    chex.assert_trees_all_close(estimate(name, model, batch), whole, **ROUNDING)


@pytest.mark.slow
@each
def test_neighbours(name):
    """An example's answer with one key: alone, elsewhere in the batch, beside other examples."""
    _, model, _, _, batch = make_problem(3)
    together = np.asarray(estimate(name, model, batch))
    size = len(together)
    assert len(set(together[~np.isnan(together)])) > 2
    for b in range(size):
        alone = estimate(name, model, rows(batch, [b]))
        chex.assert_trees_all_close(np.asarray(alone), together[[b]], **ROUNDING)
    for order in (np.arange(size)[::-1], np.array([2, 2, 2, 5, 5, 0, 4])):
        chex.assert_trees_all_close(
            np.asarray(estimate(name, model, rows(batch, order))), together[order], **ROUNDING
        )


@each
def test_fillers_and_absent_modalities(name):
    """NaN, infinities, zeros or no data at all where an example is masked: not a bit changes."""
    _, model, data, mask, batch = make_problem(3)
    expected = estimate(name, model, batch)
    for filler in (0.0, np.inf, 1e30):
        other = mm.Batch(hide(data, mask, filler), mask)
        chex.assert_trees_all_equal(estimate(name, model, other), expected)
    without = {m: x for m, x in data.items() if m != "c"}
    unseen = {**mask, "c": np.zeros_like(mask["c"])}
    chex.assert_trees_all_equal(
        estimate(name, model, mm.Batch(without, {m: mask[m] for m in without})),
        estimate(name, model, mm.Batch(hide(data, unseen), unseen)),
    )


@each
def test_key_and_purity(name):
    """One key, one answer; another key, another; the model stays as it was."""
    _, model, _, _, batch = make_problem(3)
    before = jax.tree.map(np.array, nnx.state(model))
    first, again, other = (np.asarray(estimate(name, model, batch, seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all((first != other) | np.isnan(first))
    chex.assert_trees_all_equal(jax.tree.map(np.array, nnx.state(model)), before)


@some
def test_jit_of_the_whole(name):
    """Strings and counts are static arguments."""
    _, model, _, _, batch = make_problem(3)
    function = EVIDENCE[name]
    function, fixed = getattr(function, "func", function), getattr(function, "keywords", {})
    jitted = jax.jit(function, static_argnames=("K", "batch_size_K", *fixed))
    whole = jitted(model, batch, jax.random.key(0), K=K, batch_size_K=10, **fixed)
    chex.assert_trees_all_close(whole, estimate(name, model, batch), **ROUNDING)


@pytest.mark.parametrize("name", ["joint", "cond"])
def test_vmap_over_models(name):
    """A stack of models, an NNX module like any other, equals one by one."""
    _, model, _, _, batch = make_problem(3)
    graphdef, state = nnx.split(model)
    states = [state, jax.tree.map(lambda a: 1.1 * a, state)]
    stack = nnx.merge(graphdef, jax.tree.map(lambda *a: jnp.stack(a), *states))
    stacked = jax.vmap(lambda model: estimate(name, model, batch))(stack)
    single = jnp.stack([estimate(name, nnx.merge(graphdef, state), batch) for state in states])
    chex.assert_trees_all_close(stacked, single, **ROUNDING)


class CountingDecoder(LinearDecoder):
    """Counts its calls, which under jit are traces."""

    num_calls = 0

    def __call__(self, z):
        CountingDecoder.num_calls += 1
        return super().__call__(z)


@some
def test_one_compilation_for_all_batches(name):
    """Other keys, masks, values, parameters and numbers of examples are traced no more."""
    case, _, data, mask, batch = make_problem(3)
    graphdef, state = nnx.split(counting_model(case))
    CountingDecoder.num_calls = 0
    estimate(name, nnx.merge(graphdef, state), batch, K=17)
    once = CountingDecoder.num_calls
    assert once > 0
    flipped = {m: ~given for m, given in mask.items()}
    estimate(name, nnx.merge(graphdef, state), mm.Batch(data, flipped), seed=1, K=17)
    estimate(name, nnx.merge(graphdef, jax.tree.map(lambda a: 2 * a, state)), batch, K=17)
    estimate(name, counting_model(case), batch, K=17)
    estimate(name, nnx.merge(graphdef, state), rows(batch, [0, 1]), K=17)
    assert CountingDecoder.num_calls == once
    estimate(name, nnx.merge(graphdef, state), batch, K=18)
    assert CountingDecoder.num_calls > once


def counting_model(case):
    model = case.model()
    decoders = {
        m: CountingDecoder(old.linear.kernel[...], old.linear.bias[...], old.dim)
        for m, old in model.decoders.items()
    }
    return mm.MMVAE(model.config, dict(model.encoders), decoders, rngs=nnx.Rngs(0))


@pytest.mark.slow
@some
def test_gradients_are_finite(name):
    """With respect to every parameter, whatever is missing and whatever stands in its place."""
    _, model, _, _, batch = make_problem(3)

    def mean_nll(model):
        nll = estimate(name, model, batch)
        return jnp.where(jnp.isnan(nll), 0, nll).mean()

    grads = jax.tree.leaves(nnx.state(jax.grad(mean_nll)(model), nnx.Param))
    assert all(np.isfinite(grad).all() for grad in grads)
    assert any(np.abs(grad).max() > 1e-3 for grad in grads)


@each
def test_nothing_observed(name):
    """-log p of nothing is 0; a conditional or marginal that does not exist is NaN."""
    _, model, data, mask, _ = make_problem(3)
    for value in mask.values():
        value[1] = False
    nll = np.asarray(estimate(name, model, mm.Batch(hide(data, mask), mask)))
    if name in ("joint", "paper"):
        assert nll[1] == 0
        assert np.isfinite(nll).all()
    else:
        assert np.isnan(nll[1])
        assert np.isfinite(nll[0])


@some
def test_smallest_problem(name):
    """One example, one latent axis, one particle in a chunk of one."""
    case = linear_gaussian(3, latent_dim=1)
    model, batch = case.model(), mm.Batch(case.sample(1))
    nll = np.asarray(estimate(name, model, batch, K=1, batch_size_K=1))
    assert nll.shape == (1,)
    assert np.isfinite(nll).all()


def test_random_layers_are_off():
    """Dropout in a decoder in training mode: as in evaluation mode."""
    _, model, _, _, batch = make_problem(3)
    decoders = {m: nnx.Sequential(old, Dropped()) for m, old in model.decoders.items()}
    noisy = mm.MMVAE(model.config, dict(model.encoders), decoders, rngs=nnx.Rngs(0))
    noisy.prior_log_var.set_value(model.prior_log_var[...])
    noisy.train()
    chex.assert_trees_all_close(
        estimate("joint", noisy, batch), estimate("joint", model, batch), **ROUNDING
    )


class Dropped(nnx.Module):
    """Drops half of what it gets, in the training mode."""

    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.dropout(x)
