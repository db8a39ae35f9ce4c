"""Tables of losses, gradient noise and initial parameters."""

from collections.abc import Sequence

import numpy as np

from experiments.estimator_noise import PARAMETERS
from experiments.results.markdown import mean_and_spread, significant, table
from experiments.results.records import Record, Row

#: Titles and decimals of the metrics of ``losses``.
METRICS = {
    "test_bound": ("bound, nats", 1),
    "log_likelihood/joint/mean": ("log p(X), nats", 1),
    "conditional_coherence": ("conditional coherence", 3),
    "joint_coherence": ("joint coherence", 3),
    "latent_probe": ("latent probe", 3),
    "encoder_gradient/signal_to_noise": ("signal to noise", 2),
}
#: Scales of the table of gradient noise; the figure has more.
SCALES_SHOWN = (0.001, 0.01, 0.1, 0.3, 1.0)
INITIALISATIONS = {
    "flax": "Flax",
    "pytorch": "PyTorch",
    "mmvae_jax": "`mmvae_jax`",
    "small_output_biases": "those of tables, for images",
    "flax_biases": "Flax with biases of hidden layers",
}
DATA = {
    "views": "views",
    "quadrants": "quadrants",
    "tumours": "tumours",
    "digits": "PolyDigits",
    "mnist_pairs": "MNIST pairs",
    "digits-conv": "PolyDigits, convolutions",
}


def estimator_noise(record: Record) -> str:
    """Returns the standard deviation of every estimator's gradient by posterior scale."""
    names = list(dict.fromkeys(row["estimator"] for row in record.rows))
    rows = []
    for scale in SCALES_SHOWN:
        own = {row["estimator"]: row for row in record.rows if row["scale"] == scale}
        for parameter in PARAMETERS:
            quieter = min(own[name][parameter] for name in ("reparam", "mixture_dreg"))
            rows.append(
                (
                    f"{scale:g}" if parameter == PARAMETERS[0] else "",
                    parameter,
                    *(significant(own[name][parameter], 2) for name in names),
                    f"{own['adaptive_dreg'][parameter] / quieter:.2f}",
                )
            )
    return table(("scale", "parameter", *names, "adaptive / quieter"), rows)


def losses(record: Record, experiment: str) -> str:
    """Returns mean and spread over seeds of every loss in one experiment."""
    own = [row for row in record.rows if row["experiment"] == experiment]
    header = ("loss", "seeds", *(title for title, _ in METRICS.values()))
    rows = []
    for loss in dict.fromkeys(row["config"]["loss"] for row in own):
        runs = [row for row in own if row["config"]["loss"] == loss]
        cells = (
            mean_and_spread([run[path] for run in runs if path in run], decimals)
            for path, (_, decimals) in METRICS.items()
        )
        rows.append((f"`{loss}`", str(len(runs)), *cells))
    return table(header, rows)


def stability(record: Record) -> str:
    """Returns the test bounds of the runs that trained, and the number of those that diverged."""
    names = list(dict.fromkeys(row["data"] for row in record.rows))
    titles = [name.replace("-", ", scale ").replace("polymnist", "PolyMNIST") for name in names]
    rows = []
    for loss in dict.fromkeys(row["loss"] for row in record.rows):
        cells = [
            _stability([r for r in record.rows if (r["data"], r["loss"]) == (name, loss)])
            for name in names
        ]
        rows.append((f"`{loss}`", *cells))
    return table(("loss", *titles), rows)


def diverged(row: Row) -> bool:
    """Returns if the training loss of a run ended above its start."""
    return not row["last_loss"] < row["first_loss"]


def _stability(rows: Sequence[Row]) -> str:
    good = [row["test_bound"] for row in rows if not diverged(row)]
    lost = len(rows) - len(good)
    text = mean_and_spread(good, 1 if good and abs(np.mean(good)) < 100 else 0)
    return f"({lost} of {len(rows)}) {text}".strip() if lost else text


def initialisation(record: Record) -> str:
    """Returns the tight bound at the end, by rule and data."""
    names = [name for name in DATA if any(row["data"] == name for row in record.rows)]
    rows = []
    for rule, title in INITIALISATIONS.items():
        cells = []
        for name in names:
            ends = [r["end"] for r in record.rows if (r["data"], r["rule"]) == (name, rule)]
            cells.append(mean_and_spread(ends, 1 if ends and abs(np.mean(ends)) < 1000 else 0))
        rows.append((title, *cells))
    return table(("initial parameters", *(DATA[name] for name in names)), rows)
