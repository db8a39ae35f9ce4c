"""Tables of the study of tables: classes and views, in folds."""

from collections.abc import Mapping

import numpy as np

from experiments.omics.__main__ import summary
from experiments.results.markdown import table as markdown
from experiments.results.records import Record, Row

#: Titles of methods and uses, in the order of the rows.
TITLES = {
    ("mean", ""): "mean",
    ("neighbours", ""): "neighbours",
    ("linear", ""): "linear",
    ("low rank", ""): "low rank",
    ("averaged", ""): "averaged",
    ("mmvae", "mixture"): "MMVAE, `mixture`",
    ("mmvae", "importance"): "MMVAE, `importance`",
    ("mmvae", "latents"): "MMVAE, latents",
    ("multivae", "mixture"): "MultiVae, mean of the experts",
    ("multivae", "latents"): "MultiVae, latents",
    ("linear", "one view"): "linear, one other view",
    ("mmvae", "one view"): "MMVAE, one other view",
}
#: Titles of settings of the MMVAE by the method of their rows.
SETTINGS = {
    "linear": "linear",
    "laplace": "Laplace posteriors",
    "mmvae": "normal posteriors",
    "laplace 32": "Laplace, 32 latents",
    "laplace beta 0.3": "Laplace, `beta=0.3`",
    "laplace tight": "Laplace, tight bound",
}
NAMES = {"tumours": "breast cancer table", "brca": "omics", "digits": "digits"}
ACCURACIES = ("accuracy", "balanced accuracy")
MISSING = 0.3


def folds(record: Record, table: str) -> str:
    """Returns mean and standard deviation over folds of every method's scores on one table."""
    found = {
        (row["method"], row["use"]): _with_pairs_averaged(row)
        for row in _groups(record, "folds", MISSING)
        if row["table"] == table
    }
    shown = [key for key in TITLES if key in found]
    views = [name for name in found[shown[0]]["mean"] if name not in ACCURACIES]
    best = {
        score: (max if score in ACCURACIES else min)(
            found[key]["mean"][score] for key in shown if score in found[key]["mean"]
        )
        for score in (*ACCURACIES, *views)
    }
    rows = [(TITLES[key], *(_cell(found[key], x, best[x]) for x in best)) for key in shown]
    return markdown(("method", *ACCURACIES, *(f"error of {name}" for name in views)), rows)


def held_out(record: Record) -> str:
    """Returns the scores on the rows that no choice of a setting has seen, by data set."""
    chosen = {
        **{("linear", ""): "linear", ("averaged", ""): "averaged"},
        ("laplace", "mixture"): "MMVAE with Laplace posteriors, `mixture`",
        ("mmvae", "mixture"): "MMVAE (normal posteriors), `mixture`",
        ("laplace", "importance"): "MMVAE with Laplace posteriors, `importance`",
        ("mmvae", "importance"): "MMVAE (normal posteriors), `importance`",
    }
    return _by_data(_groups(record, "held_out", MISSING), chosen)


def complete(record: Record) -> str:
    """Returns the scores with complete training rows."""
    chosen = {
        **{("linear", ""): "linear", ("averaged", ""): "averaged"},
        ("mmvae", "mixture"): "MMVAE, `mixture`",
        ("mmvae", "importance"): "MMVAE, `importance`",
    }
    return _by_data(_groups(record, "folds", 0.0), chosen)


def tuning(record: Record) -> str:
    """Returns the scores of settings of the MMVAE in the tuning folds, given all other views."""
    chosen = {
        (method, use): f"{title}, `{use}`" if use else title
        for use in ("", "mixture", "importance")
        for method, title in SETTINGS.items()
    }
    return _by_data(_groups(record, "tune", MISSING), chosen)


def accuracy(record: Record, method: str) -> str:
    """Returns the mean accuracy of a method's first use on the breast cancer table."""
    rows = [row for row in _groups(record, "folds", MISSING) if row["table"] == "tumours"]
    return f"{next(row for row in rows if row['method'] == method)['mean']['accuracy']:.3f}"


def _groups(record: Record, part: str, missing: float) -> list[Row]:
    """Returns means and deviations over folds of the rows of a part."""
    return summary([row for row in record.rows if (row["part"], row["missing"]) == (part, missing)])


def _by_data(groups: list[Row], titles: Mapping[tuple[str, str], str]) -> str:
    """Returns accuracies, and the mean error over views, by data set and method."""
    rows = []
    for table, name in NAMES.items():
        own = {(row["method"], row["use"]): row for row in groups if row["table"] == table}
        for key, title in titles.items():
            if key in own:
                scores = own[key]["mean"]
                errors = [x for score, x in scores.items() if score not in ACCURACIES]
                cells = (*(scores[score] for score in ACCURACIES), float(np.mean(errors)))
                folds = str(own[key]["folds"])
                rows.append((name, title, folds, *(f"{x:.3f}" for x in cells)))
    return markdown(("data", "method", "folds", *ACCURACIES, "mean error of the views"), rows)


def _with_pairs_averaged(row: Row) -> Row:
    """Returns a row whose errors "a from b" are averaged over the given view b."""
    if row["use"] != "one view":
        return row
    averaged = {}
    for moment in ("mean", "std"):
        by_view: dict[str, list[float]] = {}
        for pair, value in row[moment].items():
            by_view.setdefault(pair.split(" from ")[0], []).append(value)
        averaged[moment] = {view: float(np.mean(values)) for view, values in by_view.items()}
    return row | averaged


def _cell(row: Row, score: str, best: float) -> str:
    """Returns a mean, bold if it is the best, and a standard deviation in brackets."""
    if score not in row["mean"]:
        return "-"
    mean = f"{row['mean'][score]:.3f}"
    return f"{f'**{mean}**' if row['mean'][score] == best else mean} ({row['std'][score]:.3f})"
