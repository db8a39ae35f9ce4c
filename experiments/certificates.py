"""Joint likelihoods of the same test examples by several estimates, with their diagnostics.

    python -m experiments.certificates --out runs/certificates
    python -m experiments.certificates --run FOLDER --data-dir FOLDER --out runs/certificates

- *importance*: importance sampling from the experts and a share of the prior, by K.
- *annealing*: annealed importance sampling from the prior, by the number of temperatures.
- *both sides*: bounds of -log p(X) from below and above on as many examples that the model draws.
  The gap says how exact *annealing* is with the same number of temperatures.

The models are those of ``python -m experiments.digits`` and of the table ``factors`` of
``python -m experiments.views``. ``--run`` takes the folder of any finished experiment instead.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float

import mmvae_jax as mm
from experiments import runs, view_tables, views
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.digits import DigitsConfig
from experiments.finished_runs import experiment_of, load_model
from experiments.rows import Rows
from mmvae_jax.checks import check_count
from mmvae_jax.data import take
from mmvae_jax.maths.pareto import largest_reliable_k

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificatesConfig:
    """Compare estimates of log p(X) on a few test examples of trained models."""

    models: tuple[Literal["factors", "digits"], ...] = ("factors", "digits")
    """Models to train and measure, unless run is given."""
    run: Path | None = None
    """Folder of a finished run of an experiment, measured instead of models."""
    num_examples: int = 8
    """Number of test examples, the first ones, and of drawn examples."""
    particles: tuple[int, ...] = (1000, 10_000)
    """Numbers of particles of importance sampling."""
    temperatures: tuple[int, ...] = (50, 200, 800)
    """Numbers of temperatures of annealing."""
    bounded: tuple[int, ...] = (50, 200)
    """Numbers of temperatures of the bounds from both sides."""
    num_chains: int = 16
    """Number of chains of annealing per example."""
    num_leapfrog: int = 5
    """Number of leapfrog steps of each transition."""
    num_steps: int | None = None
    """Number of training steps; None is the default of each model."""
    seed: int = 0
    """Seed of models and estimates."""
    data_dir: Path | None = None
    """Folder of the data sets of a run; None is $MMVAE_DATA, or a download."""
    out: Path = Path("runs/certificates")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        for field in ("num_examples", "num_chains", "num_leapfrog"):
            check_count(field, getattr(self, field))
        if self.num_steps is not None:
            check_count("num_steps", self.num_steps)
        for field in ("particles", "temperatures", "bounded"):
            for count in getattr(self, field):
                check_count(field, count)

    def names(self) -> tuple[str, ...]:
        """Returns the names of the models, or that of the run's experiment and folder."""
        if self.run is None:
            return self.models
        return (f"{experiment_of(self.run, self.data_dir).name}, {self.run.name}",)

    def identity(self, model: str) -> Row:
        """Returns the fields that rows of a model have in common."""
        chains = {field: getattr(self, field) for field in ("num_chains", "num_leapfrog")}
        return {"model": model, "seed": self.seed, "num_examples": self.num_examples, **chains}


def main(config: CertificatesConfig) -> list[Row]:
    """Computes the rows that ``out`` lacks, prints a table of all, and returns them.

    Raises:
      ValueError: if ``run`` is not the folder of a finished run.
      FileNotFoundError: if the data of a run are missing.
    """
    rows = Rows(config.out, config)
    for name in config.names():
        asked = config.identity(name)
        lacking = [e for e in estimates(config) if not rows.has({**asked, **e})]
        if lacking:
            model, test = trained(name, config)
            batch = mm.Batch(take(test, np.arange(config.num_examples)).data)
            for estimate in lacking:
                rows.add({**asked, **estimate, **measure(model, batch, estimate, config)})
    print(table(rows.all))
    return rows.all


def estimates(config: CertificatesConfig) -> list[Row]:
    """Returns the estimates to compute: a method, and its number of particles or temperatures."""
    sizes = {
        "importance": config.particles,
        "annealing": config.temperatures,
        "both sides": config.bounded,
    }
    return [{"method": name, "size": size} for name, counts in sizes.items() for size in counts]


