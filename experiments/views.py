"""Predictions of each view of a table from the best single other view and from all others.

    python -m experiments.views --out runs/views

The program trains an MMVAE on the views of each table, with fixed and with trained scales of the
normal likelihood. It compares both weightings of ``mm.predict`` with linear models from all other
views, on test rows:

- ``r2`` of the numbers of a view: one minus the squared error, relative to that of the mean row,
- ``accuracy`` of its binary columns and its classes.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float, PRNGKeyArray
from sklearn.linear_model import LogisticRegression, RidgeCV

import mmvae_jax as mm
from experiments import runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.rows import Rows
from experiments.view_tables import TABLES, Parts, SplitTable, load
from mmvae_jax.checks import check_choice, check_count, check_positive
from mmvae_jax.inference.weighting import Weighting

METHODS = ("best single", "mixture", "importance", "linear")
#: Fields that identify a row besides table, seed, scale, view, measure and method.
SETTINGS = ("loss", "latent_dim", "K", "initial_scale", "num_steps", "num_particles")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Compare predictions from one view, and from all of the others, on tables of views."""

    tables: tuple[str, ...] = tuple(TABLES)
    """Tables, synthetic or of scikit-learn; experiments/view_tables.py lists them all."""
    scales: tuple[Literal["fixed", "learned"], ...] = ("fixed", "learned")
    """Scales of the normal likelihood: fixed, or trained for each column from the same value on."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the data, the initial parameters and the particles."""
    latent_dim: int = 16
    """Number of latent dimensions."""
    K: int = 10
    """Number of particles drawn from each view's posterior."""
    initial_scale: float = 0.5
    """Scale of the normal likelihood, in standard deviations of a column."""
    loss: str = "adaptive_dreg_looser"
    """Bound and gradient estimator, such as iwae_looser; docs/losses.md lists them all."""
    num_steps: int = 600
    """Number of training steps of 100 rows."""
    num_particles: int = 1000
    """Number of particles per row of importance weighting."""
    out: Path = Path("runs/views")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for table in self.tables:
            check_choice("tables", table, tuple(TABLES))
        for field in ("latent_dim", "K", "num_steps", "num_particles"):
            check_count(field, getattr(self, field))
        check_positive("initial_scale", self.initial_scale)


def main(config: ViewsConfig) -> list[Row]:
    """Computes the rows that ``out`` lacks, prints a table of all, and returns them."""
    rows = Rows(config.out, config)
    settings = {field: getattr(config, field) for field in SETTINGS}
    for name in config.tables:
        for seed in config.seeds:
            table = load(name, seed)
            for scale in config.scales:
                asked = {"table": name, "scale": scale, "seed": seed, **settings}
                if all(
                    rows.has(asked | {"view": view, "method": METHODS[-1]}) for view in table.test
                ):
                    continue
                model = fit(config, table, scale, seed)
                for row in compare(config, model, table, seed):
                    if not rows.has(asked | row):
                        rows.add(asked | row)
    print(summary(rows.all))
    return rows.all


def fit(config: ViewsConfig, table: SplitTable, scale: str, seed: int) -> mm.MMVAE:
    """Returns a trained model of default networks."""
    initial = config.initial_scale
    value = mm.Learned(initial, per_feature=True) if scale == "learned" else initial
    model_config = mm.MMVAEConfig(
        input_dims={name: x.shape[1:] for name, x in table.train.items()},
        decoders_dist={name: likelihood(parts, value) for name, parts in table.parts.items()},
        latent_dim=config.latent_dim,
        K=config.K,
        loss=config.loss,
    )
    model = mm.MMVAE(model_config, rngs=nnx.Rngs(seed))
    state = mm.create_train_state(model, mm.make_optimizer(1e-3), key=jax.random.key(seed))
    arrays = mm.MultimodalArrays(dict(table.train))
    return mm.fit(
        state, arrays, num_steps=config.num_steps, batch_size=100, seed=seed, progress=False
    ).state.model()


def likelihood(parts: Parts, scale: float | mm.Learned) -> mm.MixedLikelihood:
    """Returns the likelihood of a view whose normal columns have the given scale."""
    return mm.MixedLikelihood(
        [(name, size, {"scale": scale} if name == "normal" else {}) for name, size in parts]
    )


