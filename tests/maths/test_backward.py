"""Sparse, sampled and residual backward passes against the dense one."""

import dataclasses
import inspect
import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import DIMS, double, every_mask, make_data, make_model

import mmvae_jax as mm
from mmvae_jax import objective
from mmvae_jax.maths import groups
from mmvae_jax.maths.backward import Backward, coefficients

K = 7
DENSE = Backward("dense")
EXAMPLES = jnp.arange(4)
value_and_grad = jax.jit(mm.value_and_grad, static_argnames="backward")


def problem(loss):
    """A model and an incomplete batch in float64."""
    model = make_model(loss=loss, K=K)
    nnx.update(model, double(nnx.state(model)))
    return model, mm.Batch(data=double(make_data()), mask=every_mask())


def gradient(model, batch, backward):
    """Metrics and gradient of one key; the same program wherever the arguments are alike."""
    return value_and_grad(model, batch, jax.random.key(1), backward=backward)


EXACT = Backward("sparse", tolerance=0.0, chunk=1000)
ROUGH = Backward("sparse", tolerance=0.3)
USUAL = Backward("sparse")


@pytest.mark.parametrize(
    ("loss", "backward"),
    [
        pytest.param("iwae", dataclasses.replace(EXACT, chunk=10), marks=pytest.mark.slow),
        pytest.param("dreg_looser", EXACT, marks=pytest.mark.slow),
        pytest.param("adaptive_dreg", dataclasses.replace(EXACT, chunk=10), marks=pytest.mark.slow),
        pytest.param("mixture_dreg", dataclasses.replace(EXACT, chunk=10), marks=pytest.mark.slow),
        ("elbo", dataclasses.replace(EXACT, chunk=56)),
    ],
)
def test_sparse_without_tolerance_is_dense(x64, loss, backward):
    """Same draws, same metrics, same gradient, in chunks that divide the particles or do not."""
    model, batch = problem(loss)
    expected = gradient(model, batch, DENSE)
    ours = gradient(model, batch, backward)
    chex.assert_trees_all_close(ours, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "direct_share"),
    [("adaptive_dreg_looser", 0.2), ("adaptive_dreg_looser", 0.0), ("mixture_dreg", 0.2)],
)
def test_tiles_of_groups_give_the_same_gradient(x64, monkeypatch, loss, direct_share):
    """Some or all tiles go backward at once, with masks and weights, and tiles that are padded."""
    model, batch = problem(loss)
    batch = batch.replace(weight=np.arange(8) / 4)
    rough = dataclasses.replace(ROUGH, chunk=3 * K)

    def gradient(*, in_groups):
        monkeypatch.setattr(objective, "has_convolutions", lambda decoders: not in_groups)
        return jax.jit(partial(mm.value_and_grad, backward=rough))(model, batch, jax.random.key(1))

    expected = gradient(in_groups=False)
    monkeypatch.setattr(groups, "DIRECT_SHARE", direct_share)
    chex.assert_trees_all_close(gradient(in_groups=True), expected, rtol=1e-10, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("residual", "mixture_dreg"),
        pytest.param("residual", "dreg_looser", marks=pytest.mark.slow),
        pytest.param("sampled", "mixture_dreg", marks=pytest.mark.slow),
        pytest.param("sampled", "dreg_looser", marks=pytest.mark.slow),
    ],
)
def test_drawn_particles_are_unbiased(x64, kind, loss):
    """The mean over the choice of particles is the dense gradient of the same draws."""
    model, batch = problem(loss)
    noise = {m: jax.random.laplace(jax.random.key(i), (K, 8, 4)) for i, m in enumerate(DIMS)}
    backward = Backward(kind, tolerance=0.2, chunk=64, num_backward=2)

    @jax.jit
    def gradients(keys):
        def one(key):
            _, grads = mm.value_and_grad(model, batch, key, noise=noise, backward=backward)
            return jnp.concatenate([g.ravel() for g in jax.tree.leaves(grads)])

        return jax.lax.map(one, keys)

    drawn = gradients(jax.random.split(jax.random.key(2), 600))
    _, dense = value_and_grad(model, batch, noise=noise, backward=DENSE)
    dense = jnp.concatenate([g.ravel() for g in jax.tree.leaves(dense)])
    error = drawn.std(0) / np.sqrt(len(drawn))
    z_scores = jnp.abs(drawn.mean(0) - dense) / jnp.maximum(error, 1e-10)
    assert error.max() > 1e-5  # it does vary
    assert z_scores.max() < 5  # the largest of 700
    assert (z_scores**2).mean() < 1.5


