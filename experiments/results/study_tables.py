"""Tables of the study of tables: classes and views, in folds."""

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
}
ACCURACIES = ("accuracy", "balanced accuracy")


def folds(record: Record, table: str) -> str:
    """Returns mean and standard deviation over folds of every method's scores on one table."""
    found = {
        (row["method"], row["use"]): row for row in summary(record.rows) if row["table"] == table
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
    return markdown(("method", *ACCURACIES, *(f"error of `{name}`" for name in views)), rows)


def accuracy(record: Record, method: str) -> str:
    """Returns the mean accuracy of a method's first use on the breast cancer table."""
    rows = [row for row in record.rows if row["table"] == "tumours" and row["method"] == method]
    return f"{summary(rows)[0]['mean']['accuracy']:.3f}"


def _cell(row: Row, score: str, best: float) -> str:
    """Returns a mean, bold if it is the best, and a standard deviation in brackets."""
    if score not in row["mean"]:
        return "-"
    mean = f"{row['mean'][score]:.3f}"
    return f"{f'**{mean}**' if row['mean'][score] == best else mean} ({row['std'][score]:.3f})"
