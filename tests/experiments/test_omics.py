import json
import sys

import numpy as np
import pandas as pd
import pytest

from experiments.omics.__main__ import OmicsConfig, main, text
from experiments.omics.baselines import (
    BASELINES,
    Predicted,
    linear_pairs,
    measure,
    measure_classes,
    measure_pairs,
)
from experiments.omics.data import OMICS, Split, StudyTables, brca, hide, split
from experiments.omics.multivae import run_multivae


def factor_tables(num_rows=200, noise=0.1):
    """Returns three views that are linear in three factors, and the sign of the first factor."""
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(num_rows, 3))
    views = {
        name: (5 + factors @ rng.normal(size=(3, 6)) + noise * rng.normal(size=(num_rows, 6)))
        for name in "abc"
    }
    return StudyTables(views, np.where(factors[:, 0] > 0, "high", "low"), "level")


def halves(tables, missing=0.0):
    train, test = np.split(np.arange(len(tables.classes)), 2)
    return Split(hide(tables.take(train), missing, np.random.default_rng(1)), tables.take(test))


def numbered_tables(num_rows=60):
    """Returns views whose values are the numbers of their rows."""
    x = np.arange(num_rows, dtype=np.float32)[:, None]
    return StudyTables({"a": x, "b": x}, (np.arange(num_rows) % 3).astype(str), "class")


def test_hidden_views_are_nan_throughout_and_one_view_stays():
    tables = factor_tables(4000)
    hidden = hide(tables, 0.5, np.random.default_rng(0))
    missing = np.stack([np.isnan(x).all(1) for x in hidden.views.values()])
    assert missing.any(0).any()
    assert not missing.all(0).any()
    # A row of three hidden views, probability 1/8, gets one back: 1/2 - 1/24 on average.
    error = np.sqrt(0.25 / missing.size)
    assert abs(missing.mean() - (1 / 2 - 1 / 24)) < 4 * error
    for name, x in hidden.views.items():
        seen = ~np.isnan(x)
        np.testing.assert_allclose(x[seen], tables.views[name][seen], rtol=1e-6)
        np.testing.assert_array_equal(seen.all(1), seen.any(1))


def test_folds_test_each_row_once_and_tuning_never_sees_the_held_out_rows():
    tables = numbered_tables()

    def numbers(part, fold):
        found = split(tables, part, fold, num_folds=5, missing=0, seed=0)
        return [set(found_part.views["a"][:, 0]) for found_part in found]

    tested = [numbers("folds", fold)[1] for fold in range(5)]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 60
    train, held_out = numbers("held_out", 0)
    assert not train & held_out
    for fold in range(5):
        found = split(tables, "folds", fold, num_folds=5, missing=0, seed=0)
        assert np.unique(found.test.classes, return_counts=True)[1].tolist() == [4, 4, 4]
        tune_train, tune_test = numbers("tune", fold)
        assert tune_train | tune_test == train
        assert not tune_train & tune_test


def test_each_fold_hides_other_views():
    options = {"num_folds": 5, "missing": 0.5, "seed": 0}
    first, second = (
        np.isnan(split(numbered_tables(), "folds", fold, **options).train.views["a"])
        for fold in (0, 1)
    )
    assert (first != second).any()


def test_balanced_accuracy_is_a_mean_over_classes():
    tables = StudyTables({}, np.array(["a", "a", "a", "b"]), "class")
    scores = measure_classes(np.array(["a", "a", "a", "a"]), Split(tables, tables))
    assert scores == {"accuracy": 0.75, "balanced accuracy": 0.5}


def test_error_is_in_standard_deviations_of_training_rows():
    rows = halves(factor_tables())
    views = {name: x + 2 * rows.train.views[name].std(0) for name, x in rows.test.views.items()}
    scores = measure(Predicted(rows.test.classes, views), rows)
    assert scores["accuracy"] == scores["balanced accuracy"] == 1
    np.testing.assert_allclose([scores[name] for name in "abc"], 2, rtol=1e-6)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_linear_baseline_finds_linear_views(missing):
    """The mean has an error of about 1, and ridge regression is near the noise."""
    rows = halves(factor_tables(), missing)
    error = {
        name: np.mean([measure(method(rows), rows)[view] for view in "abc"])
        for name, method in BASELINES.items()
    }
    assert 0.9 < error["mean"] < 1.1
    assert error["linear"] < (0.15 if missing == 0 else 0.6)
    assert error["linear"] < error["neighbours"] < error["mean"]
    np.testing.assert_allclose(error["low rank"], error["linear"], rtol=0.05)  # three factors
    assert measure(BASELINES["linear"](rows), rows)["accuracy"] > 0.9


