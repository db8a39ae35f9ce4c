"""Simple methods of scikit-learn that predict classes and views from the other views."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline

from experiments.omics.data import Split, Views

#: Principal components of logistic regression, and nearest neighbours.
NUM_COMPONENTS, NUM_NEIGHBOURS = 50, 10
#: Latent dimensions of the MMVAE, by default.
NUM_LATENTS = 10
#: Penalties that ridge regression chooses from by its leave-one-out error.
PENALTIES = tuple(np.logspace(0, 5, 11))


class Predicted(NamedTuple):
    """Predictions for the test rows.

    Attributes:
      classes: classes, predicted from all views.
      views: each view, predicted from the other views, in the units of the data.
    """

    classes: Shaped[np.ndarray, " n"]
    views: Views


def measure(predicted: Predicted, rows: Split) -> dict[str, float]:
    """Returns the accuracies of the classes, and the error of each view."""
    errors = {name: error(values, name, rows) for name, values in predicted.views.items()}
    return measure_classes(predicted.classes, rows) | errors


def measure_pairs(
    pairs: Mapping[tuple[str, str], Float[np.ndarray, "t d"]], rows: Split
) -> dict[str, float]:
    """Returns the error of each view that is predicted from one other view.

    ``pairs`` has predictions by the names of the predicted view and of the given one.
    """
    return {
        f"{name} from {given}": error(values, name, rows) for (name, given), values in pairs.items()
    }


def error(values: Float[np.ndarray, "t d"], name: str, rows: Split) -> float:
    """Returns the root mean squared error of a view, in standard deviations of training rows."""
    _, scale = moments(rows.train.views[name])
    return float(np.sqrt(np.mean(((values - rows.test.views[name]) / scale) ** 2)))


def measure_classes(classes: Shaped[np.ndarray, " n"], rows: Split) -> dict[str, float]:
    """Returns the accuracy of classes, and the mean of the accuracies within each true class."""
    truth = rows.test.classes
    return {
        "accuracy": float(accuracy_score(truth, classes)),
        "balanced accuracy": float(balanced_accuracy_score(truth, classes)),
    }


def moments(
    x: Float[np.ndarray, "n d"],
) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Returns the means and standard deviations of the columns over observed rows."""
    return np.nanmean(x, 0), np.nanstd(x, 0)


def mean(rows: Split) -> Predicted:
    """Returns the most frequent class, and the mean of each column."""
    classes, counts = np.unique(rows.train.classes, return_counts=True)
    return Predicted(
        np.full(len(rows.test.classes), classes[counts.argmax()]),
        {
            name: np.broadcast_to(moments(rows.train.views[name])[0], x.shape)
            for name, x in rows.test.views.items()
        },
    )


def neighbours(rows: Split) -> Predicted:
    """Returns the mean or most frequent class of the ten nearest rows, weighed by distance."""
    options = {"n_neighbors": NUM_NEIGHBOURS, "weights": "distance"}
    return _predict_each(rows, KNeighborsClassifier(**options), KNeighborsRegressor(**options))


def linear(rows: Split) -> Predicted:
    """Returns logistic regression of principal components, and ridge regression of columns."""
    return _predict_each(
        rows, _logistic(rows, list(rows.train.views), NUM_COMPONENTS), RidgeCV(PENALTIES)
    )


def low_rank(rows: Split) -> Predicted:
    """Returns linear predictions through as many dimensions as the MMVAE has latents."""
    return _predict_each(
        rows,
        _logistic(rows, list(rows.train.views), NUM_LATENTS),
        LowRank(RidgeCV(PENALTIES), NUM_LATENTS),
    )


def averaged(rows: Split) -> Predicted:
    """Returns the mean of linear predictions from one view each, as a mixture of experts works."""
    names = list(rows.train.views)
    classes, views = np.unique(rows.train.classes), {}
    shares = [
        _probabilities(rows, [name], _logistic(rows, [name], NUM_COMPONENTS)) for name in names
    ]
    for target in names:
        single = [
            _values(rows, [name], target, RidgeCV(PENALTIES)) for name in names if name != target
        ]
        views[target] = np.mean(single, 0)
    return Predicted(classes[np.mean(shares, 0).argmax(1)], views)


