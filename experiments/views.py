"""Predictions of each view of a table from the best single other view and from all others.

    python -m experiments.views --help

The program trains an MMVAE on six views. It compares both weightings of ``mm.predict`` with ridge
regression by R2: one minus the squared error on test rows, relative to that of the mean row.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx
from sklearn import datasets
from sklearn.linear_model import RidgeCV

import mmvae_jax as mm
from experiments import runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from mmvae_jax.checks import check_count, check_positive

NUM_VIEWS = 6
TEST_SHARE = 0.2
COLUMNS = ("best single", "mixture", "importance", "ridge")

Views = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Compare predictions from one view, and from all of the others, on a table of six views."""

    table: Literal["factors", "diabetes", "wine", "breast_cancer", "digits"] = "factors"
    """Shared factors (see factor_table), or a table of scikit-learn, cut into six views."""
    latent_dim: int = 16
    """Number of latent dimensions."""
    K: int = 10
    """Number of particles drawn from each modality's posterior."""
    scale: float = 0.5
    """Scale of the normal likelihood, in standard deviations of a column."""
    loss: str = "adaptive_dreg_looser"
    """Bound and gradient estimator, such as iwae_looser; docs/losses.md lists them all."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    num_steps: int = 600
    """Number of training steps of 100 rows."""
    num_particles: int = 1000
    """Number of particles per row of importance weighting."""
    seed: int = 0
    """Seed of the data, the initial parameters and the particles."""
    out: Path = Path("runs/views")
    """Folder of the results, new or empty."""

    def __post_init__(self) -> None:
        for field in ("latent_dim", "K", "num_steps", "num_particles"):
            check_count(field, getattr(self, field))
        check_positive("scale", self.scale)
        check_positive("learning_rate", self.learning_rate)


def main(config: ViewsConfig) -> dict[str, Any]:
    """Trains the model, writes ``views.json`` to ``out`` and prints its table.

    Raises:
      ValueError: if ``out`` is not a new or empty folder; raised before anything is computed.
    """
    runs.check_new_folder(config.out)
    seconds: dict[str, float] = {}
    train, test = load(config.table, config.seed)
    with runs.timed(seconds, "train"):
        model = fit(config, train)
    with runs.timed(seconds, "predict"):
        scores = {target: compare(config, model, train, test, target) for target in test}
    settings = {**dataclasses.asdict(config), "out": str(config.out)}
    results = {"r2": scores, "config": settings, **runs.provenance(), "seconds": seconds}
    config.out.mkdir(parents=True, exist_ok=True)
    runs.write_json(config.out / "views.json", results)
    mean = {name: np.mean([row[name] for row in scores.values()]) for name in COLUMNS}
    rows = {**scores, "mean": mean}.items()
    cells = [(target, *(f"{row[name]:.3f}" for name in COLUMNS)) for target, row in rows]
    print(align([("view", *COLUMNS), *cells]))
    return results


def load(table: str, seed: int) -> tuple[Views, Views]:
    """Returns training and test rows of six views, standardised by the training rows."""
    rng = np.random.default_rng(seed)
    if table == "factors":
        x = factor_table(rng, num_rows=2500)
    else:
        x = getattr(datasets, f"load_{table}")().data
        x = rng.permutation(x[:, x.std(0) > 0])
    num_test = int(TEST_SHARE * len(x))
    train, test = x[num_test:], x[:num_test]
    loc, scale = train.mean(0), np.maximum(train.std(0), 1e-3)
    return cut((train - loc) / scale), cut((test - loc) / scale)


def cut(x: np.ndarray) -> Views:
    """Returns every sixth column as a view: neighbouring measurements are in different views."""
    return {f"v{m}": x[:, m::NUM_VIEWS].astype(np.float32) for m in range(NUM_VIEWS)}


def factor_table(rng: np.random.Generator, num_rows: int) -> np.ndarray:
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


def fit(config: ViewsConfig, train: Views) -> mm.MMVAE:
    """Returns a trained model of normal likelihoods and default networks."""
    model_config = mm.MMVAEConfig(
        input_dims={name: x.shape[1:] for name, x in train.items()},
        decoder_dist_params={name: {"scale": config.scale} for name in train},
        latent_dim=config.latent_dim,
        K=config.K,
        loss=config.loss,
    )
    model = mm.MMVAE(model_config, rngs=nnx.Rngs(config.seed))
    key = jax.random.key(config.seed)
    state = mm.create_train_state(model, optax.adam(config.learning_rate), key=key)
    arrays = mm.MultimodalArrays(train)
    return mm.fit(
        state, arrays, num_steps=config.num_steps, batch_size=100, seed=config.seed
    ).state.model()


def compare(
    config: ViewsConfig, model: mm.MMVAE, train: Views, test: Views, target: str
) -> Mapping[str, float]:
    """Returns the R2 of every column of the printed table for one view."""
    others = [name for name in test if name != target]
    key = jax.random.key(config.seed)

    def score(cond_mod: str | list[str], weighting: str | mm.ImportanceWeighting) -> float:
        predicted = mm.predict(
            model,
            mm.Batch(test),
            jax.random.clone(key),
            cond_mod=cond_mod,
            gen_mod=target,
            return_mean=True,
            weighting=weighting,
        )
        return r2(np.asarray(predicted[target][:, 0]), test[target])

    ridge = RidgeCV(np.logspace(-2, 4, 13))
    ridge.fit(*(np.concatenate([train[name] for name in names], 1) for names in (others, [target])))
    particles = mm.ImportanceWeighting(num_particles=config.num_particles)
    return {
        "best single": max(score(name, "mixture") for name in others),
        "mixture": score(others, "mixture"),
        "importance": score(others, particles),
        "ridge": r2(
            ridge.predict(np.concatenate([test[name] for name in others], 1)), test[target]
        ),
    }


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Returns one minus the squared error of all columns, relative to that of their means."""
    predicted = predicted.reshape(truth.shape)  # ridge drops the axis of a single column
    return float(1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())


if __name__ == "__main__":
    run_command(main, ViewsConfig, "experiments.views")
