"""The comparison of initialisations, in small."""

import json

import numpy as np
import pytest

from experiments.initialisation import EXPERIMENTS, InitialisationConfig, initial_model, main


def kernel_times_root_of_fan_in(layer):
    return np.asarray(layer.kernel[...]) * np.sqrt(layer.kernel.shape[0])


def test_rules_are_those_of_the_frameworks():
    experiment = EXPERIMENTS["quadrants"]
    pytorch = initial_model(experiment, "pytorch", 0).decoders["first_first"]
    assert 0.99 < np.abs(kernel_times_root_of_fan_in(pytorch.out)).max() <= 1
    assert 0.9 < np.abs(pytorch.out.bias[...]).max() * np.sqrt(512) <= 1
    flax = initial_model(experiment, "flax", 0).decoders["first_first"]
    np.testing.assert_allclose(kernel_times_root_of_fan_in(flax.out).std(), 1, rtol=0.05)
    assert not flax.out.bias[...].any()


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
