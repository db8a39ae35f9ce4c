"""Optimizers get what optax asks for, donate nothing twice, and are one for equal settings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from optax import contrib

import mmvae_jax as mm
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder
from mmvae_jax.training.optimizer import taken_by

CONFIG = mm.MMVAEConfig(input_dims={"w": (4,)}, latent_dim=2, K=2)
BATCH = mm.Batch({"w": np.ones((8, 4), np.float32)})


def make_model(seed=0):
    rngs = nnx.Rngs(seed)
    encoder = MLPEncoder((4,), 2, hidden=(3,), rngs=rngs)
    decoder = MLPDecoder(2, (4,), hidden=(3,), rngs=rngs)
    return mm.MMVAE(CONFIG, {"w": encoder}, {"w": decoder}, rngs=rngs)


def steps(tx, num, mesh=None):
    state = mm.create_train_state(make_model(), tx, key=jax.random.key(1), mesh=mesh)
    losses = []
    for _ in range(num):
        state, metrics = mm.train_step(state, BATCH)
        losses.append(float(metrics["loss"]))
    return state, losses


OPTIMIZERS = {
    "plateau": optax.chain(optax.sgd(1e-4), contrib.reduce_on_plateau(factor=0.5, patience=1)),
    "prodigy": contrib.prodigy(),
    "lbfgs": optax.lbfgs(memory_size=2),
    "backtracking": optax.chain(optax.sgd(0.1), optax.scale_by_backtracking_linesearch(3)),
    "polyak": optax.polyak_sgd(),
    "momo": contrib.momo(),
    "mechanize": contrib.mechanize(optax.sgd(0.1)),
    "schedule_free": contrib.schedule_free_adamw(1e-3),
    "sam": contrib.sam(optax.sgd(1e-3), optax.sgd(1e-2)),
    "adamw": mm.make_optimizer(1e-3, weight_decay=0.1, clip_norm=1.0, max_skips=2),
    "amsgrad": mm.make_optimizer(1e-3, weight_decay=0.1, amsgrad=True),
}
FAST = ("prodigy",)


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in OPTIMIZERS]
)
def test_every_optimizer_trains(name):
    # A line search draws the same particles again and again, and means to.
    with jax.debug_key_reuse(name != "backtracking"):
        state, losses = steps(OPTIMIZERS[name], 3)
    assert int(state.step) == 3
    assert np.isfinite(losses).all()


def test_the_rate_falls_where_the_loss_does_not():
    """Nothing is 1e9 better than the first step, so the rate is halved at every one after it."""
    plateau = contrib.reduce_on_plateau(factor=0.5, patience=1, rtol=0.0, atol=1e9)
    state, _ = steps(optax.chain(optax.sgd(1e-4), plateau), 3)
    np.testing.assert_allclose(optax.tree.get(state.opt_state, "scale"), 0.25)


class Given(list):
    """An optimizer that keeps, on the host, what its update is given."""

    def __init__(self):
        def update(updates, state, params=None, *, value, grad, value_fn):
            found, slope = jax.value_and_grad(value_fn)(params)
            jax.debug.callback(lambda *x: self.append(x), updates, value, grad, found, slope)
            return jax.tree.map(jnp.zeros_like, updates), state

        functions: Any = (optax.identity().init, update)
        self.tx = optax.GradientTransformationExtraArgs(*functions)


@pytest.mark.parametrize("on_mesh", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("four_devices")
def test_the_function_of_the_loss_is_that_of_the_step(on_mesh):
    """Its value and gradient at the parameters are those that the update is given."""
    given = Given()
    mesh = mm.make_mesh(2, 2) if on_mesh else None
    _, losses = steps(given.tx, 1, mesh=mesh)
    jax.effects_barrier()
    updates, value, grad, found, slope = given[0]
    np.testing.assert_allclose([value, found], losses * 2, rtol=1e-5)
    for other in (grad, slope):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), updates, other)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(grad)) > 0


def test_an_update_is_given_only_what_it_takes():
    extra = {"value": 1, "grad": 2, "value_fn": 3}
    assert taken_by(optax.chain(optax.sgd(0.1), contrib.reduce_on_plateau()), extra) == extra
    assert taken_by(optax.scale(0.1), extra) == {}


def test_weight_decay_shrinks_parameters_apart_from_the_gradient():
    """A step of AdamW is that of Adam minus rate * decay * parameters."""
    rate, decay = 1e-2, 0.3
    params, grads = jnp.array([0.5, -2.0]), jnp.array([3.0, 0.1])
    plain, decayed = mm.make_optimizer(rate), mm.make_optimizer(rate, weight_decay=decay)
    updates: Any = [tx.update(grads, tx.init(params), params)[0] for tx in (plain, decayed)]
    np.testing.assert_allclose(updates[1], updates[0] - rate * decay * params, rtol=1e-3)


class Counting(MLPEncoder):
    """An encoder that counts its traces."""

    num_traces = 0

    def __call__(self, x):
        Counting.num_traces += 1
        return super().__call__(x)


def test_the_second_fold_compiles_nothing():
    """Equal settings are one optimizer, and models of equal architecture one program."""
    for fold in range(2):
        tx = mm.make_optimizer(np.float64(3e-3), clip_norm=2.0)
        encoder = Counting((4,), 2, hidden=(3,), rngs=nnx.Rngs(fold))
        model = mm.MMVAE(CONFIG, {"w": encoder}, rngs=nnx.Rngs(fold))
        state = mm.create_train_state(model, tx, key=jax.random.key(fold))
        mm.train_step(state, BATCH)
        assert Counting.num_traces == 1
    assert mm.make_optimizer(1e-3) is not mm.make_optimizer(2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"max_skips": 0}, "max_skips is 0"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mm.make_optimizer(**options)