@pytest.mark.parametrize("name", BASELINES)
def test_a_view_is_not_predicted_from_itself(name):
    rows = halves(factor_tables())
    altered = {**rows.test.views, "a": rows.test.views["a"] + 100}
    other = rows._replace(test=rows.test._replace(views=altered))
    found = [BASELINES[name](x).views["a"] for x in (rows, other)]
    np.testing.assert_array_equal(*found)


def test_one_view_explains_its_share_of_a_sum():
    """The sum of two independent views from one: half of the variance is left; itself is unused."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, 1))
    tables = StudyTables({"a": a, "b": b, "sum": a + b}, np.where(a > 0, "x", "y")[:, 0], "class")
    rows = halves(tables)
    errors = measure_pairs(linear_pairs(rows), rows)
    assert len(errors) == 6
    for pair in ("sum from a", "sum from b", "a from sum", "b from sum"):
        np.testing.assert_allclose(errors[pair], 0.5**0.5, atol=0.03)
    np.testing.assert_allclose(errors["a from b"], 1, atol=0.03)


def test_averaging_of_views_cannot_add_up_what_they_share():
    """The sum of two independent views: each explains half of its variance, their mean 3/4."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20_000, 1))
    tables = StudyTables({"a": a, "b": b, "sum": a + b}, np.where(a > 0, "x", "y")[:, 0], "class")
    rows = halves(tables)
    error = {name: measure(BASELINES[name](rows), rows)["sum"] for name in ("linear", "averaged")}
    assert error["linear"] < 0.02
    np.testing.assert_allclose(error["averaged"], 0.5, atol=0.03)


def test_brca_is_matched_by_patient(tmp_path):
    rng = np.random.default_rng(0)
    patients = [f"P{i}" for i in range(6)]
    frames = {
        name: pd.DataFrame(rng.normal(size=(6, 2)), index=patients).sample(frac=1, random_state=i)
        for i, name in enumerate(OMICS)
    }
    for name, frame in frames.items():
        frame.to_csv(tmp_path / f"{name}.csv")
    with pytest.raises(FileNotFoundError, match=r"data is .*no target"):
        brca(tmp_path)
    target = pd.DataFrame({"target": [0.0, 1, 2, 0, 1, 2]}, index=patients)
    target.to_csv(tmp_path / "target.csv")
    found = brca(tmp_path)
    assert list(found.classes[:3]) == ["subtype 0", "subtype 1", "subtype 2"]
    for name, frame in frames.items():
        np.testing.assert_allclose(found.views[name], frame.loc[patients], rtol=1e-6)


def test_a_second_call_computes_only_new_rows(tmp_path, capsys):
    settings = {"tables": ("tumours",), "num_folds": 2, "missing": (0.3,), "out": tmp_path}
    main(OmicsConfig(**settings, methods=("mean",)))
    first = (tmp_path / "rows.jsonl").read_text()
    assert len(first.splitlines()) == 2
    results = main(OmicsConfig(**settings, methods=("mean", "linear")))["results"]
    assert (tmp_path / "rows.jsonl").read_text().startswith(first)
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 6
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["results"] == results
    assert results[1]["mean"]["accuracy"] > 0.9 > 0.7 > results[0]["mean"]["accuracy"]
    assert results[1]["folds"] == 2
    found = [json.loads(line)["scores"]["worst"] for line in first.splitlines()]
    assert found[0] != found[1]
    assert results[0]["std"]["worst"] == pytest.approx(abs(found[0] - found[1]) / 2, abs=1e-4)
    assert "linear" in capsys.readouterr().out
    assert main(OmicsConfig(**settings, folds=(1,), methods=("mean",)))["results"][0]["folds"] == 1
    with pytest.raises(ValueError, match="seed is 1, but 0 for the rows"):
        main(OmicsConfig(**settings, methods=("mean",), seed=1))


def test_a_stopped_call_gets_the_uses_that_it_lacks(tmp_path):
    settings = {"tables": ("tumours",), "num_folds": 2, "missing": (0.3,), "out": tmp_path}
    whole = main(OmicsConfig(**settings, methods=("linear",)))
    file = tmp_path / "rows.jsonl"
    lines = file.read_text().splitlines()
    assert [json.loads(line)["use"] for line in lines] == ["", "one view"] * 2
    file.write_text(f"{lines[0]}\n")
    assert main(OmicsConfig(**settings, methods=("linear",))) == whole


def test_held_out_rows_have_no_folds():
    with pytest.raises(ValueError, match=r"folds is \(3,\)"):
        OmicsConfig(part="held_out", folds=(3,))


def test_errors_from_one_view_have_a_table_of_their_own():
    fields = {"table": "t", "part": "folds", "missing": 0.0, "method": "linear"}
    pair, views = {"a from b": 0.75}, {"a": 0.25}
    results = [
        {**fields, "use": "one view", "mean": pair, "std": pair},
        {**fields, "use": "", "mean": views, "std": views},
    ]
    blocks = [block.splitlines() for block in text(results).split("\n\n")]
    assert [block[1].split() for block in blocks] == [["method", "a"], ["method", "a", "from", "b"]]
    assert "one view given" in blocks[1][0]


