"""The comparison of sparse and dense gradients: its files, its numbers, and its errors."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.small_model import make_data, make_model

import mmvae_jax as mm
from experiments import exactness
from experiments.exactness import COLUMNS, ExactnessConfig

TINY = ExactnessConfig(every=16, modalities=2, K=3, num_steps=40)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("exactness") / "new" / "run"
    return exactness.main(dataclasses.replace(TINY, out=out))


@pytest.fixture(scope="module")
def history(results) -> dict[str, np.ndarray]:
    with open(f"{results['config']['out']}/history.csv", newline="") as file:
        names, *rows = csv.reader(file)
    return dict(zip(names, np.array(rows, float).T, strict=True))


@pytest.mark.slow
def test_history_has_a_row_per_step_and_an_error_per_comparison(history):
    assert tuple(history) == COLUMNS
    np.testing.assert_array_equal(history["step"], np.arange(1, 41))
    is_compared = np.isfinite(history["relative_error"])
    np.testing.assert_array_equal(np.flatnonzero(is_compared) + 1, [1, 16, 32])
    for name in set(COLUMNS) - {"relative_error"}:
        assert np.isfinite(history[name]).all()


@pytest.mark.slow
def test_both_copies_start_alike_and_learn(history):
    losses = history["loss_sparse"], history["loss_dense"]
    np.testing.assert_allclose(losses[0][0], losses[1][0], rtol=1e-6)  # order of summation
    # Rounding differs between the two programs, and training amplifies the difference without
    # bound: later losses are not compared.
    assert (losses[0] != losses[1]).any()
    for loss in losses:
        assert loss[-10:].mean() < loss[0] - 1000


@pytest.mark.slow
def test_copies_see_the_same_batches_and_particles():
    """Parameters that hardly move amplify no rounding, and losses depend on the examples only."""
    config = dataclasses.replace(TINY, num_steps=6, learning_rate=1e-6)
    found = exactness.train(config)
    np.testing.assert_allclose(found["loss_sparse"], found["loss_dense"], rtol=1e-5)
    assert np.ptp(found["loss_dense"]) > 0.01 * found["loss_dense"][0]  # examples differ by more


@pytest.mark.slow
def test_the_error_of_the_sparse_gradient_has_the_order_of_the_dropped_weight(history):
    error = history["relative_error"][np.isfinite(history["relative_error"])]
    assert (history["backward_share"] < 1).all()
    assert ((history["dropped_mass"] >= 0) & (history["dropped_mass"] <= 1e-4)).all()
    assert history["dropped_mass"].max() > 1e-9  # single steps may drop hardly anything
    assert ((error > 0) & (error < 1e-2)).all()


@pytest.mark.slow
def test_the_summary_is_computed_from_the_history(results, history):
    file = f"{results['config']['out']}/exactness.json"
    with open(file) as stream:
        assert json.load(stream) == json.loads(json.dumps(results))
    error = history["relative_error"][np.isfinite(history["relative_error"])]
    assert results["largest_relative_error"] == pytest.approx(error.max())
    assert results["median_relative_error"] == pytest.approx(np.median(error))
    assert results["num_compared"] == len(error)
    for kind in ("sparse", "dense"):
        mean = history[f"loss_{kind}"].mean()  # the window is longer than the run
        assert results[f"final_loss_{kind}"] == pytest.approx(mean)
    assert results["versions"]["jax"] == jax.__version__


def small_state(**fields) -> mm.TrainState:
    model = make_model(**fields)
    return mm.create_train_state(model, optax.sgd(0.1), key=jax.random.key(3))


@pytest.mark.slow
def test_without_tolerance_only_rounding_differs():
    backward = mm.Backward("sparse", tolerance=0.0)
    error = exactness.relative_error(small_state(), mm.Batch(make_data()), backward)
    assert error < 1e-5  # another order of summation


def test_the_relative_error_is_over_all_parameters_for_the_same_particles(monkeypatch):
    def fake(model, batch, key, *, backward):
        a, b = jax.random.split(key)
        dense = {"a": jax.random.normal(a, (3,)), "b": 5 * jax.random.normal(b, (2, 2))}
        return {}, {name: x + (backward.kind == "sparse") for name, x in dense.items()}

    monkeypatch.setattr(mm, "value_and_grad", fake)
    state = small_state().replace(step=jnp.asarray(7))
    batch = mm.Batch(data={})
    error = exactness.relative_error(state, batch, mm.Backward("sparse"))

    dense = fake(None, batch, jax.random.fold_in(state.key, 7), backward=mm.Backward("dense"))[1]
    squares = sum(float((x**2).sum()) for x in dense.values())
    np.testing.assert_allclose(error, np.sqrt(7 / squares), rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("every", 0), ("tolerance", 1.0), ("K", 0), ("num_steps", 0)]
)
def test_wrong_values_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value!r}"):
        ExactnessConfig(**{field: value})


@pytest.mark.slow
def test_divergence_stops_the_run(tmp_path, monkeypatch):
    metrics = dict.fromkeys(("loss", "backward_share", "dropped_mass"), np.nan)
    monkeypatch.setattr(mm, "train_step", lambda state, batch, backward: (state, metrics))
    monkeypatch.setattr(exactness, "relative_error", lambda *_: 0.0)
    config = dataclasses.replace(TINY, out=tmp_path / "run")
    with pytest.raises(FloatingPointError, match="step is 1, loss_sparse is nan"):
        exactness.main(config)
    assert not config.out.exists()