def trained(name: str, config: CertificatesConfig) -> tuple[mm.MMVAE, mm.MultimodalArrays]:
    """Returns a trained model and its test examples."""
    if config.run is not None:
        experiment = experiment_of(config.run, config.data_dir)
        return load_model(config.run, experiment), experiment.load().test
    if name == "factors":
        data = view_tables.load(name, config.seed)
        settings = views.ViewsConfig()
        if config.num_steps is not None:
            settings = dataclasses.replace(settings, num_steps=config.num_steps)
        model = views.fit(settings, data, "fixed", config.seed)
        return model, mm.MultimodalArrays(dict(data.test))
    experiment = DigitsConfig(seed=config.seed)
    found = experiment.load()
    num_steps = config.num_steps or experiment.steps_on(found.train)
    init_key, train_key = jax.random.split(jax.random.key(config.seed), 4)[:2]
    state = mm.fit(
        experiment.init_state(init_key, train_key, num_steps),
        found.train,
        batch_size=experiment.batch_size,
        num_steps=num_steps,
        seed=config.seed,
        progress=False,
    ).state
    return state.model(), found.test


def measure(model: mm.MMVAE, batch: mm.Batch, estimate: Row, config: CertificatesConfig) -> Row:
    """Returns means over examples of an estimate of -log p(X) in nats, and its diagnostics.

    Seconds include compilation.
    """
    start = time.perf_counter()
    found = ESTIMATES[estimate["method"]](model, batch, estimate["size"], config)
    return {**found, "seconds": time.perf_counter() - start}


def importance(model: mm.MMVAE, batch: mm.Batch, K: int, config: CertificatesConfig) -> Row:
    """Returns importance sampling's estimate, effective number of particles and Pareto k-hat.

    k-hat is the median over examples, None if it is infinite.
    """
    key = jax.random.key(config.seed)
    nll, found = mm.compute_joint_nll(model, batch, key, K=K, return_diagnostics=True)
    shape = np.asarray(found.pareto_k)
    median = float(np.median(shape))
    return {
        "nll": mean(nll),
        "ess": mean(found.ess),
        "pareto_k": median if np.isfinite(median) else None,
        "unreliable": float(np.mean(~(shape <= largest_reliable_k(K)))),
    }


def annealing(model: mm.MMVAE, batch: mm.Batch, size: int, config: CertificatesConfig) -> Row:
    """Returns annealing's estimate, effective number of chains and acceptance."""
    key = jax.random.key(config.seed)
    nll, found = mm.compute_joint_nll_ais(
        model, batch, key, return_diagnostics=True, **path(size, config)
    )
    return {"nll": mean(nll), "ess": mean(found.ess), "acceptance": mean(found.acceptance)}


def both_sides(model: mm.MMVAE, batch: mm.Batch, size: int, config: CertificatesConfig) -> Row:
    """Returns bounds on simulated examples, their mean gap and the largest one."""
    del batch
    key = jax.random.key(config.seed)
    bounds = mm.bound_joint_nll_ais(model, config.num_examples, key, **path(size, config))
    gap = bounds.upper - bounds.lower
    return {
        "lower": mean(bounds.lower),
        "upper": mean(bounds.upper),
        "gap": mean(gap),
        "largest_gap": float(gap.max()),
    }


ESTIMATES = {"importance": importance, "annealing": annealing, "both sides": both_sides}


def path(num_temperatures: int, config: CertificatesConfig) -> dict[str, Any]:
    """Returns the settings of annealing."""
    return {
        "num_temperatures": num_temperatures,
        "num_chains": config.num_chains,
        "num_leapfrog": config.num_leapfrog,
    }


def mean(values: Float[Array, " b"]) -> float:
    """Returns the mean over examples."""
    return float(values.mean())


def table(rows: Sequence[Row]) -> str:
    """Returns all rows, with the values that each method has."""
    names = ("nll", "gap", "ess", "pareto_k", "unreliable", "acceptance", "seconds")
    cells: list[tuple[str, ...]] = [("model", "method", "size", *names)]
    for row in rows:
        values = ("-" if row.get(name) is None else f"{row[name]:.2f}" for name in names)
        cells.append((row["model"], row["method"], str(row["size"]), *values))
    return align(cells)


if __name__ == "__main__":
    run_command(runs.process()(main), CertificatesConfig, "experiments.certificates")