@pytest.mark.slow
def test_sparse_error_falls_with_the_tolerance(x64):
    model, batch = problem("dreg_looser")
    _, dense = gradient(model, batch, DENSE)
    norm = optax.tree.norm(dense)
    errors = []
    for backward in (ROUGH, USUAL):
        _, grads = gradient(model, batch, backward)
        errors.append(optax.tree.norm(optax.tree.sub(grads, dense)) / norm)
    assert errors[0] > errors[1] > 0
    assert errors[1] < 1e-3


@pytest.mark.slow
def test_metrics_say_what_was_dropped(x64):
    model, batch = problem("dreg_looser")
    shares, masses = {}, {}
    for backward in (DENSE, USUAL, ROUGH):
        metrics, _ = gradient(model, batch, backward)
        shares[backward] = metrics["backward_share"]
        masses[backward] = metrics["dropped_mass"]
    assert shares[DENSE] == 1 > shares[USUAL] > shares[ROUGH] > 1 / K  # one of each group at least
    assert masses[DENSE] == 0 < masses[USUAL] < USUAL.tolerance < masses[ROUGH] < ROUGH.tolerance


@pytest.mark.slow
def test_evaluation_drops_nothing():
    state = mm.create_train_state(make_model(K=K), optax.sgd(0.0), key=jax.random.key(0))
    metrics = jax.eval_shape(mm.eval_step, state, mm.Batch(data=make_data()))
    assert not {"backward_share", "dropped_mass"} & set(metrics)


def test_missing_data_change_no_bit(x64):
    model, batch = problem("dreg_looser")
    spoilt = {
        m: jnp.where(batch.mask[m].reshape(-1, *[1] * (x.ndim - 1)), x, jnp.nan)
        for m, x in batch.data.items()
    }
    ours, expected = (
        gradient(model, given, USUAL) for given in (batch.replace(data=spoilt), batch)
    )
    chex.assert_tree_all_finite(expected)
    chex.assert_trees_all_equal(ours, expected)


# The choice of particles, without a model.


@pytest.fixture
def weights():
    """Three experts, five particles, four examples; one example has nothing."""
    logits = 3 * jax.random.normal(jax.random.key(4), (3, 5, 4))
    return jax.nn.softmax(logits, axis=1).at[:, :, 0].set(0)


def test_sparse_keeps_the_smallest_sufficient_set(weights):
    kept = coefficients(Backward("sparse", tolerance=0.05), weights, None, EXAMPLES, joint=False)
    assert ((kept == weights) | (kept == 0)).all()
    dropped = weights - kept
    assert (dropped.sum(1) <= 0.05).all()
    smallest_kept = jnp.where(kept > 0, kept, jnp.inf).min(1)
    assert (dropped.max(1) <= smallest_kept).all()
    # one more could not be spared
    has_any = (kept > 0).any(1)
    assert ((dropped.sum(1) + smallest_kept > 0.05) | ~has_any).all()
    assert not kept[:, :, 0].any()


def test_joint_groups_share_the_tolerance(weights):
    kept = coefficients(Backward("sparse", tolerance=0.05), weights / 3, None, EXAMPLES, joint=True)
    dropped = (weights / 3 - kept).sum((0, 1))
    assert (dropped <= 0.05).all()
    smallest_kept = jnp.where(kept > 0, kept, jnp.inf).min((0, 1))
    assert (dropped + smallest_kept > 0.05)[1:].all()


@pytest.mark.parametrize("kind", ["sampled", "residual"])
def test_draws_have_the_weights_as_their_mean(weights, kind):
    backward = Backward(kind, tolerance=0.3, num_backward=2)
    keys = jax.random.split(jax.random.key(5), 4000)
    drawn = jax.vmap(lambda key: coefficients(backward, weights, key, EXAMPLES, joint=False))(keys)
    largest_error = jnp.sqrt(weights / len(keys))  # of one draw, a Bernoulli variable
    assert (jnp.abs(drawn.mean(0) - weights) <= 4.5 * largest_error + 1e-6).all()
    np.testing.assert_allclose(drawn[:, :, :, 1:].sum(2), 1, rtol=1e-5)
    assert not drawn[:, :, :, 0].any()


