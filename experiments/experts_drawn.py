"""Test bounds of training with all experts and with a few drawn ones, in equal seconds.

    python -m experiments.experts_drawn --data-dir FOLDER --out runs/experts_drawn

PolyMNIST is made from MNIST on the way. Runs of one seed start from the same parameters and see the
same batches. Seconds are CPU time of the process in training steps, without compilation and
measurements. All runs take turns of a few seconds, so that other work on the machine, which shares
caches and memory, slows all of them alike. XLA has a single thread unless XLA_FLAGS is set.
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

import mmvae_jax as mm
from experiments import make_polymnist, runs
from experiments.benchmark.report import align
from experiments.command_line import run_command
from experiments.experiment import is_count
from experiments.polymnist import NETWORKS, PolyMNISTConfig
from experiments.rows import Rows
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_choice, check_count, check_positive
from mmvae_jax.data import Splits, batches, take
from mmvae_jax.data.datasets.polymnist import NUM_MODALITIES
from mmvae_jax.training.optimizer import make_optimizer

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
#: Fields that identify a row besides the run and its time.
SETTINGS = ("networks", "latent_dim", "K", "scale", "batch_size")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsDrawnConfig:
    """Train with several numbers of experts per step for equal seconds, and compare bounds."""

    experts: tuple[int, ...] = (5, 2, 1)
    """Numbers of experts per step, of five."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the runs with each number of experts."""
    seconds: float = 240.0
    """CPU seconds of training steps of each run."""
    num_turns: int = 16
    """Number of turns of each run; the test bound is measured after each of them."""
    networks: Literal["mlp", "conv", "resnet"] = "mlp"
    """Kind of networks, see experiments.polymnist."""
    latent_dim: int = 32
    """Number of latent dimensions."""
    K: int = 10
    """Number of particles drawn from each modality's posterior."""
    scale: float = 0.75
    """Scale of the Laplace likelihood."""
    batch_size: int = 32
    """Number of examples per training step."""
    num_test: int = 128
    """Number of test examples."""
    data_dir: Path | None = None
    """Folder of MNIST; None is $MMVAE_DATA, or a download."""
    out: Path = Path("runs/experts_drawn")
    """Folder of the results, new or of an earlier call whose rows are kept."""

    def __post_init__(self) -> None:
        if not all(is_count(n) and n <= NUM_MODALITIES for n in self.experts):
            raise ValueError(f"experts is {self.experts}: give integers from 1 to {NUM_MODALITIES}")
        check_choice("networks", self.networks, tuple(NETWORKS))
        for field in ("num_turns", "latent_dim", "K", "batch_size", "num_test"):
            check_count(field, getattr(self, field))
        check_positive("seconds", self.seconds)
        check_positive("scale", self.scale)

    def times(self) -> list[float]:
        """Returns the seconds after which each run is measured."""
        return [self.seconds * (i + 1) / self.num_turns for i in range(self.num_turns)]

    def identity(self, experts: int, seed: int, seconds: float) -> dict[str, Any]:
        """Returns the fields that identify a row."""
        settings = {field: getattr(self, field) for field in SETTINGS}
        return {**settings, "experts": experts, "seed": seed, "seconds": seconds}


def main(config: ExpertsDrawnConfig) -> list[dict[str, Any]]:
    """Computes the rows that ``out`` lacks, prints a table of all, and returns them."""
    rows = Rows(config.out, config)
    data = load(config)
    started = {
        (experts, seed): Run(config, experts, seed, data.train)
        for seed in config.seeds
        for experts in config.experts
        if not all(rows.has(config.identity(experts, seed, t)) for t in config.times())
    }
    measured = []
    for seconds in config.times():
        for (experts, seed), run in started.items():
            run.train(seconds)
            measured.append(config.identity(experts, seed, seconds) | run.measure(data.test))
    for row in measured:  # at the end, so that no course has rows of a stopped program
        rows.add(row)
    print(table(rows.all))
    return rows.all


def load(config: ExpertsDrawnConfig) -> Splits:
    """Returns PolyMNIST with a few test examples; makes it in ``out`` if it is not there."""
    make_polymnist.make_part(config.out, config.data_dir)
    found = PolyMNISTConfig(data_dir=config.out).load()
    return Splits(found.train, take(found.test, np.arange(config.num_test)))


class Run:
    """A training run that takes turns with others.

    Attributes:
      state: train state.
      num_steps: number of steps so far.
      seconds: CPU seconds of these steps.
    """

    def __init__(
        self, config: ExpertsDrawnConfig, experts: int, seed: int, train: MultimodalArrays
    ) -> None:
        """Starts a run, and compiles its step."""
        self.num_steps, self.seconds = 0, 0.0
        self._batches = iter(batches(train, config.batch_size, seed=seed))
        first = next(iter(batches(train, config.batch_size, seed=seed)))
        mm.train_step(initial_state(config, experts, seed), on_device(first))
        self.state = initial_state(config, experts, seed)

    def train(self, until: float) -> None:
        """Trains until its steps have taken this number of seconds altogether."""
        while self.seconds < until:
            batch = on_device(next(self._batches))
            start = time.process_time()
            self.state, _ = jax.block_until_ready(mm.train_step(self.state, batch))
            self.seconds += time.process_time() - start
            self.num_steps += 1

    def measure(self, test: MultimodalArrays) -> dict[str, Any]:
        """Returns the steps and seconds so far, and the test bound of particles of all experts."""
        metrics = mm.evaluate(self.state, test, batch_size=64)
        return {
            "num_steps": self.num_steps,
            "train_seconds": self.seconds,
            "test_bound": -metrics["loss"],
        }


def initial_state(config: ExpertsDrawnConfig, experts: int, seed: int) -> mm.TrainState:
    """Returns the state at step 0, whose parameters do not depend on the number of experts."""
    experiment = PolyMNISTConfig(
        networks=config.networks, latent_dim=config.latent_dim, K=config.K, scale=config.scale
    )
    rngs = nnx.Rngs(seed)
    networks = experiment.make_networks(rngs)
    per_step = None if experts == NUM_MODALITIES else experts
    model_config = experiment.model_config().replace(experts_per_step=per_step)
    model = mm.MMVAE(model_config, *networks, rngs=rngs)
    return mm.create_train_state(model, make_optimizer(1e-3), key=jax.random.key(seed))


def on_device(batch: MultimodalArrays) -> mm.Batch:
    """Returns the batch on the device, which is no part of a step's time."""
    return jax.block_until_ready(jax.device_put(mm.Batch(batch.data)))


def table(rows: list[dict[str, Any]]) -> str:
    """Returns steps and test bounds by time, means over seeds."""
    times = sorted({row["seconds"] for row in rows})
    cells = [("experts", "ms per step", "steps", *(f"{t:g} s" for t in times))]
    for experts in dict.fromkeys(row["experts"] for row in rows):
        own = [row for row in rows if row["experts"] == experts]
        last = [row for row in own if row["seconds"] == times[-1]]
        step = np.mean([row["train_seconds"] / row["num_steps"] for row in last])
        steps = np.mean([row["num_steps"] for row in last])
        bounds = [[row["test_bound"] for row in own if row["seconds"] == t] for t in times]
        shown = (f"{np.mean(b):.1f}" if b else "-" for b in bounds)
        cells.append((str(experts), f"{1e3 * step:.0f}", f"{steps:.0f}", *shown))
    return align(cells)


if __name__ == "__main__":
    os.environ.setdefault("XLA_FLAGS", ONE_THREAD)  # read by JAX when it finds its devices
    run_command(runs.process()(main), ExpertsDrawnConfig, "experiments.experts_drawn")
