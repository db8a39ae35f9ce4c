"""An MMVAE of the views and the class, and the settings of it that the study compares."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mmvae_jax as mm
from experiments.omics.baselines import (
    Predicted,
    measure,
    measure_classes,
    measure_pairs,
    pairs_of,
)
from experiments.omics.data import Split
from mmvae_jax.inference.weighting import Weighting

LAPLACE = {"posterior": "laplace_with_softmax"}
#: Parameters of ``MMVAEEstimator`` by name; those absent are the estimator's own or the command's.
VARIANTS: dict[str, dict[str, Any]] = {
    "mmvae": {},
    "beta 0.3": {"beta": 0.3},
    "beta 0.1": {"beta": 0.1},
    "latent 20": {"latent_dim": 20},
    "latent 32": {"latent_dim": 32},
    "latent 64": {"latent_dim": 64},
    "fixed scale": {"learn_scale": False},
    "tight": {"loss": "adaptive_dreg"},
    "elbo": {"loss": "elbo"},
    "laplace": LAPLACE,
    "laplace 32": LAPLACE | {"latent_dim": 32},
    "laplace beta 0.3": LAPLACE | {"beta": 0.3},
    "laplace tight": LAPLACE | {"loss": "adaptive_dreg"},
    "rescale": {"rescale": True},
    "hidden 64": {"hidden": (64,)},
    "hidden 512": {"hidden": (512,)},
    "two layers": {"hidden": (256, 256)},
    "rate 0.003": {"learning_rate": 3e-3},
    "rate 0.0003": {"learning_rate": 3e-4},
    "missing 0.2": {"missing": 0.2},
    "K 1": {"K": 1},
    "K 10": {"K": 10},
    "steps 2000": {"num_steps": 2000},
}


#: Uses of a trained MMVAE. "mixture" and "importance" are weightings of the given views; "one view"
#: predicts each view from each other view; "latents" is logistic regression on the mean latents.
USES = ("mixture", "importance", "one view", "latents")


def run_variant(
    rows: Split, params: Mapping[str, Any], weighting: Weighting, uses: Sequence[str] = USES
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Trains one MMVAE and measures uses of it.

    Returns:
      Scores by use, and the course of training.
    """
    start = time.perf_counter()
    train = {**rows.train.views, rows.train.label: rows.train.classes}
    estimator = mm.MMVAEEstimator(**params).fit(train)
    seconds = round(time.perf_counter() - start, 1)
    measures: dict[str, Callable[[], dict[str, float]]] = {
        "mixture": lambda: measure(predicted(estimator, rows, "mixture"), rows),
        "importance": lambda: measure(predicted(estimator, rows, weighting), rows),
        "one view": lambda: measure_pairs(predicted_pairs(estimator, rows), rows),
        "latents": lambda: measure_classes(latent_classes(estimator, rows), rows),
    }
    scores = {use: measures[use]() for use in uses}
    course = {name: estimator.summary_[name] for name in ("best_step", "steps")}
    return scores, {**course, "seconds": seconds}


def predicted(estimator: mm.MMVAEEstimator, rows: Split, weighting: Weighting) -> Predicted:
    """Returns classes from all views, and each view from the others."""
    views, label = rows.test.views, rows.test.label
    return Predicted(
        estimator.predict(views, generate=label, weighting=weighting)[label],
        {
            name: estimator.predict(
                {other: x for other, x in views.items() if other != name},
                generate=name,
                weighting=weighting,
            )[name]
            for name in views
        },
    )


def predicted_pairs(
    estimator: mm.MMVAEEstimator, rows: Split
) -> dict[tuple[str, str], Float[np.ndarray, "t d"]]:
    """Returns each view from each other view, by the names of both."""
    return {
        (name, given): estimator.predict({given: rows.test.views[given]}, generate=name)[name]
        for name, given in pairs_of(rows.test.views)
    }


def latent_classes(estimator: mm.MMVAEEstimator, rows: Split) -> Shaped[np.ndarray, " t"]:
    """Returns classes of the test rows by logistic regression on mean latents of their views."""
    train, test = (estimator.transform(part.views) for part in rows)
    return classes_of_latents(train, rows.train.classes, test)


def classes_of_latents(
    train: Float[np.ndarray, "n d"],
    classes: Shaped[np.ndarray, " n"],
    test: Float[np.ndarray, "t d"],
) -> Shaped[np.ndarray, " t"]:
    """Returns classes of the test rows by logistic regression on latents."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return classifier.fit(train, classes).predict(test)
