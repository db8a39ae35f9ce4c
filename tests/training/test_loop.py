"""mm.fit: what it computes, when it looks, evaluates, saves and stops."""

import signal

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from helpers.small_model import DIMS, make_model

import mmvae_jax as mm
from mmvae_jax.data import batches, take
from mmvae_jax.maths.means import Mean
from mmvae_jax.objective import metric_names
from mmvae_jax.training import evaluation
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.run_settings import read_settings

STEPS = 12
QUIET = {"progress": False, "batch_size": 8, "num_steps": STEPS, "log_every": 1}


def make_dataset(size: int, seed: int = 0) -> mm.MultimodalArrays:
    rng = np.random.default_rng(seed)
    data = {
        "a": rng.normal(size=(size, *DIMS["a"])).astype(np.float32),
        "b": rng.integers(0, 256, (size, *DIMS["b"]), np.uint8),
        "c": rng.integers(0, 5, (size, 3)),
    }
    return mm.MultimodalArrays(data, mask={name: rng.random(size) < 0.8 for name in data})


TRAIN, TEST = make_dataset(40), make_dataset(20, seed=1)
STILL = optax.sgd(0.0)
ADAM = mm.make_optimizer(optax.linear_schedule(1e-2, 0.0, STEPS), clip_norm=1.0)


def make_state(tx=ADAM, K=4, **options):
    return mm.create_train_state(make_model(K=K), tx, key=jax.random.key(3), **options)


class Log(list):
    """A callback that keeps what it is told."""

    def __call__(self, step, metrics, state):
        self.append((step, dict(metrics)))
        assert int(state.step) == step


def test_fit_is_train_step_in_a_loop():
    state, log = make_state(), Log()
    expected = []
    for arrays in batches(TRAIN, 8, seed=5, num_steps=STEPS):
        state, metrics = mm.train_step(state, mm.Batch(data=arrays.data, mask=arrays.mask))
        expected.append({name: float(value) for name, value in metrics.items()})
    result = mm.fit(make_state(), TRAIN, seed=5, callbacks=[log], **QUIET)
    chex.assert_trees_all_equal(result.state.params, state.params)
    assert log == list(enumerate(expected, 1))
    assert (result.metrics, result.best_step, result.stopped_early) == ({}, None, False)


def test_the_current_rate_is_reported():
    log = Log()
    mm.fit(make_state(), TRAIN, callbacks=[log], **QUIET)
    rates = [metrics["learning_rate"] for _, metrics in log]
    np.testing.assert_allclose(rates, 1e-2 * (1 - np.arange(STEPS) / STEPS), rtol=1e-5)


@pytest.mark.slow
def test_clipping_clips():
    """One step of clipped SGD moves the parameters by rate times norm."""
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.1))
    log, start = Log(), make_state(tx)
    before = jax.tree.map(jnp.copy, start.params)
    result = mm.fit(start, TRAIN, callbacks=[log], **QUIET | {"num_steps": 1})
    assert log[0][1]["grad_norm"] > 0.5
    moved = optax.tree.norm(optax.tree.sub(result.state.params, before))
    np.testing.assert_allclose(moved, 0.05, rtol=1e-4)


@pytest.mark.slow
def test_several_steps_in_a_call_are_the_same_steps():
    one, many = Log(), Log()
    mm.fit(make_state(), TRAIN, callbacks=[one], **QUIET)
    options = QUIET | {"log_every": 5, "num_steps": STEPS}
    result = mm.fit(make_state(), TRAIN, callbacks=[many], steps_per_call=5, **options)
    assert [step for step, _ in many] == [5, 10, 12]
    for step, metrics in many:
        chex.assert_trees_all_close(metrics, one[step - 1][1], rtol=1e-4, atol=1e-6)
    assert int(result.state.step) == STEPS


