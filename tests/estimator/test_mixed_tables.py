"""Tables with measurements, binary columns, classes and counts among their columns."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.cli_data import arrays_in, mmvae

import mmvae_jax as mm
from mmvae_jax.estimator.settings import TrainingSettings
from mmvae_jax.tables.examples import check_examples
from mmvae_jax.tables.mixed_selection import choose
from mmvae_jax.tables.mixed_view import MixedView, view_from_json

NUM_ROWS = 120
FAST = {"latent_dim": 2, "K": 2, "hidden": (16,), "validation": 0.0}
STAGES = np.array(["I", "II", "III"])


def patients() -> dict[str, pd.DataFrame]:
    """Returns patients whose columns all depend on one cause, and a view of two measurements."""
    rng = np.random.default_rng(0)
    cause = rng.normal(size=NUM_ROWS)
    stage = pd.Series(STAGES[np.digitize(cause, [-0.5, 0.5])])
    clinical = pd.DataFrame(
        {
            "stage": stage.where(rng.random(NUM_ROWS) > 0.1),
            "age": 60 + 10 * cause + rng.normal(size=NUM_ROWS),
            "sex": (cause + 0.3 * rng.normal(size=NUM_ROWS) > 0) * 1.0,
            "visits": rng.poisson(np.exp(2.5 + cause / 2)) * (rng.random(NUM_ROWS) > 0.05),
            "bmi": 25 + 3 * rng.normal(size=NUM_ROWS),
            "grade": np.digitize(cause, [-1, 1]) + 1,
        }
    )
    clinical.loc[7, "age"] = clinical.loc[8, "sex"] = np.nan
    clinical.loc[9] = np.nan
    lab = pd.DataFrame({"a": cause + rng.normal(size=NUM_ROWS) / 5, "b": rng.normal(size=NUM_ROWS)})
    return {"clinical": clinical, "lab": lab}


DATA = patients()
NUMBERS = DATA["clinical"].drop(columns="stage")


@pytest.fixture(scope="module")
def fitted() -> mm.MMVAEEstimator:
    settings = {"num_steps": 200, "learning_rate": 5e-3, "batch_size": 64}
    return mm.MMVAEEstimator(**FAST, **settings).fit(DATA)


def view_of(table, **settings):
    return choose(mm.read_tables({"x": table}).modalities["x"], np.arange(len(table)), **settings)


def test_columns_are_told_apart():
    """Measurements, binary columns, counts, and a part for each column of classes."""
    view = view_of(DATA["clinical"])
    assert [*view.describe()] == [
        ("normal", "age, bmi"),
        ("bernoulli", "sex"),
        ("negative_binomial", "visits"),
        ("categorical", "stage"),
        ("categorical", "grade"),
    ]
    assert view.text == {0: ("I", "II", "III")}
    assert view.dim == (2 + 1 + 1 + 3 + 3,)
    config = TrainingSettings(scale={"x": 0.7}).config({"x": view})
    likelihood = config.decoders_dist["x"]
    assert likelihood.sizes == {"scale_0": 2, "dispersion_2": 1}
    assert likelihood.params["scale_0"] == mm.Learned(0.7, per_feature=True)
    assert isinstance(view_of(NUMBERS), MixedView)


def test_tables_of_one_kind_stay_what_they_were():
    """Also with a constant column, and with whole numbers only, unless asked."""
    measured = DATA["clinical"][["age", "bmi"]].assign(zero=0.0)
    assert view_of(measured).likelihood == "normal"
    whole = NUMBERS[["sex", "visits"]].dropna()
    assert view_of(whole.astype(int)).likelihood == "negative_binomial"
    assert view_of(whole, likelihood="mixed").parts[0].view.likelihood == "bernoulli"
    assert view_of(NUMBERS, likelihood="normal").likelihood == "normal"


def test_rows_come_back_from_the_input():
    """One-hot classes inside; the table's own columns, values and missing cells outside."""
    tables = mm.read_tables({"clinical": DATA["clinical"]})
    table = tables.modalities["clinical"]
    view = view_from_json(json.loads(json.dumps(view_of(DATA["clinical"]).to_json())))
    data = check_examples(tables, {"clinical": view})
    x, mask = data.data["clinical"][:], data.mask["clinical"]
    seen = mask.any(1)
    np.testing.assert_array_equal(np.flatnonzero(~seen), [9])
    whole = mask.all(1)
    np.testing.assert_array_equal(x[whole, 4:7].argmax(1), table.values[whole, 0])
    assert (x[whole, 4:7].sum(1) == 1).all()
    np.testing.assert_allclose(x[whole, 3], DATA["clinical"]["visits"][whole])
    numbers = NUMBERS.columns.tolist()
    rows = view.labelled(view.to_rows(x))
    assert rows.dtype.names == tuple(DATA["clinical"].columns)
    for name in numbers:
        expected = DATA["clinical"][name]
        there = expected.notna().to_numpy()
        np.testing.assert_allclose(rows[name][there], expected[there], rtol=1e-5)
    np.testing.assert_array_equal(rows["stage"][whole], DATA["clinical"]["stage"][whole])
    assert not mask[7, 0]
    assert mask[7, 1:4].all()
    scales = np.log(view.parts[0].view.scale)
    rows = np.where(np.isnan(table.values), np.nan, 1.0)
    change = view.log_det(rows, table.observed)
    np.testing.assert_allclose(change[7], -scales[1])
    np.testing.assert_allclose(change[9], 0)
    np.testing.assert_allclose(change[0], -scales.sum())