def compare(config: ViewsConfig, model: mm.MMVAE, table: SplitTable, seed: int) -> Iterator[Row]:
    """Yields the measures of every view and method."""
    names = list(table.test)
    keys = jax.random.split(jax.random.key(seed), len(names))
    particles = mm.ImportanceWeighting(num_particles=config.num_particles)
    from_one = {n: predict(model, table, [n]) for n in names}
    for target, key in zip(names, keys, strict=True):
        others = [name for name in names if name != target]
        parts, truth = table.parts[target], table.test[target]
        single = [measure(parts, from_one[name][target], truth) for name in others]
        predicted = {
            "mixture": predict(model, table, others)[target],
            "importance": predict(model, table, others, particles, key)[target],
            "linear": linear(table, others, target),
        }
        scores = {name: measure(parts, x, truth) for name, x in predicted.items()}
        scores["best single"] = {k: max(found[k] for found in single) for k in single[0]}
        for method in METHODS:
            for name, score in scores[method].items():
                yield {"view": target, "measure": name, "method": method, "score": score}


def predict(
    model: mm.MMVAE,
    table: SplitTable,
    given: Sequence[str],
    weighting: Weighting = "mixture",
    key: PRNGKeyArray | None = None,
) -> dict[str, Float[np.ndarray, "n c"]]:
    """Returns all views, decoded from the mean latent of the test rows' given views.

    A mask hides the other views, so that all choices of views share one compiled program.
    """
    num_rows = len(table.test[given[0]])
    mask = {name: np.full(num_rows, name in given) for name in table.test}
    batch = mm.Batch(dict(table.test), mask)
    decoded = mm.predict(model, batch, key, return_mean=True, weighting=weighting)
    return {name: np.asarray(x[:, 0]) for name, x in decoded.items()}


def linear(table: SplitTable, others: Sequence[str], target: str) -> Float[np.ndarray, "n c"]:
    """Returns predictions of a view from all others, by ridge and logistic regression."""
    x, x_test = (np.concatenate([rows[n] for n in others], 1) for rows in (table.train, table.test))
    predicted = []
    for kind, y in columns(table.parts[target], table.train[target]):
        if kind == "normal":
            predicted.append(RidgeCV(np.logspace(-2, 4, 13)).fit(x, y).predict(x_test))
        else:
            labels = y.argmax(1) if kind == "categorical" else y[:, 0]
            found = LogisticRegression(max_iter=1000).fit(x, labels).decision_function(x_test)
            is_pair = found.ndim == 1 and kind == "categorical"
            predicted.append(np.stack([-found, found], 1) if is_pair else found)
    return np.concatenate([p.reshape(len(x_test), -1) for p in predicted], 1)


def measure(
    parts: Parts, predicted: Float[np.ndarray, "n c"], truth: Float[np.ndarray, "n c"]
) -> dict[str, float]:
    """Returns R2 of the numbers of a view, and the mean accuracy of its other columns.

    Predictions are those of ``mm.decode``: logits of binary columns and classes.
    """
    found: dict[str, float] = {}
    correct = []
    pairs = zip(columns(parts, predicted), columns(parts, truth), strict=True)
    for (kind, guess), (_, y) in pairs:
        if kind == "normal":
            found["r2"] = r2(guess, y)
        elif kind == "bernoulli":
            correct.append(np.mean((guess > 0) == (y > 0)))
        else:
            correct.append(np.mean(guess.argmax(1) == y.argmax(1)))
    return {**found, "accuracy": float(np.mean(correct))} if correct else found


def columns(
    parts: Parts, x: Float[np.ndarray, "n c"]
) -> Iterator[tuple[str, Float[np.ndarray, "n _"]]]:
    """Yields the likelihood and the columns of each part of a view."""
    ends = np.cumsum([size for _, size in parts])
    for (kind, _), columns in zip(parts, np.split(x, ends[:-1], axis=1), strict=True):
        yield kind, columns


def r2(predicted: Float[np.ndarray, "n c"], truth: Float[np.ndarray, "n c"]) -> float:
    """Returns one minus the squared error of all columns, relative to that of their means."""
    return float(1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())


def summary(rows: Sequence[Row]) -> str:
    """Returns the mean of every method over views and seeds, by table, measure and scale.

    The last column is the share of views and seeds with importance ahead of the mixture.
    """
    cells: list[tuple[str, ...]] = [
        ("table", "measure", "scale", *METHODS, "importance ahead"),
    ]
    kinds = dict.fromkeys((row["table"], row["measure"], row["scale"]) for row in rows)
    for kind in kinds:
        own = [row for row in rows if (row["table"], row["measure"], row["scale"]) == kind]
        scores = [np.array([r["score"] for r in own if r["method"] == m]) for m in METHODS]
        ahead = np.mean(scores[2] > scores[1])
        cells.append((*kind, *(f"{x.mean():.3f}" for x in scores), f"{ahead:.2f}"))
    return align(cells)


if __name__ == "__main__":
    run_command(runs.process()(main), ViewsConfig, "experiments.views")
