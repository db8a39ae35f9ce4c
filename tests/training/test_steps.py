"""The train step: it learns, is pure but for the donated state, and compiles once."""

from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.maths.losses import LOSSES
from mmvae_jax.networks.mlp import MLPDecoder, MLPEncoder

CONFIG = mm.MMVAEConfig(
    input_dims={"a": (6,), "b": (9,)},
    latent_dim=2,
    K=4,
    decoder_dist_params={"a": {"scale": 0.5}, "b": {"scale": 0.5}},
)


def make_model(config=CONFIG):
    rngs = nnx.Rngs(0)
    encoders = {
        m: MLPEncoder(dim, config.latent_dim, hidden=(32,), rngs=rngs)
        for m, dim in config.input_dims.items()
    }
    decoders = {
        m: MLPDecoder(config.latent_dim, dim, hidden=(32,), rngs=rngs)
        for m, dim in config.input_dims.items()
    }
    return mm.MMVAE(config, encoders, decoders, rngs=rngs)


# Another optimizer object is another program.
ADAM = optax.adam(3e-3)


def make_state(config=CONFIG):
    return mm.create_train_state(make_model(config), ADAM, key=jax.random.key(1))


@pytest.fixture(scope="module")
def batch():
    """Two linear views of one two-dimensional factor, with noise."""
    rng = np.random.default_rng(0)
    factor = rng.laplace(size=(32, 2))
    views = {"a": factor @ rng.normal(size=(2, 6)), "b": factor @ rng.normal(size=(2, 9))}
    scaled = {m: x / x.std() + 0.1 * rng.normal(size=x.shape) for m, x in views.items()}
    return mm.Batch(data={m: x.astype(np.float32) for m, x in scaled.items()})


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(loss, marks=() if loss == "dreg_looser" else pytest.mark.slow)
        for loss in LOSSES
    ],
)
def test_learns(loss, batch):
    """Every loss name trains: within 60 steps the loss falls to less than half."""
    state = make_state(CONFIG.replace(loss=loss))
    before = mm.eval_step(state, batch)["loss"]
    for _ in range(60):
        state, metrics = mm.train_step(state, batch)
    after = mm.eval_step(state, batch)["loss"]
    assert after < before / 2
    chex.assert_tree_all_finite(metrics)
    assert state.step == 60


@pytest.mark.slow
def test_step_is_the_optimizers_update(batch):
    """One step with SGD is params - rate * gradient, at the key of the step."""
    state = mm.create_train_state(make_model(), optax.sgd(0.1), key=jax.random.key(1))
    model = state.model()
    key = jax.random.fold_in(jax.random.key(1), 0)
    metrics, grads = jax.jit(mm.value_and_grad)(model, batch, key)
    after, step_metrics = mm.train_step(state, batch, backward=mm.Backward("dense"))
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, nnx.state(model, nnx.Param), grads)
    chex.assert_trees_all_close(nnx.state(after.model(), nnx.Param), expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(step_metrics, metrics, rtol=1e-5)


@pytest.mark.slow
def test_same_state_same_step(batch):
    """Randomness comes from the state's key and step alone."""
    runs = []
    for _ in range(2):
        state = make_state()
        for _ in range(3):
            state, metrics = mm.train_step(state, batch)
        runs.append((state.params, metrics))
    chex.assert_trees_all_equal(*runs)
    other, metrics = mm.train_step(make_state(), batch)
    _, again = mm.train_step(other, batch)
    assert metrics["loss"] != again["loss"]


def test_donation_leaves_the_users_arrays_alone(batch):
    """The model, the key and every model() taken on the way survive later steps."""
    model, key = make_model(), jax.random.key(1)
    state = mm.create_train_state(model, ADAM, key=key)
    taken = state.model()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(taken, nnx.Param)))
    state, _ = mm.train_step(state, batch)
    middle = state.model()
    state, _ = mm.train_step(state, batch)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(taken, nnx.Param)), before)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(model, nnx.Param)), before)
    assert jnp.isfinite(jax.jit(mm.loss)(middle, batch, key))


class Counting(MLPEncoder):
    """Called once for every time that a step is traced."""

    traces: ClassVar[list[int]] = []

    def __call__(self, x):
        self.traces.append(len(x))
        return super().__call__(x)


def test_one_compilation_per_shape(batch):
    """Neither values, masks, states nor equal configs built anew trace the step again."""

    def counting_state(config, seed):
        encoders = {"a": Counting((6,), 2, hidden=(4,), rngs=nnx.Rngs(seed))}
        model = mm.MMVAE(config, encoders, rngs=nnx.Rngs(seed))
        return mm.create_train_state(model, ADAM, key=jax.random.key(seed))

    Counting.traces.clear()
    full = {m: np.ones(32, bool) for m in CONFIG.modalities}
    partial = {**full, "a": np.arange(32) % 2 == 0}
    state = counting_state(CONFIG, 0)
    for mask in (full, partial, full):
        state, _ = mm.train_step(state, batch.replace(mask=mask))
    twin = counting_state(mm.MMVAEConfig.from_json(CONFIG.to_json()), 9)
    mm.train_step(twin, batch.replace(mask=partial))
    assert Counting.traces == [32]
    half = jax.tree.map(lambda a: a[:16], batch.replace(mask=partial))
    mm.train_step(state, half)
    assert Counting.traces == [32, 16]


def test_works_inside_scan(batch):
    """Several steps in one device call equal the same steps one by one."""

    @jax.jit
    def three_steps(state):
        return jax.lax.scan(lambda state, _: mm.train_step(state, batch), state, length=3)

    scanned, metrics = three_steps(make_state())
    state = make_state()
    for _ in range(3):
        state, last = mm.train_step(state, batch)
    chex.assert_trees_all_close(scanned.params, state.params, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"][-1], last["loss"], rtol=1e-4)


@pytest.mark.slow
def test_eval_step_turns_random_layers_off(batch):
    class Noisy(nnx.Module):
        def __init__(self, rngs):
            self.loc = nnx.Linear(6, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.9, rngs=rngs)

        def __call__(self, x):
            loc = self.dropout(self.loc(x))
            return loc, jnp.zeros_like(loc)

    model = mm.MMVAE(CONFIG, {"a": Noisy(nnx.Rngs(2))}, rngs=nnx.Rngs(0))
    state = mm.create_train_state(model, ADAM, key=jax.random.key(1))
    losses = {}
    for mode in ("train", "eval"):
        getattr(model, mode)()
        key = jax.random.fold_in(state.key, 0)
        losses[mode] = float(jax.jit(mm.loss)(model, batch, key))
    np.testing.assert_allclose(mm.eval_step(state, batch)["loss"], losses["eval"], rtol=1e-5)
    _, metrics = mm.train_step(state, batch)
    np.testing.assert_allclose(metrics["loss"], losses["train"], rtol=1e-5)
    assert losses["train"] != losses["eval"]


def test_wrong_batch_is_named_at_trace_time(batch):
    with pytest.raises(ValueError, match=r"batch.data has the modalities \['a'\]"):
        mm.train_step(make_state(), mm.Batch(data={"a": batch.data["a"]}))
