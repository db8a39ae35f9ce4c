"""Tables that are cut into views: synthetic ones, and those that scikit-learn installs."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn import datasets

NUM_VIEWS = 6
TEST_SHARE = 0.2

Views = Mapping[str, Float[np.ndarray, "n _"]]
#: Likelihoods and numbers of the consecutive columns of a view; a class has one column per value.
Parts = tuple[tuple[str, int], ...]


class SplitTable(NamedTuple):
    """Rows of several views.

    Attributes:
      train: training rows; normal columns are standardised by them.
      test: test rows.
      parts: kinds of columns of each view.
    """

    train: Views
    test: Views
    parts: Mapping[str, Parts]


def load(name: str, seed: int) -> SplitTable:
    """Returns a table whose split into training and test rows depends on the seed."""
    rng = np.random.default_rng(seed)
    views, parts = TABLES[name](rng)
    num_rows = len(next(iter(views.values())))
    order = rng.permutation(num_rows)
    test, train = np.split(order, [int(TEST_SHARE * num_rows)])
    scaled = {view: standardised(x, parts[view], train) for view, x in views.items()}
    train_views, test_views = (
        {view: x[rows] for view, x in scaled.items()} for rows in (train, test)
    )
    return SplitTable(train_views, test_views, parts)


def standardised(
    x: Float[np.ndarray, "n c"], parts: Parts, train: Int[np.ndarray, " t"]
) -> Float[np.ndarray, "n c"]:
    """Returns a view whose normal columns have mean 0 and deviation 1 in the training rows."""
    is_normal = np.repeat([kind == "normal" for kind, _ in parts], [size for _, size in parts])
    loc = np.where(is_normal, x[train].mean(0), 0)
    scale = np.where(is_normal, np.maximum(x[train].std(0), 1e-3), 1)
    return ((x - loc) / scale).astype(np.float32)


def factors(rng: np.random.Generator) -> tuple[Views, dict[str, Parts]]:
    """Returns 2,500 rows of 48 columns of numbers, eight in every view."""
    return cut(factor_table(rng, num_rows=2500))


def mixed(rng: np.random.Generator) -> tuple[Views, dict[str, Parts]]:
    """Returns ``factors`` with a binary column and a class of three values in every view.

    The two replace the last columns of numbers: the sign, and the third of its rows that a number
    is in.
    """
    views, _ = factors(rng)
    found = {}
    for name, x in views.items():
        binary = x[:, -2:-1] > np.median(x[:, -2])
        thirds = np.digitize(x[:, -1], np.quantile(x[:, -1], (1 / 3, 2 / 3)))
        found[name] = np.concatenate([x[:, :-2], binary, np.eye(3)[thirds]], 1)
    return found, dict.fromkeys(found, (("normal", 6), ("bernoulli", 1), ("categorical", 3)))


def tumours(rng: np.random.Generator) -> tuple[Views, dict[str, Parts]]:
    """Returns mean, error and worst value of ten measurements of a tumour, and its diagnosis."""
    del rng
    found: Any = datasets.load_breast_cancer()
    x = found.data
    views = {name: x[:, 10 * i : 10 * (i + 1)] for i, name in enumerate(("mean", "error", "worst"))}
    parts: dict[str, Parts] = dict.fromkeys(views, (("normal", 10),))
    return {**views, "diagnosis": np.eye(2)[found.target]}, {
        **parts,
        "diagnosis": (("categorical", 2),),
    }


def of_scikit_learn(name: str) -> "Maker":
    """Returns the function that cuts a table of scikit-learn, without its constant columns."""

    def make(rng: np.random.Generator) -> tuple[Views, dict[str, Parts]]:
        del rng
        x = getattr(datasets, f"load_{name}")().data
        return cut(x[:, x.std(0) > 0])

    return make


def cut(x: Float[np.ndarray, "n c"]) -> tuple[Views, dict[str, Parts]]:
    """Returns every sixth column as a view: neighbouring measurements are in different views."""
    views = {f"v{m}": x[:, m::NUM_VIEWS] for m in range(NUM_VIEWS)}
    return views, {name: (("normal", view.shape[1]),) for name, view in views.items()}


def factor_table(rng: np.random.Generator, num_rows: int) -> Float[np.ndarray, "n 48"]:
    """Returns rows of 48 columns, whose every sixth column forms a view of four of eight factors.

    A view mixes its factors linearly and through a tanh, with noise of half the signal's scale.
    Each factor shows in three views, and no view has them all.
    """
    factors = rng.normal(size=(num_rows, 8))
    columns = np.empty((num_rows, 8, NUM_VIEWS))
    for view in range(NUM_VIEWS):
        seen = factors[:, (np.arange(4) + 4 * view // 3) % 8]
        signal = seen @ rng.normal(size=(4, 8)) / 2 + np.tanh(seen @ rng.normal(size=(4, 8)))
        columns[:, :, view] = signal + 0.5 * signal.std() * rng.normal(size=signal.shape)
    return columns.reshape(num_rows, -1)


Maker = Callable[[np.random.Generator], tuple[Views, dict[str, Parts]]]
TABLES: dict[str, Maker] = {
    "factors": factors,
    "mixed": mixed,
    "tumours": tumours,
    "diabetes": of_scikit_learn("diabetes"),
    "wine": of_scikit_learn("wine"),
    "breast_cancer": of_scikit_learn("breast_cancer"),
    "digits": of_scikit_learn("digits"),
}
