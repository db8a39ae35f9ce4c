"""The comparison of predictions from one view and from all others, in small."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import mmvae_jax as mm
from experiments.view_tables import NUM_VIEWS, TABLES, SplitTable, cut, factor_table, load
from experiments.views import (
    METHODS,
    ViewsConfig,
    compare,
    likelihood,
    linear,
    main,
    measure,
    predict,
    r2,
    summary,
)


@pytest.mark.parametrize("name", TABLES)
def test_normal_columns_are_standardised_and_others_left(name):
    """By the training rows, a fifth of all rows being test rows."""
    table = load(name, seed=0)
    num_train, num_test = (len(next(iter(x.values()))) for x in (table.train, table.test))
    assert num_test == (num_train + num_test) // 5
    for view, parts in table.parts.items():
        start = 0
        for kind, size in parts:
            x = table.train[view][:, start : start + size]
            start += size
            if kind == "normal":
                np.testing.assert_allclose(x.mean(0), 0, atol=1e-4)
                varies = x.std(0) > 0.1  # a pixel may be constant in the training rows
                np.testing.assert_allclose(x.std(0)[varies], 1, rtol=1e-3)
            else:
                assert set(np.unique(x)) == {0, 1}
            if kind == "categorical":
                np.testing.assert_array_equal(x.sum(1), 1)
        assert start == table.train[view].shape[1] == table.test[view].shape[1]


def test_the_split_depends_on_the_seed_only():
    first, again, other = (load("wine", seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.test["v0"], again.test["v0"])
    assert not np.array_equal(first.test["v0"], other.test["v0"])


def test_cut_takes_every_sixth_column():
    x = np.arange(20).reshape(2, 10)
    views, parts = cut(x)
    assert [view.shape[1] for view in views.values()] == [2, 2, 2, 2, 1, 1]
    assert parts["v5"] == (("normal", 1),)
    np.testing.assert_array_equal(views["v1"], x[:, [1, 7]])


def test_columns_of_a_view_show_its_four_factors():
    """Columns of two views correlate where these share factors, and else do not."""
    x = factor_table(np.random.default_rng(0), 20_000)
    views, _ = cut((x - x.mean(0)) / x.std(0))
    correlation = np.abs(views["v0"].T @ views["v3"]) / 20_000  # factors 0 to 3, and 4 to 7
    assert correlation.max() < 4 / np.sqrt(20_000)
    assert np.abs(views["v0"].T @ views["v1"]).max() / 20_000 > 0.1


def test_r2_of_the_mean_is_zero():
    truth = np.random.default_rng(0).normal(size=(10, 3))
    assert r2(truth, truth) == 1
    assert abs(r2(np.broadcast_to(truth.mean(0), (10, 3)), truth)) < 1e-12


def test_measures_of_mixed_columns():
    """Three of four binary values and two of four classes are right: 0.625."""
    truth = np.array([[1.0, 1, 1, 0], [2, 0, 1, 0], [3, 1, 0, 1], [4, 0, 0, 1]])
    logits = np.array([[1.0, 0.3, 5, 1], [2, -1, 1, 3], [3, -1, 2, 3], [4, -2, 2, 1]])
    parts = (("normal", 1), ("bernoulli", 1), ("categorical", 2))
    assert measure(parts, logits, truth) == {"r2": 1.0, "accuracy": 0.625}
    assert measure(parts[:1], logits[:, :1], truth[:, :1]) == {"r2": 1.0}


def test_linear_models_find_linear_relations():
    """Numbers, a binary column, and classes of two and of three, as functions of another view."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    score = x @ [1.0, 2.0]
    pair, third = np.eye(2)[(x[:, 0] > 0).astype(int)], np.eye(3)[np.digitize(score, (-1, 1))]
    y = np.column_stack([score, score > 0, pair, third])
    parts = {"x": (("normal", 2),), "y": tuple(zip(KINDS, (1, 1, 2, 3), strict=True))}
    table = SplitTable({"x": x[:400], "y": y[:400]}, {"x": x[400:], "y": y[400:]}, parts)
    found = measure(parts["y"], linear(table, ["x"], "y"), y[400:])
    assert found["r2"] > 0.999
    assert found["accuracy"] > 0.95