def test_structured_arrays_are_tables():
    """As predictions are; also those of a file."""
    view, table = view_of(TEXT), mm.read_tables({"x": TEXT.to_records(index=False)})
    np.testing.assert_array_equal(
        *(check_examples(x, {"x": view}).data["x"][:] for x in (table, mm.read_tables({"x": TEXT})))
    )


def test_columns_are_matched_by_name_and_classes_by_text():
    """A new file may have other columns first, and lack a class."""
    view = view_of(DATA["clinical"])
    some = DATA["clinical"][DATA["clinical"]["stage"] != "I"].iloc[:, ::-1]
    whole, found = (
        check_examples(mm.read_tables({"x": frame}), {"x": view}).data["x"][:]
        for frame in (DATA["clinical"], some)
    )
    np.testing.assert_array_equal(found, whole[some.index])


@pytest.mark.slow
def test_predictions_have_the_columns_of_the_table(fitted):
    found = fitted.predict({"lab": DATA["lab"]}, generate="clinical")["clinical"]
    clinical = DATA["clinical"]
    assert found.dtype.names == tuple(clinical.columns)
    seen = clinical["stage"].notna()
    assert np.mean((found["stage"] == clinical["stage"])[seen]) > 0.6  # the majority: 0.41
    assert set(found["stage"]) <= set(STAGES)
    assert set(found["grade"]) <= {1.0, 2.0, 3.0}
    for name in ("age", "sex", "visits"):
        there = clinical[name].notna().to_numpy()
        assert np.corrcoef(found[name][there], clinical[name][there])[0, 1] > 0.5
    probabilities = fitted.predict_proba({"lab": DATA["lab"]})
    assert set(probabilities) == {"clinical/stage", "clinical/grade"}
    stages = STAGES[probabilities["clinical/stage"].argmax(-1)]
    np.testing.assert_array_equal(stages, found["stage"])
    np.testing.assert_allclose(probabilities["clinical/grade"].sum(1), 1, rtol=1e-5)


@pytest.mark.slow
def test_observed_values_of_mixed_tables_stay(fitted):
    complete = fitted.impute(DATA)["clinical"]
    for name, column in DATA["clinical"].items():
        there = column.notna().to_numpy()
        np.testing.assert_array_equal(complete[name][there], column[there])
    assert set(complete["stage"]) <= set(STAGES)
    assert np.isfinite(complete["age"]).all()