def pairs_of(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the names of each view and of each other view to predict it from."""
    return list(itertools.permutations(names, 2))


def linear_pairs(rows: Split) -> dict[tuple[str, str], Float[np.ndarray, "t d"]]:
    """Returns ridge regression of each view on each other view."""
    return {
        (name, given): _values(rows, [given], name, RidgeCV(PENALTIES))
        for name, given in pairs_of(rows.test.views)
    }


BASELINES: dict[str, Callable[[Split], Predicted]] = {
    "mean": mean,
    "neighbours": neighbours,
    "linear": linear,
    "low rank": low_rank,
    "averaged": averaged,
}


class LowRank(NamedTuple):
    """A regressor whose predictions are projected on their leading principal directions."""

    regressor: Any
    rank: int

    def fit(self, x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> "Projection":
        """Returns the fitted regressor and the directions of its training predictions."""
        fitted = self.regressor.fit(x, y)
        directions = np.linalg.svd(fitted.predict(x).reshape(y.shape), full_matrices=False)[2][
            : self.rank
        ]
        return Projection(fitted, directions)


class Projection(NamedTuple):
    """A fitted regressor, and orthonormal rows that its predictions are projected on."""

    regressor: Any
    directions: Float[np.ndarray, "r e"]

    def predict(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        """Returns projected predictions."""
        return self.regressor.predict(x).reshape(len(x), -1) @ self.directions.T @ self.directions


def _logistic(rows: Split, names: Sequence[str], num_components: int) -> Pipeline:
    """Returns logistic regression of principal components of some views."""
    num_columns = sum(rows.train.views[name].shape[1] for name in names)
    components = PCA(min(num_components, num_columns), random_state=0)
    return make_pipeline(components, LogisticRegression(max_iter=5000))


def _predict_each(rows: Split, classifier: Any, regressor: Any) -> Predicted:
    """Returns classes from all views, and each view from all others."""
    names, classes = list(rows.train.views), np.unique(rows.train.classes)
    shares = _probabilities(rows, names, classifier)
    views = {
        target: _values(rows, [name for name in names if name != target], target, regressor)
        for target in names
    }
    return Predicted(classes[shares.argmax(1)], views)


def _probabilities(
    rows: Split, names: Sequence[str], classifier: Any
) -> Float[np.ndarray, "t classes"]:
    """Returns probabilities of the classes of test rows, from some views."""
    train, test, seen = _inputs(rows, names)
    return classifier.fit(train[seen], rows.train.classes[seen]).predict_proba(test)


def _values(
    rows: Split, names: Sequence[str], target: str, regressor: Any
) -> Float[np.ndarray, "t d"]:
    """Returns a view of the test rows, from some other views."""
    train, test, seen = _inputs(rows, names)
    x = rows.train.views[target]
    loc, scale = moments(x)
    seen &= ~np.isnan(x).all(1)
    found = regressor.fit(train[seen], (x[seen] - loc) / scale).predict(test)
    return found.reshape(len(test), -1) * scale + loc  # of one column ridge drops the axis


def _inputs(
    rows: Split, names: Sequence[str]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "t d"], Bool[np.ndarray, " n"]]:
    """Returns standardised training and test rows of views side by side, means where missing.

    The mask is True in training rows that observe one of the views or more.
    """
    train, test = [], []
    for name in names:
        loc, scale = moments(rows.train.views[name])
        train.append((rows.train.views[name] - loc) / scale)
        test.append((rows.test.views[name] - loc) / scale)
    joined = np.concatenate(train, 1)
    seen = np.asarray(~np.isnan(joined).all(1))
    return np.nan_to_num(joined), np.concatenate(test, 1), seen
