"""Is a gradient from a few particles as good as one from all of them?

    python -m experiments.exactness --help

Trains an MMVAE on PolyDigits twice, from the same parameters and on the same batches and particles:
once with the sparse backward pass, once with the dense one. On the way it compares the gradients
of both at the parameters that the sparse run has reached.
"""

import csv
import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm import tqdm

import mmvae_jax as mm
from experiments import digits, runs
from experiments.axes import ACCENT, INK, dress
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.data.arrays import batches
from mmvae_jax.data.polydigits import polydigits

DENSE = mm.Backward("dense")
#: Steps that a loss is averaged over, in the figure and at the end.
WINDOW = 50
#: Relative error below which the sparse gradient is as good as the dense one.
GOAL = 1e-3
#: How each run is drawn, one on the other: where they agree, both are seen.
STYLES: dict[str, dict[str, Any]] = {
    "dense": {"color": "#b9bdc7", "linewidth": 5},
    "sparse": {"color": "#2f6fde", "linewidth": 1.6},
}
COLUMNS = ("step", "loss_sparse", "loss_dense", "relative_error", "backward_share", "dropped_mass")

#: What is known of one step, by column; ``relative_error`` is NaN where it was not measured.
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Compare the sparse backward pass with the dense one in training runs on PolyDigits."""

    every: int = 50
    """Steps between two comparisons of the gradients; the first is at step 1."""
    tolerance: float = 1e-4
    """Weight that the sparse backward pass may drop from the particles of each expert."""
    modalities: int = 3
    """Images per example, 2 to 5."""
    text: bool = False
    """Add the digit's name as one more modality, ``word``."""
    networks: digits.Networks = "mlp"
    """Encoders and decoders of the images; those of words are always MLPs."""
    hidden: tuple[int, ...] = (512,)
    """Widths of an encoder's dense hidden layers; convolutional networks have one."""
    latent_dim: int = 12
    """Size of the latent variable."""
    K: int = 5
    """Particles drawn from each modality's posterior."""
    loss: str = "dreg_looser"
    """Bound and gradient estimator, a key of mmvae_jax.config.LOSSES."""
    batch_size: int = 64
    """Examples per training step."""
    learning_rate: float = 2e-3
    """Highest rate of Adam, on the schedule of experiments.digits."""
    num_steps: int = 1500
    """Training steps of each run."""
    seed: int = 0
    """Of data, initial parameters and particles."""
    out: Path = Path("runs/exactness")
    """Folder of the results, new or empty."""

    def __post_init__(self) -> None:
        check_count("every", self.every)
        self.backward()  # checks tolerance
        self.base()  # checks the others

    def backward(self) -> mm.Backward:
        """The backward pass in question."""
        return mm.Backward("sparse", tolerance=self.tolerance)

    def base(self) -> digits.Config:
        """The settings of either run."""
        settings = self.settings()
        del settings["every"], settings["tolerance"]
        return digits.Config(**settings)

    def settings(self) -> dict[str, Any]:
        """What the results depend on; JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if name != "out"}


def main(config: Config) -> dict[str, Any]:
    """Run the experiment, print a summary and return what ``exactness.json`` holds.

    Raises:
      ValueError: if ``out`` is not a new or empty folder, before anything is computed.
      FloatingPointError: if a loss or a gradient is no longer finite.
    """
    check_out(config.out)
    return run(config)


def command_line() -> None:
    """``main`` of the command line's settings; what is wrong with them is said without a trace."""
    config = tyro.cli(Config)
    try:
        check_out(config.out)
    except ValueError as error:
        sys.exit(f"error: {error}")
    run(config)