@pytest.mark.slow
def test_draws_have_the_kinds_of_the_columns(fitted):
    drawn = fitted.sample(300)["clinical"]
    assert set(drawn["sex"]) == {0.0, 1.0}
    assert set(drawn["stage"]) == set(STAGES)
    assert (drawn["visits"] == np.floor(drawn["visits"])).all()
    intervals = fitted.predict_interval({"lab": DATA["lab"]}, num_samples=20)["clinical"]
    assert intervals.shape == (NUM_ROWS, 2, 6)
    assert np.isnan(intervals[..., [0, 5]]).all()
    assert (intervals[:, 0, 1:5] <= intervals[:, 1, 1:5]).all()


@pytest.mark.slow
def test_mixed_tables_on_the_command_line(tmp_path, capsys):
    """Train, predict, evaluate and show, with a table of text from a file."""
    data, run, found = tmp_path / "data", tmp_path / "run", tmp_path / "found.npz"
    data.mkdir()
    for name, frame in DATA.items():
        frame.to_csv(data / f"{name}.csv", index=False)
    options = "--num-steps 20 --latent-dim 2 --K 2 --hidden 8 --quiet"
    assert mmvae("train", data, "--out", run, options) == 0
    assert "negative_binomial  visits" in capsys.readouterr().out
    args = "--given lab --generate clinical --out"
    assert mmvae("predict", run, data, args, found) == 0
    arrays = arrays_in(found)
    assert arrays["clinical"].dtype.names == tuple(DATA["clinical"].columns)
    assert arrays["probabilities/clinical/stage"].shape == (NUM_ROWS, 3)
    again = mm.read_tables(found).modalities["clinical"]
    assert again.features == tuple(DATA["clinical"].columns)
    capsys.readouterr()
    assert mmvae("evaluate", run, data, "--num-particles 5 --json") == 0
    errors = json.loads(capsys.readouterr().out)["reconstruction_error"]
    assert errors["clinical, stage"]["what"] == "share of wrong classes"
    assert 0 < errors["clinical, age, bmi"]["from_others"] < 3
    assert mmvae("info", run) == 0
    assert "clinical             [10]             mixed" in capsys.readouterr().out
    loaded = mm.MMVAEEstimator.load(run).predict({"lab": DATA["lab"]}, generate="clinical")
    np.testing.assert_array_equal(loaded["clinical"], arrays["clinical"])


TEXT = pd.DataFrame({"a": [0.5, 1.5, 2.5], "b": ["x", "y", "x"]})
MISTAKES = {
    "another class": (TEXT.assign(b=["x", "z", "x"]), r"column 'b' holds 'z': expected .*'x', 'y'"),
    "numbers": (TEXT.assign(b=[0, 1, 0]), r"column 'b' is numbers: expected text"),
    "text": (TEXT.assign(a=["p", "q", "q"]), r"column 'a' is text: expected numbers"),
    "other columns": (TEXT.rename(columns={"a": "c"}), r"lacks \['a'\], and has \['c'\]"),
}


@pytest.mark.parametrize(("frame", "message"), MISTAKES.values(), ids=MISTAKES)
def test_other_columns_than_in_training(frame, message):
    view = view_of(TEXT)
    with pytest.raises(ValueError, match=message):
        check_examples(mm.read_tables({"x": frame}), {"x": view})


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (TEXT, {"likelihood": "normal"}, "'normal', but .* has the text column 'b': leave"),
        (TEXT[["b"]], {"likelihood": "mixed"}, "'mixed', but .* is one column"),
        (TEXT, {"library_size": "observed"}, "'observed', but .* is mixed"),
        (np.ones((3, 2, 2)), {"likelihood": "mixed"}, r"rows of shape \(2, 2\)"),
    ],
)
def test_wrong_settings_of_mixed_tables(table, settings, message):
    with pytest.raises(ValueError, match=message):
        view_of(table, **settings)
