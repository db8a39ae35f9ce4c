"""Checkpoints: nothing is lost, nothing is overwritten, nothing is taken for something else."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import mmvae_jax as mm
from mmvae_jax.saving.files import write_manifest
from mmvae_jax.training.checkpoint import Checkpoints

CONFIG = mm.MMVAEConfig(input_dims={"a": (4,), "b": (3,)}, latent_dim=2, K=2)


class NoisyEncoder(nnx.Module):
    """An encoder with random layers, which keep a key and a count."""

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
    assert any("rngs" in path for path in arrays(state))  # the dropout's key is among them
    checkpoints.save(state)
    checkpoints.wait()
    other = make_state(seed=1, impl=impl)
    before = arrays(other)
    restored = Checkpoints(checkpoints.directory, config=CONFIG.to_dict()).restore(other)
    assert_same(restored, state)
    assert jax.random.key_impl(restored.key) == jax.random.key_impl(state.key)
    assert all((x == before[path]).all() for path, x in arrays(other).items())


def test_resuming_equals_never_stopping(checkpoints):
    checkpoints.save(train(make_state(), 4))
    resumed = train(checkpoints.restore(make_state(seed=1)), 3)
    assert_same(resumed, train(make_state(), 7))


def test_keeps_the_newest_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path / "a" / "run", config={}, keep=2)
    assert checkpoints.steps == ()
    assert not checkpoints.directory.exists()  # reading writes nothing
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
    with pytest.raises(ValueError, match=rf"step is {step}, but .* holds step 5"):
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


@pytest.mark.slow
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
    with pytest.raises(FileNotFoundError, match=r"holds no step 7"):
        checkpoints.restore(make_state(), step=7)


def test_ignores_a_step_that_was_cut_off(checkpoints):
    checkpoints.save(make_state())
    checkpoints.wait()
    (checkpoints.directory / "1.orbax-checkpoint-tmp-7").mkdir()
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict())
    assert again.steps == (0,)
    again.save(make_state().replace(step=jnp.int32(1)))
    assert again.steps == (0, 1)


def test_keep_is_checked(tmp_path):
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpoints(tmp_path, config={}, keep=0)


def test_saves_the_state_of_that_moment(checkpoints):
    """The arrays are written while later steps reuse their memory."""
    state = train(make_state(), 2)
    expected = arrays(state)
    checkpoints.save(state)
    train(state, 5)
    restored = arrays(checkpoints.restore(make_state(seed=1)))
    assert all(restored[path].tobytes() == x.tobytes() for path, x in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("maximise", [pytest.param(False, marks=pytest.mark.slow), True])
def test_keeps_the_best_step_beside_the_newest(tmp_path, maximise):
    checkpoints = Checkpoints(tmp_path / "run", config={}, keep=1, best="score", maximise=maximise)
    scores = [math.nan, 1.0, 2.0, 5.0, 4.0, 4.5]
    for step, score in enumerate(scores):
        checkpoints.save(make_state().replace(step=jnp.int32(step)), {"score": score})
    best = 3 if maximise else 1
    assert checkpoints.steps == (best, 5)
    checkpoints.save(make_state().replace(step=jnp.int32(6)))  # without a score
    assert (checkpoints.steps, checkpoints.best_step) == ((best, 6), best)
    again = Checkpoints(tmp_path / "run", config={}, keep=1, best="score", maximise=maximise)
    assert again.metrics(best) == {"score": scores[best]}
    again.save(make_state().replace(step=jnp.int32(7)))
    assert again.steps == (best, 7)


def test_keeps_metrics_and_extra_values(checkpoints):
    extra = {"data": {"next_index": 7}, "judge": None}
    checkpoints.save(make_state(), {"loss": 0.1}, extra)
    checkpoints.wait()
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict())
    assert (again.metrics(0), again.extra(0)) == ({"loss": 0.1}, extra)


def largest_file(folder):
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(folder):
    file = largest_file(folder / "model")
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder):
    file = largest_file(folder / "run")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "truncated": (truncate, r"model/.* has \d+ bytes"),
    "flipped": (flip_a_bit, r"run/.* is not the file that was written"),
    "missing": (lambda folder: largest_file(folder / "model").unlink(), r"model/.* is missing"),
    "no manifest": (
        lambda folder: (folder / "manifest.json").unlink(),
        r"manifest.json is missing",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["flipped", *(pytest.param(k, marks=pytest.mark.slow) for k in DAMAGES if k != "flipped")],
)
def test_damage_is_noticed_named_and_kept(checkpoints, kind):
    harm, message = DAMAGES[kind]
    for step in (1, 2, 3):
        checkpoints.save(make_state(seed=step).replace(step=jnp.int32(step)))
    checkpoints.wait()
    harm(checkpoints.directory / "3")
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict())
    with pytest.raises(ValueError, match=rf"(?s)no step .* as it was written:.*step 3: {message}"):
        again.restore(make_state(), step=3)
    with pytest.warns(UserWarning, match=rf"(?s)damaged steps.*step 3: {message}"):
        restored = again.restore(make_state())
    assert_same(restored, make_state(seed=2).replace(step=jnp.int32(2)))
    assert again.steps == (1, 2, 3)  # reading changes nothing
    again.save(restored.replace(step=jnp.int32(3)))
    assert again.steps == (1, 2, 3)
    assert int(again.restore(make_state()).step) == 3
    assert (again.directory / "damaged" / "3").is_dir()


def test_nothing_intact_is_an_error_that_names_all(checkpoints):
    for step in (1, 2):
        checkpoints.save(make_state().replace(step=jnp.int32(step)))
    checkpoints.wait()
    for step in (1, 2):
        truncate(checkpoints.directory / str(step))
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict())
    with pytest.raises(ValueError, match=r"(?s)step 2: .*step 1: "):
        again.restore(make_state())


@pytest.mark.slow
def test_damage_to_an_old_step_does_not_stop_a_run(checkpoints):
    for step in (1, 2):
        checkpoints.save(make_state().replace(step=jnp.int32(step)), {"eval/loss": float(step)})
    checkpoints.wait()
    for file in (checkpoints.directory / "1" / "metadata").iterdir():
        file.write_text("{")
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict(), best="eval/loss")
    again.save(again.restore(make_state()).replace(step=jnp.int32(3)), {"eval/loss": 3.0})
    assert again.best_step == 2


@pytest.mark.slow
@pytest.mark.usefixtures("four_devices")
def test_restores_on_any_number_of_devices(tmp_path):
    all_devices = mm.make_mesh()
    model = mm.MMVAE(CONFIG, rngs=nnx.Rngs(0))

    def on(mesh, fsdp=False):
        return mm.create_train_state(model, ADAM, key=jax.random.key(0), mesh=mesh, fsdp=fsdp)

    state = on(all_devices, fsdp=True)
    kernel = max(jax.tree.leaves(state.params), key=jnp.size)
    assert not kernel.sharding.is_fully_replicated  # [512, 512]
    checkpoints = Checkpoints(tmp_path / "run", config={})
    checkpoints.save(state)
    square = mm.make_mesh(2, 2)
    for other in (on(None), on(square), on(square, fsdp=True)):
        restored = checkpoints.restore(other)
        expected, given = jax.tree.leaves(other.params), jax.tree.leaves(restored.params)
        assert all(a.sharding == b.sharding for a, b in zip(given, expected, strict=True))
        for a, b in zip(given, jax.tree.leaves(state.params), strict=True):
            np.testing.assert_array_equal(a, b)


def test_metadata_of_version_0_1_0(checkpoints):
    """Its folder had another name, and the best step may be one of that time."""
    for step, loss in ((1, 1.0), (2, 2.0)):
        checkpoints.save(make_state().replace(step=jnp.int32(step)), {"loss": loss}, {"data": step})
    checkpoints.wait()
    folder = checkpoints.directory / "1"
    (folder / "metadata").rename(folder / "told")
    write_manifest(folder)
    again = Checkpoints(checkpoints.directory, config=CONFIG.to_dict(), best="loss", keep=1)
    assert (again.metrics(1), again.extra(1)) == ({"loss": 1.0}, {"data": 1})
    again.save(again.restore(make_state()).replace(step=jnp.int32(3)), {"loss": 3.0})
    assert (again.steps, again.best_step) == ((1, 3), 1)