@pytest.mark.parametrize("joint", [False, True])
def test_a_larger_tolerance_keeps_fewer_of_the_same(weights, joint):
    kept = [
        coefficients(Backward("sparse", tolerance=t), weights, None, EXAMPLES, joint=joint) > 0
        for t in (0.0, 1e-2, 0.1, 0.5)
    ]
    assert (kept[0] == (weights > 0)).all()
    for more, fewer in itertools.pairwise(kept):
        assert (more | ~fewer).all()
        assert more.sum() > fewer.sum()


# Costs and refusals.


@pytest.mark.slow
def test_memory_holds_three_numbers_per_particle():
    """Temporaries of the compiled gradient: no activations of all particles, as dense has them."""

    def temporaries(kind, num_particles):
        model = mm.MMVAE(make_model(K=num_particles).config, rngs=nnx.Rngs(0))
        lowered = value_and_grad.lower(
            model, mm.Batch(data=make_data()), jax.random.key(0), backward=Backward(kind)
        )
        return lowered.compile().memory_analysis().temp_size_in_bytes

    many = temporaries("sparse", 1000)
    num_more = len(DIMS) * (1000 - 600) * 8  # of 600 no tile holds a group, either
    assert many - temporaries("sparse", 600) <= 3 * 4 * num_more
    assert many < temporaries("dense", 1000) / 20


@pytest.mark.slow
def test_random_decoders_run_dense():
    class Noisy(nnx.Module):
        def __init__(self):
            self.out = nnx.Linear(4, 6, rngs=nnx.Rngs(0))
            self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

        def __call__(self, z):
            return self.dropout(self.out(z))

    usual = make_model(K=K)
    decoders = {**usual.decoders, "a": Noisy()}
    model = mm.MMVAE(usual.config, dict(usual.encoders), decoders, rngs=nnx.Rngs(0))
    batch = mm.Batch(data=make_data())
    auto = gradient(model, batch, Backward())
    dense = gradient(model, batch, DENSE)
    chex.assert_trees_all_equal(auto, dense)
    with pytest.raises(ValueError, match=r"decoders draw random numbers.*backward='dense'"):
        gradient(model, batch, Backward("sparse"))


@pytest.mark.parametrize(
    ("device", "experts", "particles", "examples", "is_random", "kind"),
    [
        ("cpu", 3, 7, 24, False, "dense"),  # 504 particles
        ("cpu", 3, 7, 25, False, "sparse"),
        ("cpu", 3, 7, 25, True, "dense"),
        ("cpu", 5, 2, 1000, False, "dense"),  # of two particles none is worth dropping
        ("cpu", 2, 3, 86, False, "sparse"),
        ("gpu", 2, 100, 128, False, "dense"),  # 25,600 particles
        ("gpu", 4, 63, 130, False, "dense"),  # 32,760 particles
        ("gpu", 4, 64, 128, False, "sparse"),
        ("gpu", 4, 64, 128, True, "dense"),
        ("gpu", 5, 2, 4000, False, "dense"),
    ],
)
def test_auto(monkeypatch, device, experts, particles, examples, is_random, kind):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    resolved = Backward().resolve(experts, particles, examples, tile_size=64, is_random=is_random)
    assert resolved == Backward(kind, chunk=64)


def test_auto_is_the_default_of_all_that_differentiate():
    functions = (mm.loss, mm.value_and_grad, mm.train_step, mm.train_steps, mm.fit)
    for function in functions:
        assert inspect.signature(function).parameters["backward"].default == Backward("auto")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "spars"}, r"backward is 'spars': choose one of \['auto', 'dense'"),
        ({"tolerance": 1.0}, "tolerance is 1.0: give a share from 0 to below 1"),
        ({"chunk": 0}, "chunk is 0: give an integer of at least 1"),
        ({"num_backward": 0}, "num_backward is 0: give an integer of at least 1"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Backward(**fields)
