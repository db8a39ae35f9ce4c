"""Test bounds of several losses with equal budgets, on data that make posteriors narrow.

    python -m experiments.stability --data-dir FOLDER --out runs/stability

PolyMNIST is made from MNIST on the way. Every run trains from the same start with the same data,
and is measured by the looser bound of the same test examples and particles.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from flax import nnx
from sklearn.datasets import load_breast_cancer

import mmvae_jax as mm
from experiments import make_polymnist
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.digits import DigitsConfig
from experiments.experiment import Experiment, ExperimentData, Modules
from experiments.mnist_pairs import MNISTPairsConfig
from experiments.polymnist import PolyMNISTConfig
from experiments.results.markdown import mean_and_spread
from experiments.rows import Rows
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data import num_examples, take
from mmvae_jax.maths.losses import LOSSES

_VIEWS = ("mean", "error", "worst")
LOSSES_COMPARED = (
    "dreg_looser",
    "stl_looser",
    "iwae_looser",
    "mixture_dreg_looser",
    "adaptive_dreg_looser",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TumoursConfig(Experiment):
    """Three views of ten standardised measurements of a tumour, and its diagnosis."""

    name: ClassVar[str] = "tumours"
    num_classes: ClassVar[int] = 2

    latent_dim: int = 16
    K: int = 10
    amsgrad: bool = False
    batch_size: int = 100
    num_epochs: int | None = None
    num_steps: int | None = 300

    def load(self) -> ExperimentData:
        """Returns scikit-learn's tumours; every fourth is a test example."""
        found: Any = load_breast_cancer()
        is_test = np.arange(len(found.target)) % 4 == 0
        x = found.data - found.data[~is_test].mean(0)
        x = (x / x[~is_test].std(0)).astype(np.float32)
        views = {name: x[:, 10 * i : 10 * (i + 1)] for i, name in enumerate(_VIEWS)}
        both = MultimodalArrays({**views, "diagnosis": np.eye(2, dtype=np.float32)[found.target]})
        train, test = take(both, np.flatnonzero(~is_test)), take(both, np.flatnonzero(is_test))
        return ExperimentData(train, test, train)

    def model_config(self) -> mm.MMVAEConfig:
        """Returns a config with Laplace views of scale 0.5."""
        return mm.MMVAEConfig(
            input_dims={**dict.fromkeys(_VIEWS, (10,)), "diagnosis": (2,)},
            decoders_dist={**dict.fromkeys(_VIEWS, "laplace"), "diagnosis": "categorical"},
            decoder_dist_params={name: {"scale": 0.5} for name in _VIEWS},
            **self.model_settings(),
        )

    def make_networks(self, rngs: nnx.Rngs) -> tuple[Modules, Modules]:
        """Returns no networks: the model's own MLPs."""
        del rngs
        return {}, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """Train with several losses and compare test bounds and the course of training."""

    losses: tuple[str, ...] = LOSSES_COMPARED
    """Losses to compare."""
    data: tuple[str, ...] = ("tumours", "polymnist-0.2", "polymnist-0.75", "digits", "mnist_pairs")
    """Data sets; polymnist with the scale of its Laplace likelihood."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs with each loss."""
    num_steps: int | None = None
    """Number of training steps; None is the number of each data set."""
    num_test: int = 1000
    """Largest number of test examples."""
    data_dir: Path | None = None
    """Folder of MNIST; None is $MMVAE_DATA, or a download."""
    out: Path = Path("runs/stability")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        if self.num_steps is not None:
            check_count("num_steps", self.num_steps)
        if unknown := set(self.losses) - set(LOSSES):
            raise ValueError(f"losses has {sorted(unknown)}: choose some of {list(LOSSES)}")
        for name in self.data:
            self.experiment(name)

    def experiment(self, name: str) -> Experiment:
        """Returns the settings of a data set."""
        kind, _, scale = name.partition("-")
        if kind == "polymnist" and scale:
            return PolyMNISTConfig(
                scale=float(scale),
                networks="mlp",
                latent_dim=16,
                K=3,
                amsgrad=False,
                batch_size=32,
                num_epochs=None,
                num_steps=400,
                data_dir=self.out,
                learn_prior=True,
            )
        others = {
            "tumours": TumoursConfig(),
            "digits": DigitsConfig(),
            "mnist_pairs": MNISTPairsConfig(data_dir=self.data_dir),
        }
        if name not in others:
            known = [*others, "polymnist-SCALE"]
            raise ValueError(f"data has {name!r}: choose some of {known}")
        return others[name]


def main(config: StabilityConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table of all, and returns them."""
    rows = Rows(config.out, config)
    if any("polymnist" in name for name in config.data):
        make_polymnist.make_part(config.out, config.data_dir)
    for name in config.data:
        for seed in config.seeds:
            for loss in config.losses:
                asked = {"data": name, "loss": loss, "seed": seed}
                if rows.has(asked):
                    continue
                experiment = dataclasses.replace(config.experiment(name), loss=loss, seed=seed)
                rows.add({**asked, **run(experiment, config.num_steps, config.num_test)})
    print(table(rows.all))
    return rows.all


def run(experiment: Experiment, num_steps: int | None, num_test: int) -> dict[str, Any]:
    """Trains once, and returns the test bound and the course of the training loss."""
    found = experiment.load()
    steps = num_steps or experiment.steps_on(found.train)
    init_key, train_key, test_key = jax.random.split(jax.random.key(experiment.seed), 3)
    state = experiment.init_state(init_key, train_key, steps)
    losses: list[float] = []
    start = time.perf_counter()
    result = mm.fit(
        state,
        found.train,
        num_steps=steps,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        callbacks=[lambda step, metrics, state: losses.append(metrics["loss"])],
        log_every=min(25, steps),
        progress=False,
    )
    seconds = time.perf_counter() - start
    test = take(found.test, np.arange(min(num_test, num_examples(found.test))))
    measured = mm.evaluate(result.state.replace(key=test_key), test, batch_size=100)
    return {
        "num_steps": steps,
        "test_bound": -measured["loss"],
        "first_loss": losses[0],
        "largest_loss": max(losses),
        "last_loss": losses[-1],
        "min_scale": measured["min_scale"],
        "seconds": round(seconds, 1),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the mean and standard deviation of the test bound over seeds."""
    names = list(dict.fromkeys(row["data"] for row in rows))
    cells = [("loss", *names)]
    for loss in dict.fromkeys(row["loss"] for row in rows):
        line = [loss]
        for name in names:
            own = [r["test_bound"] for r in rows if (r["data"], r["loss"]) == (name, loss)]
            line.append(mean_and_spread(own, 1))
        cells.append(tuple(line))
    return align(cells)


if __name__ == "__main__":
    run_command(main, StabilityConfig, "experiments.stability")