@pytest.mark.slow
def test_epochs_are_counted_in_whole_batches():
    result = mm.fit(make_state(), TRAIN, num_epochs=2, batch_size=16, progress=False)
    assert int(result.state.step) == 2 * (40 // 16)


@pytest.mark.slow
@pytest.mark.usefixtures("four_devices")
def test_evaluation_is_a_mean_over_examples():
    """Of incomplete data, on one device and on a mesh."""
    state = make_state()
    whole = mm.evaluate(state, TEST, batch_size=20)
    batch = mm.Batch(data=TEST.data, mask=TEST.mask)
    key = jax.random.fold_in(jax.random.fold_in(state.key, np.uint32(2**32 - 1)), 0)
    expected = jax.device_get(mm.eval_step(state, batch, key))
    chex.assert_trees_all_close(whole, expected, rtol=1e-5)
    on_mesh = mm.evaluate(make_state(mesh=mm.make_mesh(2, 2)), TEST, batch_size=20)
    chex.assert_trees_all_close(on_mesh, whole, rtol=1e-4)


@pytest.mark.parametrize("batch_size", [3, 5, 64])
def test_evaluation_weighs_examples_alike(monkeypatch, batch_size):
    """Batches of any size give the mean over what is observed."""

    def eval_means(state, batch, key):
        values, mask = batch.data["a"][:, 0], batch.mask["a"]
        assert len(values) == batch_size
        return {"a": Mean(jnp.where(mask, values, 0).sum(), mask.sum().astype(float))}

    monkeypatch.setattr(evaluation, "eval_means", eval_means)
    dataset = mm.MultimodalArrays({"a": np.arange(10, dtype=np.float32)[:, None] ** 2})
    state = make_state()
    found = mm.evaluate(state, dataset, batch_size=batch_size)
    assert found == {"a": pytest.approx(28.5)}  # the mean of 0, 1, 4, ..., 81
    odd = dataset._replace(mask={"a": np.arange(10) % 2 == 1})
    assert mm.evaluate(state, odd, batch_size=batch_size) == {"a": pytest.approx(33)}


def test_nothing_observed_counts_for_nothing():
    nothing = TEST._replace(mask={name: np.zeros(20, bool) for name in DIMS})
    assert set(mm.evaluate(make_state(), nothing).values()) == {0.0}


@pytest.mark.slow
def test_best_and_newest_are_kept_and_loaded(tmp_path):
    log = Log()
    result = mm.fit(
        make_state(),
        TRAIN,
        eval_data=TEST,
        eval_every=2,
        checkpoint_dir=tmp_path / "run",
        save_every=3,
        keep=1,
        callbacks=[log],
        **QUIET,
    )
    losses = {step: m["eval/loss"] for step, m in log if "eval/loss" in m}
    assert list(losses) == [2, 4, 6, 8, 10, 12]
    assert result.best_step == min(losses, key=losses.__getitem__)
    assert result.metrics["eval/loss"] == losses[12]
    checkpoints = Checkpoints(
        tmp_path / "run", config=read_settings(tmp_path / "run"), best="eval/loss"
    )
    assert checkpoints.steps == tuple(sorted({result.best_step, 12}))
    networks = {"encoders": dict(make_model().encoders), "decoders": dict(make_model().decoders)}
    model, config = mm.load(tmp_path / "run", **networks)
    assert config == make_model(K=4).config
    assert_same_model(model, result.state.model())
    best, _ = mm.load(tmp_path / "run", step="best", **networks)
    if result.best_step == 12:
        assert_same_model(best, model)
    with pytest.raises(ValueError, match="state does not have the arrays"):
        mm.load(tmp_path / "run")


def assert_same_model(model, expected):
    chex.assert_trees_all_equal(*(nnx.to_pure_dict(nnx.state(m)) for m in (model, expected)))


@pytest.mark.slow
def test_patience_ends_a_run_and_a_resumed_one(tmp_path):
    """With a rate of zero nothing improves."""
    options = {
        **QUIET,
        "eval_data": TEST,
        "eval_every": 1,
        "patience": 3,
        "checkpoint_dir": tmp_path / "run",
    }
    for resume in (False, True):
        result = mm.fit(make_state(STILL), TRAIN, resume=resume, **options)
        assert result.stopped_early
        assert (int(result.state.step), result.best_step) == (4, 1)
    with pytest.raises(ValueError, match=r"best is 'eval/kl', but the run has .* by 'eval/loss'"):
        mm.fit(make_state(STILL), TRAIN, resume=True, best="eval/kl", **options)


@pytest.mark.slow
def test_a_grain_pipeline_of_batches_goes_on_where_it_was(tmp_path):
    def pipeline():
        rows = grain.MapDataset.range(40).shuffle(seed=2).repeat().batch(8)
        return rows.map(lambda index: take(TRAIN, index)).to_iter_dataset()

    options = QUIET | {"checkpoint_dir": tmp_path / "run", "save_every": 4}
    whole, first, rest = Log(), Log(), Log()
    expected = mm.fit(make_state(), pipeline(), callbacks=[whole], **QUIET)
    mm.fit(make_state(), pipeline(), callbacks=[first], **options | {"num_steps": 8})
    result = mm.fit(make_state(), pipeline(), callbacks=[rest], resume=True, **options)
    assert first + rest == whole
    chex.assert_trees_all_equal(result.state.params, expected.state.params)


@pytest.fixture
def interruptible():
    """Python's own handler of Ctrl-C, which workers of pytest lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGINT, id="Ctrl-C", marks=pytest.mark.slow),
    ],
)
def test_signals_save_before_they_end_a_run(tmp_path, number, interruptible):
    options = QUIET | {"checkpoint_dir": tmp_path / "run"}

    def stop(step, metrics, state):
        if step == 5:
            signal.raise_signal(number)

    handlers = {some: signal.getsignal(some) for some in (signal.SIGTERM, signal.SIGINT)}
    expected = mm.Preempted if number == signal.SIGTERM else KeyboardInterrupt
    word = "preempted by SIGTERM" if number == signal.SIGTERM else "interrupted"
    with pytest.raises(expected, match=f"^{word} at step 5, saved in") as end:
        mm.fit(make_state(), TRAIN, callbacks=[stop], **options)
    if number == signal.SIGTERM:
        assert (end.value.code, end.value.step) == (75, 5)
    assert {some: signal.getsignal(some) for some in handlers} == handlers
    expected = mm.fit(make_state(), TRAIN, **QUIET)
    result = mm.fit(make_state(), TRAIN, resume=True, **options)
    chex.assert_trees_all_equal(result.state.params, expected.state.params)
    chex.assert_trees_all_equal(result.state.opt_state, expected.state.opt_state)


def test_a_second_interrupt_ends_a_run_at_once(tmp_path, interruptible):
    def stop(step, metrics, state):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    options = QUIET | {"checkpoint_dir": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt) as end:
        mm.fit(make_state(), TRAIN, callbacks=[stop], **options)
    assert not str(end.value)


@pytest.mark.slow
def test_a_run_goes_on_from_the_step_before_a_damaged_one(tmp_path):
    expected = mm.fit(make_state(), TRAIN, **QUIET)
    options = QUIET | {"checkpoint_dir": tmp_path / "run", "save_every": 4}
    mm.fit(make_state(), TRAIN, **options | {"num_steps": 8})
    (tmp_path / "run" / "8" / "manifest.json").unlink()
    with pytest.warns(UserWarning, match=r"  step 8: manifest.json is missing"):
        result = mm.fit(make_state(), TRAIN, resume=True, **options)
    chex.assert_trees_all_equal(result.state.params, expected.state.params)
    assert (tmp_path / "run" / "damaged" / "8").is_dir()


def spoilt(rows=slice(16, 24)) -> mm.MultimodalArrays:
    """Data so large that their density is 0 in some batch of the first epoch."""
    data = {name: x.copy() for name, x in TRAIN.data.items()}
    data["a"][rows] = 1e30
    return TRAIN._replace(data=data, mask=None)


def test_an_infinite_loss_stops_the_run_and_names_the_step(tmp_path):
    log = Log()
    options = QUIET | {"log_every": 4, "checkpoint_dir": tmp_path / "run", "save_every": 1}
    with pytest.raises(
        mm.NonFiniteError, match=r"loss is (nan|inf) at step \d+; the last good"
    ) as error:
        mm.fit(make_state(), spoilt(slice(3, 4)), callbacks=[log], **options)
    step = error.value.step
    assert (error.value.metric, 1 <= step <= 5) == ("loss", True)
    checkpoints = Checkpoints(tmp_path / "run", config=read_settings(tmp_path / "run"))
    assert checkpoints.steps[-1] == step - 1
    assert f"is step {step - 1} in" in str(error.value)


@pytest.mark.slow
def test_updates_that_are_not_finite_can_be_left_out():
    log = Log()
    tx = mm.make_optimizer(1e-3, max_skips=3)
    result = mm.fit(make_state(tx), spoilt(slice(3, 4)), callbacks=[log], **QUIET)
    skipped = [metrics["skipped_updates"] for _, metrics in log]
    assert skipped[0] in (0, 1)
    assert skipped[-1] == sum(not np.isfinite(metrics["loss"]) for _, metrics in log) >= 2
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(result.state.params))


@pytest.mark.slow
def test_too_many_skips_stop_the_run():
    tx = mm.make_optimizer(1e-3, max_skips=2)
    with pytest.raises(mm.NonFiniteError, match="at step"):
        mm.fit(make_state(tx), spoilt(slice(None)), **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_epochs": 2}, "num_steps is 12 and num_epochs 2: give one of the two"),
        ({"num_steps": None}, "num_steps is None and num_epochs None: give one"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 50}, "batch_size is 50"),
        ({"steps_per_call": 5}, "log_every is 1, which ends inside a call of steps_per_call=5"),
        ({"eval_every": 2}, "eval_every is 2, but eval_data is None: give eval_data"),
        ({"patience": 2}, "patience is 2, but eval_data is None"),
        ({"patience": 0, "eval_data": TEST}, "patience is 0"),
        ({"resume": True}, "resume is True, but checkpoint_dir is None"),
        ({"best": "loss", "eval_data": TEST}, r"best is 'loss': choose one of \['eval/loss', "),
    ],
)
def test_wrong_calls_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        mm.fit(make_state(), TRAIN, **QUIET | options)


@pytest.mark.usefixtures("four_devices")
def test_wrong_data_and_sizes_leave_no_folder(tmp_path):
    options = QUIET | {"checkpoint_dir": tmp_path / "run"}
    wrong = TRAIN._replace(data={**TRAIN.data, "a": TRAIN.data["a"][:, :3]})
    with pytest.raises(ValueError, match=r"train_data, as a batch: batch.data\['a'\] has shape"):
        mm.fit(make_state(), wrong, **options)
    with pytest.raises(ValueError, match=r"eval_data, as a batch: batch.data\['a'\] has shape"):
        mm.fit(make_state(), TRAIN, eval_data=wrong, **options)
    state = make_state(mesh=mm.make_mesh(2, 2))
    with pytest.raises(ValueError, match="batch_size is 7: give a multiple of the mesh's 2"):
        mm.fit(state, TRAIN, **options | {"batch_size": 7})
    with pytest.raises(ValueError, match="eval_batch_size is 3: give a multiple of the mesh's 2"):
        mm.fit(state, TRAIN, eval_data=TEST, eval_batch_size=3, **options)
    state = make_state(K=3, mesh=mm.make_mesh(2, 2))
    with pytest.raises(ValueError, match="K is 3"):
        mm.fit(state, TRAIN, **options)
    assert not (tmp_path / "run").exists()


def test_the_names_of_metrics_are_known_beforehand():
    found = mm.evaluate(make_state(), TEST, batch_size=20)
    assert set(metric_names(make_model().config)) == set(found)


def test_a_folder_with_checkpoints_is_not_trained_over(tmp_path):
    options = QUIET | {"checkpoint_dir": tmp_path / "run", "num_steps": 2}
    mm.fit(make_state(), TRAIN, **options)
    with pytest.raises(ValueError, match="holds step 2"):
        mm.fit(make_state(), TRAIN, **options)
    with pytest.raises(ValueError, match=r"run.seed: 0 there, 1 now"):
        mm.fit(make_state(), TRAIN, seed=1, resume=True, **options)
    result = mm.fit(make_state(), TRAIN, resume=True, **options)
    assert int(result.state.step) == 2
    with pytest.raises(ValueError, match="num_steps is 1, but the run is at step 2: give more"):
        mm.fit(make_state(), TRAIN, resume=True, **options | {"num_steps": 1})


@pytest.mark.slow
@pytest.mark.usefixtures("four_devices")
def test_on_a_mesh_fit_computes_the_same():
    one, many = Log(), Log()
    mm.fit(make_state(), TRAIN, callbacks=[one], **QUIET)
    state = make_state(mesh=mm.make_mesh(2, 2), fsdp=True)
    mm.fit(state, TRAIN, callbacks=[many], **QUIET | {"log_every": 3}, steps_per_call=3)
    assert [step for step, _ in many] == [3, 6, 9, 12]
    for step, metrics in many:
        chex.assert_trees_all_close(metrics, one[step - 1][1], rtol=2e-3, atol=1e-5)