def check_out(out: Path) -> None:
    """Refuse a folder with anything in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"out is {out}, which is not an empty folder, and nothing in it may be overwritten: "
            "choose another --out"
        )


def run(config: Config) -> dict[str, Any]:
    """Train both copies, and write what they did."""
    seconds: dict[str, float] = {}
    base = config.base()
    dataset = polydigits(
        base.modalities, num_pairings=base.pairings, text=base.text, seed=base.seed
    )
    steps = batches(dataset.train, base.batch_size, seed=base.seed, num_steps=base.num_steps)
    config.out.mkdir(parents=True, exist_ok=True)
    with runs.timed(seconds, "train"):
        rows = train(config, steps)
    columns = {name: np.array([row[name] for row in rows], float) for name in COLUMNS}
    write_csv(config.out / "history.csv", rows)
    draw(columns).savefig(config.out / "exactness.png", dpi=150)
    results = {
        **summary(columns),
        "config": config.settings(),
        **runs.provenance(),
        "seconds": seconds["train"],
    }
    runs.write_json(config.out / "exactness.json", results)
    print(table(results))
    for path in sorted(config.out.iterdir()):
        print(path)
    return results


def train(config: Config, steps: Iterable[MultimodalArrays]) -> list[Row]:
    """Train both copies side by side; returns a row per step."""
    keys = jax.random.split(jax.random.key(config.seed), 4)  # the first two, as in a run of digits
    sparse = config.base().init_state(keys[0], keys[1], config.num_steps)
    dense = jax.tree.map(jnp.copy, sparse)  # a step consumes the state that it is given
    backward = config.backward()
    rows = []
    progress = tqdm(steps, total=config.num_steps, desc="train", unit="step")
    for step, examples in enumerate(progress, 1):
        batch = mm.Batch(data=examples.data)
        is_compared = step == 1 or step % config.every == 0
        error = relative_error(sparse, batch, backward) if is_compared else math.nan
        sparse, of_sparse = mm.train_step(sparse, batch, backward=backward)
        dense, of_dense = mm.train_step(dense, batch, backward=DENSE)
        losses = (of_sparse["loss"], of_dense["loss"])
        savings = (of_sparse["backward_share"], of_sparse["dropped_mass"])
        row: Row = dict(zip(COLUMNS, (step, *losses, error, *savings), strict=True))
        if is_compared:
            check_finite(row)
        rows.append(row)
    return jax.device_get(rows)


@partial(jax.jit, static_argnames="backward")
def relative_error(
    state: mm.TrainState, batch: mm.Batch, backward: mm.Backward
) -> Float[Array, ""]:
    """``||g - g_dense|| / ||g_dense||`` of the state's next step, over all its parameters.

    Both gradients are of the same particles: their noise depends on the step's key alone.
    """

    def gradient(backward: mm.Backward) -> nnx.State:
        key = jax.random.fold_in(state.key, state.step)
        return mm.value_and_grad(state.view(), batch, key, backward=backward)[1]

    exact = gradient(DENSE)
    difference = jax.tree.map(jnp.subtract, gradient(backward), exact)
    return optax.tree.norm(difference) / optax.tree.norm(exact)


def check_finite(row: Row) -> None:
    """Raise ``FloatingPointError`` if a run has diverged."""
    for name, value in row.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{name} is {value} at step {row['step']}: lower learning_rate"
            )


def write_csv(file: Path, rows: Sequence[Row]) -> None:
    """A line per step; what was not measured is left empty."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            values = [float(row[name]) for name in COLUMNS]
            writer.writerow("" if math.isnan(value) else f"{value:.9g}" for value in values)


def summary(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the columns of ``history.csv`` amount to."""
    errors = columns["relative_error"]
    errors = errors[np.isfinite(errors)]
    return {
        "relative_error": {
            "largest": float(errors.max()),
            "median": float(np.median(errors)),
            "num_compared": len(errors),
        },
        "final_loss": {kind: float(columns[f"loss_{kind}"][-WINDOW:].mean()) for kind in STYLES},
        "backward_share": float(columns["backward_share"].mean()),
        "dropped_mass": float(columns["dropped_mass"].mean()),
    }


def table(results: Mapping[str, Any]) -> str:
    """The summary to print."""
    error, loss = results["relative_error"], results["final_loss"]
    config = results["config"]
    rows = [
        ("relative error of the gradient, largest", f"{error['largest']:.2e}"),
        (f"  median of {error['num_compared']} comparisons", f"{error['median']:.2e}"),
        ("particles in the backward pass", f"{results['backward_share']:.1%}"),
        ("weight of the others", f"{results['dropped_mass']:.1e}"),
        (f"loss of the last {WINDOW} steps, sparse", f"{loss['sparse']:.2f}"),
        ("  dense", f"{loss['dense']:.2f}"),
    ]
    head = (
        f"{config['num_steps']} steps of each run, tolerance {config['tolerance']:g}, "
        f"{results['seconds']:.0f} seconds on {results['device']}"
    )
    return "\n".join([head, *(f"{name:44}{value:>10}" for name, value in rows)])


def draw(columns: Mapping[str, np.ndarray]) -> Figure:
    """The training curves on top of each other, and the relative error of the gradient."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    curves, errors = figure.subplots(1, 2)
    _draw_curves(curves, columns)
    is_compared = np.isfinite(columns["relative_error"])
    _draw_errors(errors, columns["step"][is_compared], columns["relative_error"][is_compared])
    return figure


def _draw_curves(axes: Axes, columns: Mapping[str, np.ndarray]) -> None:
    window = min(WINDOW, len(columns["step"]))
    for kind, style in STYLES.items():
        smooth = np.convolve(columns[f"loss_{kind}"], np.full(window, 1 / window), "valid")
        axes.plot(columns["step"][window - 1 :], smooth, label=kind, **style)
    axes.legend(title="backward pass", frameon=False, labelcolor=INK, loc="upper right")
    dress(axes, f"loss, mean of {window} steps", "step")


def _draw_errors(axes: Axes, steps: np.ndarray, errors: np.ndarray) -> None:
    axes.semilogy(steps, errors, color=STYLES["sparse"]["color"], marker="o", markersize=4)
    axes.axhline(GOAL, color=ACCENT, linewidth=1.2, linestyle=(0, (4, 3)))
    at_right = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
    axes.annotate(f"{GOAL:g}", (1, GOAL), (-2, 4), color=ACCENT, fontsize=9, **at_right)
    axes.set_ylim(min(errors.min(), GOAL) / 3, max(errors.max(), GOAL) * 3)
    dress(axes, "relative error of the sparse gradient", "step")


if __name__ == "__main__":
    command_line()
