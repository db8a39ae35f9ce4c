"""The scikit-learn estimator: its contract, and results in the units of the tables."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import mmvae_jax as mm
from mmvae_jax.tables.tables import Tables

FAST = {"latent_dim": 3, "K": 2, "hidden": (16,), "num_steps": 60, "learning_rate": 5e-3}


def tumours(num_rows: int = 300) -> dict[str, np.ndarray]:
    """Two views of tumours with missing rows and cells, and the diagnosis in words."""
    x, diagnosis = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:num_rows]
    x, diagnosis = x[order], diagnosis[order]
    views = {"mean": x[:, :10].copy(), "worst": x[:, 20:].copy()}
    rng = np.random.default_rng(1)
    views["mean"][rng.random(num_rows) < 0.1] = np.nan
    views["worst"][rng.random((num_rows, 10)) < 0.05] = np.nan
    return views | {"diagnosis": np.array(["malignant", "benign"])[diagnosis]}


DATA = tumours()


@pytest.fixture(scope="module")
def fitted() -> mm.MMVAEEstimator:
    return mm.MMVAEEstimator(**FAST).fit(DATA)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_estimators_unfitted,
    ],
    ids=lambda check: check.__name__,
)
def test_the_contract_of_scikit_learn(check):
    check("MMVAEEstimator", mm.MMVAEEstimator())


def test_an_estimator_that_is_not_fitted_says_so():
    with pytest.raises(NotFittedError):
        mm.MMVAEEstimator().transform(DATA)


def test_diagnoses_are_predicted_from_the_views(fitted):
    views = {name: DATA[name] for name in ("mean", "worst")}
    found = fitted.predict(views, generate="diagnosis")["diagnosis"]
    assert set(np.unique(found)) <= {"benign", "malignant", ""}
    seen = found != ""
    assert np.mean(found[seen] == DATA["diagnosis"][seen]) > 0.8  # the majority: 0.63
    probabilities = fitted.predict_proba(views, generate="diagnosis")["diagnosis"]
    classes = np.array(fitted.trained_.views["diagnosis"].classes)
    np.testing.assert_array_equal(classes[probabilities[seen].argmax(-1)], found[seen])
    np.testing.assert_allclose(probabilities[seen].sum(-1), 1, rtol=1e-5)


def test_observed_values_stay_when_the_others_are_imputed(fitted):
    complete = fitted.impute(DATA)
    for name in ("mean", "worst"):
        seen = ~np.isnan(DATA[name])
        np.testing.assert_array_equal(complete[name][seen], DATA[name][seen])
        assert np.isfinite(complete[name]).all()
    np.testing.assert_array_equal(complete["diagnosis"], DATA["diagnosis"])


def test_hidden_cells_are_imputed_better_than_by_their_mean(fitted):
    hidden = np.random.default_rng(5).random(DATA["worst"].shape) < 0.1
    hidden &= ~np.isnan(DATA["worst"])
    given = DATA | {"worst": np.where(hidden, np.nan, DATA["worst"])}
    found = fitted.impute(given)["worst"]
    scale = np.nanstd(DATA["worst"], axis=0)
    errors, spreads = (
        ((x - DATA["worst"]) / scale)[hidden] for x in (found, np.nanmean(given["worst"], axis=0))
    )
    assert np.sqrt(np.mean(errors**2)) < 0.8 * np.sqrt(np.mean(spreads**2))


def test_intervals_cover_their_share(fitted):
    """About 80% of the observed values lie in intervals of 80%."""
    low, high = np.moveaxis(
        fitted.predict_interval(DATA, level=0.8, generate="worst", num_samples=100)["worst"], 1, 0
    )
    seen = ~np.isnan(DATA["worst"]) & ~np.isnan(low)
    covered = ((low <= DATA["worst"]) & (DATA["worst"] <= high))[seen].mean()
    assert 0.65 < covered < 0.95


@pytest.mark.slow
def test_a_score_has_the_units_of_the_tables(fitted):
    """In units c times as large, each observed value of a density has ``log c`` nats less."""
    factor = 10.0
    rows = {name: x[:40] for name, x in DATA.items()}
    larger = {name: x if x.dtype.kind == "U" else factor * x for name, x in rows.items()}
    scaled = mm.MMVAEEstimator(**FAST).fit(
        {name: x if x.dtype.kind == "U" else factor * x for name, x in DATA.items()}
    )
    ours, theirs = (
        estimator.score_samples(x, num_particles=50)
        for estimator, x in ((fitted, rows), (scaled, larger))
    )
    counts = sum((~np.isnan(rows[name])).sum(1) for name in ("mean", "worst"))
    # Training in other units rounds differently.
    difference = (theirs - ours + counts * np.log(factor)) / counts
    assert abs(np.median(difference)) < 0.3
    assert fitted.score(rows) == pytest.approx(ours.mean(), abs=2)


def test_draws_have_the_moments_of_the_data(fitted):
    drawn = fitted.sample(2000)
    assert set(drawn) == set(DATA)
    shift = (drawn["worst"].mean(0) - np.nanmean(DATA["worst"], 0)) / np.nanstd(DATA["worst"], 0)
    assert np.abs(shift).max() < 0.5
    assert set(np.unique(drawn["diagnosis"])) == {"benign", "malignant"}


def test_saved_estimators_come_back(fitted, tmp_path):
    again = mm.MMVAEEstimator.load(fitted.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.transform(DATA), fitted.transform(DATA))
    assert again.get_params() == fitted.get_params()
    with pytest.raises(FileExistsError, match="folder is "):
        fitted.save(tmp_path / "model")


@pytest.mark.slow
def test_a_run_is_an_estimator(tmp_path):
    estimator = mm.MMVAEEstimator(**FAST).fit(DATA, out=tmp_path / "run")
    again = mm.MMVAEEstimator.load(tmp_path / "run")
    np.testing.assert_array_equal(again.transform(DATA), estimator.transform(DATA))


@pytest.mark.slow
def test_pipelines_and_cross_validation():
    tables = mm.read_tables({name: DATA[name] for name in ("mean", "worst")})
    assert isinstance(tables, Tables)
    y = DATA["diagnosis"]
    rows = np.flatnonzero(~np.isnan(DATA["mean"]).all(1))
    pipeline = make_pipeline(mm.MMVAEEstimator(**FAST), LogisticRegression())
    scores = cross_val_score(pipeline, tables[rows], y[rows], cv=3)
    assert scores.mean() > 0.85
    estimator = clone(mm.MMVAEEstimator(**FAST)).fit(tables)
    assert estimator.get_feature_names_out().tolist() == [f"mmvaeestimator{i}" for i in range(3)]


def test_a_draw_spreads_as_its_likelihood_says(fitted):
    """The model's own intervals: a normal's with the learned scale is the least they can be."""
    one = {name: DATA[name][:1] for name in ("worst",)}
    low, high = fitted.predict_interval(one, generate="worst", num_samples=400)["worst"][0]
    scale = fitted.trained_.model.likelihood_params("worst")["scale"]
    least = 2 * norm.ppf(0.95) * scale * fitted.trained_.views["worst"].scale
    assert (high - low > 0.8 * least).all()
