"""Checkpoints: nothing is lost, nothing is overwritten, nothing is taken for something else."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.checkpoint import Checkpoints

CONFIG = mm.MMVAEConfig(input_dims={"a": (4,), "b": (3,)}, latent_dim=2, K=2)


class NoisyEncoder(nnx.Module):
    """An encoder with random layers, which keep a key and a count of their own."""

    def __init__(self, rngs: nnx.Rngs):
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return tuple(jnp.split(self.linear(self.dropout(x)), 2, axis=-1))


SCHEDULE = optax.linear_schedule(1e-2, 1e-3, 10)
ADAM = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(SCHEDULE))
SGD = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(SCHEDULE))


def make_state(seed: int = 0, *, tx=ADAM, impl: str | None = None, **changes) -> mm.TrainState:
    rngs = nnx.Rngs(seed)
    config = CONFIG.replace(**changes)
    encoders = {"a": NoisyEncoder(rngs)} if config.latent_dim == 2 else None
    model = mm.MMVAE(config, encoders, rngs=rngs)
    return mm.create_train_state(model, tx, key=jax.random.key(seed, impl=impl))


def make_batch(step: int) -> mm.Batch:
    rng = np.random.default_rng(step)
    data = {name: rng.random((5, *dim), np.float32) for name, dim in CONFIG.input_dims.items()}
    return mm.Batch(data=data, mask={"a": rng.random(5) < 0.5, "b": np.ones(5, bool)})


def train(state: mm.TrainState, num_steps: int) -> mm.TrainState:
    for _ in range(num_steps):
        state, _ = mm.train_step(state, make_batch(int(state.step)))
    return state


def arrays(state: mm.TrainState) -> dict[str, np.ndarray]:
    """Every array by its path, keys as their bits."""
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        for path, x in jax.tree.leaves_with_path(state)
    }


def assert_same(state: mm.TrainState, other: mm.TrainState) -> None:
    given, expected = arrays(state), arrays(other)
    assert given.keys() == expected.keys()
    for path, x in expected.items():
        assert given[path].dtype == x.dtype, path
        assert given[path].tobytes() == x.tobytes(), path


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "run", config=CONFIG.to_dict())


@pytest.mark.parametrize("impl", [None, "rbg"])
def test_restores_every_array_bit_for_bit(checkpoints, impl):
    state = make_state(impl=impl)
    moments = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), state.opt_state)
    state = state.replace(opt_state=moments, step=jnp.int32(3))
    assert any("rngs" in path for path in arrays(state))  # the dropout's own key is among them
    checkpoints.save(state)
    other = make_state(seed=1, impl=impl)
    before = arrays(other)
    restored = Checkpoints(checkpoints.directory, config=CONFIG.to_dict()).restore(other)
    assert_same(restored, state)
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    assert all((x == before[path]).all() for path, x in arrays(other).items())


def test_going_on_equals_never_stopping(checkpoints):
    checkpoints.save(train(make_state(), 4))
    resumed = train(checkpoints.restore(make_state(seed=1)), 3)
    assert_same(resumed, train(make_state(), 7))


def test_keeps_the_newest_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path / "a" / "run", config={}, keep=2)
    assert checkpoints.steps == ()
    assert not checkpoints.directory.exists()  # looking writes nothing
    state = make_state()
    for step in [0, 3, 20, 100]:
        checkpoints.save(state.replace(step=jnp.int32(step)))
    assert checkpoints.steps == (20, 100)
    assert Checkpoints(checkpoints.directory, config={}).steps == (20, 100)
    assert int(checkpoints.restore(state).step) == 100
    assert int(checkpoints.restore(state, step=20).step) == 20


@pytest.mark.parametrize("step", [5, 4])
def test_never_overwrites(checkpoints, step):
    state = make_state().replace(step=jnp.int32(5))
    checkpoints.save(state)
    with pytest.raises(ValueError, match=rf"step is {step}, but .* holds step 5.*never overwrit"):
        checkpoints.save(make_state(seed=1).replace(step=jnp.int32(step)))
    assert checkpoints.steps == (5,)
    assert_same(checkpoints.restore(make_state(seed=2)), state)


def test_names_the_settings_that_differ(checkpoints):
    checkpoints.save(make_state())
    directory = checkpoints.directory
    assert json.loads((directory / "config.json").read_text()) == json.loads(CONFIG.to_json())
    other = {**CONFIG.replace(K=3).to_dict(), "extra": True}
    with pytest.raises(ValueError, match="config differs") as error:
        Checkpoints(directory, config=other)
    lines = str(error.value).splitlines()
    assert lines[1:-1] == ["  K: 2 there, 3 now", "  extra: absent there, true now"]
    assert json.loads((directory / "config.json").read_text())["K"] == 2


def test_names_the_arrays_that_differ(checkpoints):
    checkpoints.save(make_state())
    with pytest.raises(ValueError, match=r"prior_log_var: float32\[2\] there, float32\[3\] now"):
        checkpoints.restore(make_state(latent_dim=3))
    with pytest.raises(ValueError, match=r"opt_state\.1\.0\.count: int32\[\] there, absent now"):
        checkpoints.restore(make_state(tx=SGD))
    half = make_state()
    half = half.replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), half.params))
    with pytest.raises(ValueError, match=r"float32\[\d+\] there, bfloat16\[\d+\] now"):
        checkpoints.restore(half)


def test_missing_checkpoints(checkpoints):
    with pytest.raises(FileNotFoundError, match="run holds no checkpoint"):
        checkpoints.restore(make_state())
    assert not checkpoints.directory.exists()
    checkpoints.save(make_state())
    with pytest.raises(FileNotFoundError, match=r"holds no step 7: choose one of \[0\]"):
        checkpoints.restore(make_state(), step=7)


def test_ignores_a_step_that_was_cut_off(checkpoints):
    checkpoints.save(make_state())
    (checkpoints.directory / "1.orbax-checkpoint-tmp-7").mkdir()
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict())
    assert again.steps == (0,)
    again.save(make_state().replace(step=jnp.int32(1)))
    assert again.steps == (0, 1)


def test_keep_is_checked(tmp_path):
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, config={}, keep=0)
