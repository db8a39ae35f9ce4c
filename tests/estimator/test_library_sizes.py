"""Counts whose total is an offset: predictions, draws, missing entries and files."""

import jax.numpy as jnp
import numpy as np
import pytest

import mmvae_jax as mm

NUM_ROWS, NUM_GENES = 60, 8
FAST = {"latent_dim": 2, "K": 2, "hidden": (8,), "num_steps": 5, "validation": 0.0}


def cells() -> dict[str, np.ndarray]:
    """Counts of libraries that differ by a factor of 30, some of them missing, and proteins."""
    rng = np.random.default_rng(0)
    depth = np.exp(rng.uniform(0, 3.4, size=(NUM_ROWS, 1)))
    rna = rng.poisson(depth * rng.uniform(1, 9, size=NUM_GENES)).astype(np.float64)
    rna[:10] = np.nan
    rna[10:20, 2] = np.nan
    return {"rna": rna, "protein": rng.normal(size=(NUM_ROWS, 3))}


DATA = cells()
TOTALS = np.nansum(DATA["rna"], 1)
MEDIAN = np.median(TOTALS[10:])


@pytest.fixture(scope="module")
def fitted() -> mm.MMVAEEstimator:
    return mm.MMVAEEstimator(**FAST).fit(DATA)


def decoded(fitted):
    """Outputs of the decoder of counts for the mean latents of counts."""
    z = jnp.asarray(fitted.transform(DATA, given="rna"))
    return np.asarray(mm.decode(fitted.trained_.model, z)["rna"])


def test_a_row_with_counts_keeps_its_total(fitted):
    """The means of the observed entries sum to their total, and the others have their share."""
    found = fitted.predict(DATA, given="rna", generate="rna")["rna"]
    seen = ~np.isnan(DATA["rna"])
    sums = np.where(seen, found, 0).sum(1)[10:]
    np.testing.assert_allclose(sums, TOTALS[10:], rtol=1e-5)
    logits = decoded(fitted)[10:20]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = TOTALS[10:20] * shares[:, 2] / (1 - shares[:, 2])
    np.testing.assert_allclose(found[10:20, 2], expected, rtol=1e-4)
    np.testing.assert_allclose(fitted.impute(DATA)["rna"][20:], DATA["rna"][20:])


def test_a_row_without_counts_has_the_median_total(fitted):
    assert fitted.trained_.views["rna"].library_size == MEDIAN
    given = {"given": "protein", "generate": "rna"}
    np.testing.assert_allclose(fitted.predict(DATA, **given)["rna"].sum(1), MEDIAN, rtol=1e-5)
    imputed = fitted.impute(DATA)["rna"][:10]
    np.testing.assert_allclose(imputed.sum(1), MEDIAN, rtol=1e-5)


@pytest.mark.slow
def test_draws_have_the_totals_of_the_means(fitted):
    draws = {
        "rna": (fitted.predict(DATA, given="rna", generate="rna", num_samples=300)["rna"], TOTALS),
        "protein": (
            fitted.predict(DATA, given="protein", generate="rna", num_samples=300)["rna"],
            np.full(NUM_ROWS, MEDIAN),
        ),
        "prior": (fitted.sample(4000)["rna"][None].repeat(21, 0), np.full(21, MEDIAN)),
    }
    for x, expected in draws.values():
        sums = x[20:].sum(2)
        error = sums.std(1) / np.sqrt(sums.shape[1])
        assert (np.abs(sums.mean(1) - expected[20:]) < 4.5 * error).all()


@pytest.mark.slow
def test_library_sizes_are_saved(fitted, tmp_path):
    again = mm.MMVAEEstimator.load(fitted.save(tmp_path / "model"))
    for given in ("rna", "protein"):
        found, expected = (x.predict(DATA, given=given)["rna"] for x in (again, fitted))
        np.testing.assert_array_equal(found, expected)


def test_a_score_is_given_the_total(fitted):
    """Totals have no density: an empty row of counts has log p of 0."""
    empty = {"rna": np.zeros((3, NUM_GENES))}
    np.testing.assert_allclose(fitted.score_samples(empty, num_particles=5000), 0, atol=0.01)


@pytest.mark.slow
def test_totals_that_mean_something():
    """Without a library size, the decoder has log means."""
    fitted = mm.MMVAEEstimator(**FAST, library_size={"rna": "none"}).fit(DATA)
    assert fitted.trained_.views["rna"].library_size is None
    found = fitted.predict(DATA, given="rna", generate="rna")["rna"]
    np.testing.assert_allclose(found[10:], np.exp(decoded(fitted))[10:], rtol=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"protein": "observed"}, r"library_size is 'observed', but .* is taken for normal\[3\]"),
        ({"rna": "median"}, r"library_size\['rna'\] is 'median'"),
        ({"rnas": "none"}, r"library_size has the unknown modalities \['rnas'\]"),
    ],
)
def test_wrong_library_sizes(setting, message):
    with pytest.raises(ValueError, match=message):
        mm.MMVAEEstimator(**FAST, library_size=setting).fit(DATA)
