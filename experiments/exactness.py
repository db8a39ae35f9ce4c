"""Comparison of sparse and dense gradients in a training run on PolyDigits.

    python -m experiments.exactness --help

The program trains two copies of a model from the same parameters, batches and particles: one with
the sparse backward pass, one with the dense one. At some steps it also compares the two gradients
at the parameters of the sparse copy.
"""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float
from tqdm import tqdm

import mmvae_jax as mm
from experiments import runs
from experiments.command_line import run_command
from experiments.digits import DigitsConfig
from mmvae_jax.checks import check_count
from mmvae_jax.data import batches

DENSE = mm.Backward("dense")
#: Number of last steps that the final losses are averaged over.
WINDOW = 50
#: Columns of history.csv; ``relative_error`` is NaN at steps without a comparison.
COLUMNS = ("step", "loss_sparse", "loss_dense", "relative_error", "backward_share", "dropped_mass")

History = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactnessConfig:
    """Compare the sparse backward pass with the dense one in training runs on PolyDigits."""

    every: int = 50
    """Number of steps between comparisons of the gradients; step 1 is compared as well."""
    tolerance: float = 1e-4
    """Importance weight that the sparse backward pass may drop, per expert and example."""
    modalities: int = 3
    """Number of images per example, 2 to 5."""
    K: int = 5
    """Number of particles drawn from each modality's posterior."""
    loss: str = "dreg_looser"
    """Bound and gradient estimator, such as iwae_looser; docs/losses.md lists them all."""
    learning_rate: float = 2e-3
    """Peak learning rate, with the schedule of experiments.digits."""
    num_steps: int = 1500
    """Number of training steps of each copy."""
    seed: int = 0
    """Seed of the data, the initial parameters and the particles."""
    out: Path = Path("runs/exactness")
    """Folder of the results, new or empty."""

    def __post_init__(self) -> None:
        check_count("every", self.every)
        self.backward()  # checks tolerance
        self.digits()  # checks the other fields

    def backward(self) -> mm.Backward:
        """Returns the sparse backward pass."""
        return mm.Backward("sparse", tolerance=self.tolerance)

    def digits(self) -> DigitsConfig:
        """Returns the settings of the training runs."""
        fields = dataclasses.asdict(self)
        del fields["every"], fields["tolerance"]
        return DigitsConfig(**fields)


def main(config: ExactnessConfig) -> dict[str, Any]:
    """Runs the comparison, writes its results to ``out`` and prints a summary.

    Returns:
      The content of ``exactness.json``. The other file, ``history.csv``, has a row per step.

    Raises:
      ValueError: if ``out`` is not a new or empty folder; raised before anything is computed.
      FloatingPointError: if a loss or the gradient's error is not finite.
    """
    runs.check_new_folder(config.out)
    seconds: dict[str, float] = {}
    with runs.timed(seconds, "train"):
        history = train(config)
    settings = {**dataclasses.asdict(config), "out": str(config.out)}
    results = {**summarise(history), "config": settings, **runs.provenance(), "seconds": seconds}
    config.out.mkdir(parents=True, exist_ok=True)
    rows = np.stack([*history.values()], axis=1)
    names = ",".join(history)
    np.savetxt(config.out / "history.csv", rows, "%.9g", ",", header=names, comments="")
    runs.write_json(config.out / "exactness.json", results)
    print(f"{config.num_steps} steps, {seconds['train']:.0f} seconds on {results['device']}")
    for name, value in summarise(history).items():
        print(f"{name.replace('_', ' '):28}{value:12.6g}")
    return results


def train(config: ExactnessConfig) -> History:
    """Trains both copies side by side and returns the columns of ``history.csv``."""
    digits, backward = config.digits(), config.backward()
    keys = jax.random.split(jax.random.key(config.seed), 4)  # as in experiments.digits
    sparse = digits.init_state(keys[0], keys[1], config.num_steps)
    dense = jax.tree.map(jnp.copy, sparse)  # train_step donates its state
    data, num_steps = digits.load().train, config.num_steps
    steps = batches(data, digits.batch_size, seed=config.seed, num_steps=num_steps)
    rows = []
    for step, examples in enumerate(tqdm(steps, total=num_steps, unit="step"), 1):
        batch = mm.Batch(data=examples.data)
        is_compared = step == 1 or step % config.every == 0
        error = relative_error(sparse, batch, backward) if is_compared else math.nan
        sparse, metrics = mm.train_step(sparse, batch, backward=backward)
        dense, dense_metrics = mm.train_step(dense, batch, backward=DENSE)
        losses = (metrics["loss"], dense_metrics["loss"])
        row = (step, *losses, error, metrics["backward_share"], metrics["dropped_mass"])
        if is_compared and not np.isfinite(row).all():
            values = ", ".join(f"{n} is {x:g}" for n, x in zip(COLUMNS, row, strict=True))
            raise FloatingPointError(f"{values}: lower --learning-rate")
        rows.append(row)
    return dict(zip(COLUMNS, np.array(jax.device_get(rows), float).T, strict=True))


@partial(jax.jit, static_argnames="backward")
def relative_error(
    state: mm.TrainState, batch: mm.Batch, backward: mm.Backward
) -> Float[Array, ""]:
    """Returns ``||g - g_dense|| / ||g_dense||`` of the state's next step, over all parameters.

    Both gradients use the same particles, because the step's key determines the particles.
    """

    def gradient(backward: mm.Backward) -> nnx.State:
        key = jax.random.fold_in(state.key, state.step)
        return mm.value_and_grad(state.view(), batch, key, backward=backward)[1]

    exact = gradient(DENSE)
    difference = jax.tree.map(jnp.subtract, gradient(backward), exact)
    return optax.tree.norm(difference) / optax.tree.norm(exact)


def summarise(history: History) -> dict[str, float]:
    """Returns the scalars of ``exactness.json``."""
    errors = history["relative_error"][np.isfinite(history["relative_error"])]
    scalars = {
        "largest_relative_error": errors.max(),
        "median_relative_error": np.median(errors),
        "num_compared": len(errors),
        "backward_share": history["backward_share"].mean(),
        "dropped_mass": history["dropped_mass"].mean(),
        "final_loss_sparse": history["loss_sparse"][-WINDOW:].mean(),
        "final_loss_dense": history["loss_dense"][-WINDOW:].mean(),
    }
    return {name: float(value) for name, value in scalars.items()}


if __name__ == "__main__":
    run_command(runs.process()(main), ExactnessConfig, "experiments.exactness")