KINDS = ("normal", "bernoulli", "categorical", "categorical")


@pytest.fixture(scope="module")
def small():
    """A table of three rows and an untrained model of trained scales."""
    parts = {
        "a": (("normal", 2),),
        "b": (("bernoulli", 1), ("categorical", 2)),
        "c": (("normal", 1),),
    }
    rows = {
        "a": np.array([[1, 2], [3, 4], [5, 7]]),
        "b": np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]]),
        "c": np.array([[1], [2], [4]]),
    }
    rows = {name: x.astype(np.float32) for name, x in rows.items()}
    config = mm.MMVAEConfig(
        input_dims={name: x.shape[1:] for name, x in rows.items()},
        decoders_dist={
            n: likelihood(p, mm.Learned(0.5, per_feature=True)) for n, p in parts.items()
        },
        latent_dim=2,
    )
    return SplitTable(rows, rows, parts), mm.MMVAE(config, rngs=nnx.Rngs(0))


def test_hidden_views_change_no_prediction(small):
    """Predictions of a view from the others are those of ``cond_mod``, whatever the view holds."""
    table, model = small
    key = jax.random.key(0)
    weighting = mm.ImportanceWeighting(num_particles=20)
    found = predict(model, table, ["a", "b"], weighting, key)
    expected = mm.predict(
        model,
        mm.Batch(table.test),
        jax.random.clone(key),
        cond_mod=["a", "b"],
        return_mean=True,
        weighting=weighting,
    )
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x[:, 0], atol=1e-5)
    hidden = table._replace(test={**table.test, "c": 9 * table.test["c"]})
    again = predict(model, hidden, ["a", "b"], weighting, jax.random.clone(key))
    np.testing.assert_array_equal(again["c"], found["c"])


def test_every_view_is_compared(small):
    table, model = small
    rows = list(compare(ViewsConfig(num_particles=20), model, table, seed=0))
    assert {row["view"] for row in rows} == {"a", "b", "c"}
    assert {row["measure"] for row in rows if row["view"] == "b"} == {"accuracy"}
    assert [row["method"] for row in rows[:4]] == list(METHODS)
    assert np.isfinite([row["score"] for row in rows if row["view"] == "b"]).all()


def test_the_summary_counts_views_with_importance_ahead():
    scores = {"best single": 0.5, "mixture": 0.4, "importance": 0.6, "linear": 0.7}
    kind = {"table": "t", "scale": "fixed", "measure": "r2"}
    rows = [{**kind, "method": name, "score": x} for name, x in scores.items()]
    rows += [{**kind, "method": name, "score": 0.2} for name in scores]
    line = summary(rows).splitlines()[-1].split()
    assert line == ["t", "r2", "fixed", "0.350", "0.300", "0.400", "0.450", "0.50"]


@pytest.mark.slow
def test_rows_are_kept_and_completed(tmp_path, capsys):
    settings = {"tables": ("wine",), "num_steps": 2, "num_particles": 10, "K": 2, "out": tmp_path}
    first = main(ViewsConfig(scales=("fixed",), seeds=(0,), **settings))
    assert len(first) == NUM_VIEWS * len(METHODS)
    rows = main(ViewsConfig(seeds=(0,), **settings))
    assert rows[: len(first)] == first
    assert len(rows) == 2 * len(first)
    assert rows == list(map(json.loads, (tmp_path / "rows.jsonl").read_text().splitlines()))
    assert np.isfinite([row["score"] for row in rows]).all()
    assert "wine" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_particles", 0), ("initial_scale", 0.0), ("tables", ("iris",))],
)
def test_bad_settings(field, value):
    shown = value[0] if isinstance(value, tuple) else value
    with pytest.raises(ValueError, match=f"{field} is {shown!r}"):
        ViewsConfig(**{field: value})
