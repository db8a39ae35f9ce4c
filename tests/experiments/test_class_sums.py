"""Sums of the estimated probabilities of all classes."""

import numpy as np
import pytest

from experiments.class_sums import NUM_CLASSES, ClassSumsConfig, load, main, measure, train


def test_halves_have_their_class():
    data = load()
    assert {name: x.shape for name, x in data.items()} == {
        "top": (1797, 32),
        "bottom": (1797, 32),
        "digit": (1797, NUM_CLASSES),
    }
    assert abs(np.concatenate([data["top"], data["bottom"]]).std() - 1) < 1e-5


@pytest.mark.slow
def test_sums_of_an_untrained_model_are_one():
    config = ClassSumsConfig(K=200, num_keys=5)
    found = measure(train(1), 0.1, config)
    assert abs(found["sum"] - 1) < 4 * found["standard_error"] + 1e-3
    assert found["standard_error"] < 0.05
    assert found["spread"] == pytest.approx(found["standard_error"] * np.sqrt(5))
    assert 20 < found["ess"] <= 200


@pytest.mark.slow
def test_rows_are_kept(tmp_path, capsys):
    config = ClassSumsConfig(shares=(0.0, 0.1), K=30, num_keys=3, num_steps=2, out=tmp_path)
    rows = main(config)
    assert [row["share"] for row in rows] == [0.0, 0.1]
    assert main(config) == rows
    assert "standard error" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value"), [("shares", (1.5,)), ("K", 0), ("num_keys", 0), ("num_steps", -1)]
)
def test_wrong_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"{field} is "):
        ClassSumsConfig(**{field: value})
