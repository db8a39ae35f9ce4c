"""The comparison of initialisations, in small."""

import json

import chex
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments.initialisation import (
    EXPERIMENTS,
    Budget,
    InitialisationConfig,
    initial_model,
    main,
    table,
    train,
)
from mmvae_jax.data import num_examples
from mmvae_jax.training.loop import FitResult


def kernel_times_root_of_fan_in(layer):
    return np.asarray(layer.kernel[...]) * np.sqrt(layer.kernel.shape[0])


def test_rules_are_those_of_the_frameworks():
    experiment = EXPERIMENTS["quadrants"]
    pytorch = initial_model(experiment, "pytorch", 0).decoders["first_first"]
    assert 0.99 < np.abs(kernel_times_root_of_fan_in(pytorch.out)).max() <= 1
    assert 0.9 < np.abs(pytorch.out.bias[...]).max() * np.sqrt(512) <= 1
    hidden = initial_model(experiment, "pytorch", 0).encoders["first_first"].hidden[0]
    assert 0.9 < np.abs(hidden.bias[...]).max() * np.sqrt(16) <= 1
    small = initial_model(experiment, "small_output_biases", 0)
    deviation = kernel_times_root_of_fan_in(small.decoders["first_first"].out).std()
    np.testing.assert_allclose(deviation, 0.1, rtol=0.05)
    hidden = small.encoders["first_first"].hidden[0]
    assert 1.8 < np.abs(hidden.bias[...]).max() * np.sqrt(16) <= 2
    assert not small.encoders["first_first"].loc.bias[...].any()
    flax = initial_model(experiment, "flax", 0).decoders["first_first"]
    np.testing.assert_allclose(kernel_times_root_of_fan_in(flax.out).std(), 1, rtol=0.05)
    assert not flax.out.bias[...].any()


def test_the_rule_of_the_package_leaves_its_networks():
    model = initial_model(EXPERIMENTS["quadrants"], "mmvae_jax", 3)
    encoders, decoders = EXPERIMENTS["quadrants"].make_networks(nnx.Rngs(3))
    for ours, made in ((model.encoders, encoders), (model.decoders, decoders)):
        chex.assert_trees_all_equal(nnx.state(ours), nnx.state(nnx.Dict(made)))


def test_tables_are_standardised_by_their_training_rows():
    """Every fifth row is a test example, and only that."""
    found = EXPERIMENTS["quadrants"].load()
    assert num_examples(found.train) + num_examples(found.test) == 1797
    assert num_examples(found.test) == 360
    for name, x in found.train.data.items():
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        spread = x.std(0)
        np.testing.assert_allclose(spread[spread > 0.99], 1, rtol=1e-4)
        assert abs(found.test.data[name].mean(0)).max() > 0.02


def test_spread_over_seeds():
    rows = [{"data": "d", "rule": "flax", "end": end} for end in (-10.0, -14.0)]
    assert table(rows, "end").splitlines()[-1].split() == ["flax", "-12.0", "±", "2.8"]


def test_the_tight_bound_is_measured(monkeypatch):
    """Of twenty particles, whatever bound the run maximises."""
    measured = []

    def evaluate(state, data, batch_size):
        measured.append(state.model().config)
        return {"loss": 3.0}

    monkeypatch.setattr(mm, "evaluate", evaluate)
    monkeypatch.setattr(mm, "fit", lambda state, *_, **__: FitResult(state, {}, None, False))
    budget = Budget.of("quadrants", InitialisationConfig(num_steps=4))
    bounds = train(initial_model(budget.experiment, "flax", 0), budget, 0)
    assert bounds == {"quarter": -3.0, "end": -3.0}
    assert {(config.loss, config.K) for config in measured} == {("iwae", 20)}


@pytest.mark.slow
def test_rows_are_kept_and_completed(tmp_path, capsys):
    settings = {"data": ("quadrants",), "seeds": (0,), "num_steps": 4, "out": tmp_path}
    (first,) = main(InitialisationConfig(rules=("flax",), **settings))
    rows = main(InitialisationConfig(rules=("flax", "pytorch"), **settings))
    assert rows[0] == first
    assert [row["rule"] for row in rows] == ["flax", "pytorch"]
    assert rows == list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert all(row["quarter"] < row["end"] < 0 for row in rows)
    assert "quadrants" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"rules": ("keras",)}, r"rules has \['keras'\]"), ({"data": ("x",)}, r"data has \['x'\]")],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        InitialisationConfig(**settings)