def test_a_use_without_errors_of_views_has_a_row_of_the_table():
    fields = {"table": "t", "part": "folds", "missing": 0.0, "method": "mmvae"}
    some, more = {"accuracy": 0.75}, {"accuracy": 0.5, "rna": 0.25}
    results = [
        {**fields, "use": "mixture", "mean": more, "std": more},
        {**fields, "use": "latents", "mean": some, "std": some},
    ]
    lines = [line.split() for line in text(results).splitlines()]
    assert lines[1] == ["method", "accuracy", "rna"]
    assert lines[2:] == [
        ["mmvae", "mixture", "0.500", "(0.500)", "0.250", "(0.250)"],
        ["mmvae", "latents", "0.750", "(0.750)", "-"],
    ]


#: Stands for the Python of MultiVae: keeps its inputs, and predicts zeros and the first class.
STAND_IN = """#!{python}
import json, shutil, sys
from pathlib import Path
import numpy as np

folder = Path(sys.argv[-1])
shutil.copytree(folder, "{kept}")
settings = json.loads((folder / "settings.json").read_text())
test, every = (np.load(folder / (part + " data.npz")) for part in ("test", "all"))
np.savez(folder / "predicted.npz", **{{name: 0 * test[name] for name in settings["dims"]}})
np.savez(folder / "latents.npz", test=test["a"], all=every["a"])
(folder / "course.json").write_text('{{"best_step": 7}}')
"""


def test_multivae_gets_the_inputs_of_the_estimator_and_its_predictions_come_back(tmp_path):
    """Zeros in the model's units are the means of training; latents that are a view predict it."""
    tables = factor_tables()
    rows = halves(tables, missing=0.3)
    python, kept = tmp_path / "python", tmp_path / "kept"
    python.write_text(STAND_IN.format(python=sys.executable, kept=kept))
    python.chmod(0o755)
    params = {"num_steps": 11, "learn_scale": False, "validation": 0.2}
    scores, course = run_multivae(rows, params, python)
    assert course == {"best_step": 7}
    assert all(0.9 < scores["mixture"][name] < 1.1 for name in "abc")
    assert scores["mixture"]["balanced accuracy"] == 0.5
    settings = json.loads((kept / "settings.json").read_text())
    assert settings["num_steps"] == 11
    assert settings["dims"] == {"a": 6, "b": 6, "c": 6, "level": 2}
    assert settings["views"] == ["a", "b", "c"]
    train, mask, validation = (
        dict(np.load(kept / f"{name}.npz"))
        for name in ("train data", "train masks", "validation data")
    )
    assert len(train["a"]) == 80
    assert len(validation["a"]) == 20
    np.testing.assert_allclose(train["a"][mask["a"]].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train["a"][mask["a"]].std(0), 1, atol=1e-5)
    assert not train["a"][~mask["a"]].any()
    assert 0 < (~mask["a"]).mean() < 0.5
    np.testing.assert_array_equal(train["level"].sum(1), 1)


def test_a_failure_of_multivae_is_an_error_with_its_message(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no module of that name >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"rc 3.*no module"):
        run_multivae(halves(factor_tables()), {"learn_scale": False}, python)


@pytest.mark.slow
def test_multivae_learns_linear_views(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("multivae")
    params = {"num_steps": 300, "K": 3, "loss": "iwae_looser", "learn_scale": False}
    scores, course = run_multivae(halves(factor_tables(400), missing=0.3), params, None)
    assert all(scores["mixture"][name] < 0.75 for name in "abc")
    assert scores["latents"]["accuracy"] > 0.8
    assert course["best_step"] > 100


@pytest.mark.slow
def test_mmvae_on_tumours(tmp_path):
    results = main(
        OmicsConfig(
            tables=("tumours",),
            methods=("mean", "mmvae"),
            missing=(0.3,),
            part="held_out",
            num_steps=200,
            K=3,
            num_particles=50,
            out=tmp_path,
        )
    )["results"]
    scores = {row["use"]: row["mean"] for row in results}
    assert all(scores[use]["accuracy"] > 0.85 for use in ("mixture", "importance", "latents"))
    assert all(scores["importance"][view] < 0.9 * scores[""][view] for view in ("mean", "worst"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_folds", 1),
        ("missing", (2.0,)),
        ("tables", ("iris",)),
        ("folds", (5,)),
        ("methods", ("x",)),
    ],
)
def test_bad_settings(field, value):
    with pytest.raises(ValueError, match=f"{field} (is|has)"):
        OmicsConfig(**{field: value})
