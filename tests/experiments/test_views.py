"""The comparison of predictions from one view and from all others, in small."""

import json

import numpy as np
import pytest

from experiments.views import COLUMNS, ViewsConfig, cut, factor_table, load, main, r2


def test_views_are_standardised_and_share_factors():
    train, test = load("factors", seed=0)
    assert {x.shape for x in train.values()} == {(2000, 8)}
    assert {x.shape for x in test.values()} == {(500, 8)}
    for x in train.values():
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(0), 1, atol=1e-5)


def test_cut_takes_every_sixth_column():
    x = np.arange(20).reshape(2, 10)
    views = cut(x)
    assert [view.shape[1] for view in views.values()] == [2, 2, 2, 2, 1, 1]
    np.testing.assert_array_equal(views["v1"], x[:, [1, 7]])


def test_columns_of_a_view_show_its_four_factors():
    """Columns of two views correlate where these share factors, and else do not."""
    x = factor_table(np.random.default_rng(0), 20_000)
    views = cut((x - x.mean(0)) / x.std(0))
    correlation = np.abs(views["v0"].T @ views["v3"]) / 20_000  # factors 0 to 3, and 4 to 7
    assert correlation.max() < 4 / np.sqrt(20_000)
    assert np.abs(views["v0"].T @ views["v1"]).max() / 20_000 > 0.1


def test_r2_of_the_mean_is_zero():
    truth = np.random.default_rng(0).normal(size=(10, 3))
    assert r2(truth, truth) == 1
    assert abs(r2(np.broadcast_to(truth.mean(0), (10, 3)), truth)) < 1e-12


@pytest.mark.slow
def test_a_small_run(tmp_path, capsys):
    config = ViewsConfig(table="wine", num_steps=2, num_particles=10, K=2, out=tmp_path / "run")
    results = main(config)
    assert json.loads((tmp_path / "run" / "views.json").read_text())["r2"] == results["r2"]
    assert all(np.isfinite([row[name] for name in COLUMNS]).all() for row in results["r2"].values())
    assert "importance" in capsys.readouterr().out
    with pytest.raises(ValueError, match="not empty"):
        main(config)


@pytest.mark.parametrize(("field", "value"), [("num_particles", 0), ("scale", 0.0)])
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        ViewsConfig(**{field: value})
