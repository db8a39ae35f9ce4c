"""The exactness experiment: what it writes, what it measures, and what it refuses."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro

import mmvae_jax as mm
from experiments import exactness
from experiments.exactness import Config

TINY_ARGS = (
    "--every 16 --modalities 2 --hidden 8 --latent-dim 2 --K 3 --batch-size 16 --num-steps 40 "
    "--learning-rate 1e-2"
)
COLUMNS = ["step", "loss_sparse", "loss_dense", "relative_error", "backward_share", "dropped_mass"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Config:
    out = tmp_path_factory.mktemp("exactness") / "new" / "run"
    return tyro.cli(Config, args=[*TINY_ARGS.split(), "--out", str(out)])


@pytest.fixture(scope="module")
def results(tiny):
    return exactness.main(tiny)


@pytest.fixture(scope="module")
def history(tiny, results) -> dict[str, list[str]]:
    with (tiny.out / "history.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def numbers(column: list[str]) -> np.ndarray:
    return np.array([value for value in column if value], float)


@pytest.mark.slow
def test_history_has_a_row_per_step_and_an_error_per_comparison(history):
    assert list(history) == COLUMNS
    assert history["step"] == [str(step) for step in range(1, 41)]
    is_compared = [value != "" for value in history["relative_error"]]
    assert is_compared == [step in (1, 16, 32) for step in range(1, 41)]
    for name in set(COLUMNS) - {"relative_error"}:
        assert len(numbers(history[name])) == 40
    assert all(np.isfinite(numbers(column)).all() for column in history.values())


@pytest.mark.slow
def test_both_runs_start_alike_and_stay_close(history):
    losses = [numbers(history[f"loss_{kind}"]) for kind in ("sparse", "dense")]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-6)  # order of summation
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert (losses[0] != losses[1]).any()  # rounding alone sees to that in different programs
    for loss in losses:
        assert loss[-10:].mean() < loss[:10].mean() - 100  # both learn


@pytest.mark.slow
def test_sparse_gradient_is_close_to_the_dense_one(history):
    error = numbers(history["relative_error"])
    share, dropped = numbers(history["backward_share"]), numbers(history["dropped_mass"])
    # Particles were left out, and what that costs is of the order of their weight.
    assert (share < 1).all()
    assert ((dropped > 0) & (dropped <= 1e-4)).all()
    assert ((error > 0) & (error < 1e-2)).all()


def test_nothing_is_lost_without_tolerance(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(mm, "train_step", stay_with(0.0))  # the gradients of step 1 are enough
    config = dataclasses.replace(tiny, tolerance=0.0, num_steps=1, out=tmp_path / "run")
    error = exactness.main(config)["relative_error"]
    assert error["num_compared"] == 1
    assert error["largest"] < 1e-5  # rounding: another order of summation


def stay_with(value: float):
    """In place of a training step: the state as it is, and one value of every metric."""
    metrics = dict.fromkeys(("loss", "backward_share", "dropped_mass"), value)
    return lambda state, batch, backward: (state, metrics)


def test_relative_error_is_of_all_parameters_and_the_same_particles(tiny, monkeypatch):
    def fake(model, batch, key, *, backward):
        a, b = jax.random.split(key)
        dense = {"a": jax.random.normal(a, (3,)), "b": 5 * jax.random.normal(b, (2, 2))}
        return {}, {name: x + (backward.kind == "sparse") for name, x in dense.items()}

    monkeypatch.setattr(mm, "value_and_grad", fake)
    init_key, key = jax.random.split(jax.random.key(3))
    state = tiny.base().init_state(init_key, key, tiny.num_steps).replace(step=jnp.asarray(7))
    batch = mm.Batch(data={})
    error = exactness.relative_error(state, batch, mm.Backward("sparse"))

    dense = fake(None, batch, jax.random.fold_in(state.key, 7), backward=mm.Backward("dense"))[1]
    squares = sum(float((x**2).sum()) for x in dense.values())
    np.testing.assert_allclose(error, np.sqrt(7 / squares), rtol=1e-5)


@pytest.mark.slow
def test_summary_is_of_the_history(tiny, results, history):
    assert json.loads((tiny.out / "exactness.json").read_text()) == json.loads(json.dumps(results))
    error = numbers(history["relative_error"])
    assert results["relative_error"]["largest"] == pytest.approx(error.max())
    assert results["relative_error"]["median"] == pytest.approx(np.median(error))
    for kind in ("sparse", "dense"):
        mean = numbers(history[f"loss_{kind}"]).mean()  # fewer steps than the window
        assert results["final_loss"][kind] == pytest.approx(mean)
    assert results["versions"]["jax"] == jax.__version__
    assert results["config"]["tolerance"] == tiny.tolerance
    assert (tiny.out / "exactness.png").read_bytes().startswith(b"\x89PNG")


def test_folders_with_anything_in_them_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(exactness, "run", lambda config: pytest.fail("was started"))
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for out in (tmp_path, notes):
        with pytest.raises(ValueError, match=r"out is .*, which is not an empty folder.*--out"):
            exactness.main(dataclasses.replace(tiny, out=out))
    monkeypatch.setattr("sys.argv", ["exactness", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^error: out is .* not an empty folder"):
        exactness.command_line()


@pytest.mark.parametrize(
    ("field", "value"), [("every", 0), ("tolerance", 1.0), ("K", 0), ("num_steps", 0)]
)
def test_wrong_values_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}: give"):
        Config(**{field: value})


def test_divergence_stops_the_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(mm, "train_step", stay_with(np.nan))
    monkeypatch.setattr(exactness, "relative_error", lambda *_: 0.0)
    config = dataclasses.replace(tiny, out=tmp_path / "run")
    with pytest.raises(FloatingPointError, match="loss_sparse is nan at step 1: lower learning"):
        exactness.main(config)
    assert not list(config.out.iterdir())
