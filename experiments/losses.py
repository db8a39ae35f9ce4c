"""Which loss to train with: the same budget and seeds for four of them.

    python -m experiments.losses --data-dir FOLDER --out runs/losses

Trains on PolyDigits and on pairs of MNIST digits with each loss and seed, and measures besides what
the experiments do how noisy the gradient of the encoders is.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import mmvae_jax as mm
from experiments import conduct, digits, mnist_pairs, report, runs
from experiments.axes import INK, dress
from experiments.experiment import Experiment
from experiments.measures import classifiers_of
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.config import LOSSES

EXPERIMENTS = {"digits": digits.Config, "mnist_pairs": mnist_pairs.Config}
#: What the table and the figure show, by path in metrics.json.
SHOWN = {
    "test_bound": "bound, nats",
    "log_likelihood/joint/mean": "log p(X), nats",
    "conditional_coherence": "conditional coherence",
    "joint_coherence": "joint coherence",
    "latent_probe": "latent probe",
    "encoder_gradient/signal_to_noise": "signal to noise",
}
COLOURS = {loss: f"C{i}" for i, loss in enumerate(LOSSES)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Compare losses: bound, likelihood, coherence, probe and noise of the encoders' gradient."""

    losses: tuple[str, ...] = ("dreg_looser", "stl_looser", "iwae_looser", "mixture_dreg_looser")
    """Keys of mmvae_jax.config.LOSSES."""
    experiments: tuple[str, ...] = tuple(EXPERIMENTS)
    """What to train on: digits (PolyDigits), mnist_pairs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of every loss."""
    num_steps: int | None = None
    """Training steps, instead of those that each experiment has by default."""
    num_gradients: int = 200
    """Gradients of one batch that the noise is estimated from."""
    data_dir: Path | None = None
    """Folder of MNIST; without one, that of $MMVAE_DATA, or a download."""
    out: Path = Path("runs/losses")
    """Folder of the runs, new or empty."""
    resume: bool = False
    """Go on with the runs in ``out``."""

    def __post_init__(self) -> None:
        for field, known in (("losses", LOSSES), ("experiments", EXPERIMENTS)):
            chosen = getattr(self, field)
            unknown = [name for name in chosen if name not in known]
            if unknown or not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(f"{field} is {chosen!r}: choose some of {list(known)}, each once")
        if not self.seeds:
            raise ValueError("seeds is (): give one or more")
        check_count("num_gradients", self.num_gradients)

    def runs(self) -> list[Experiment]:
        """One for each experiment and loss, of several seeds."""
        length = {} if self.num_steps is None else {"num_steps": self.num_steps, "num_epochs": None}
        return [
            EXPERIMENTS[name](
                loss=loss,
                seeds=self.seeds,
                data_dir=self.data_dir,
                num_likelihood=500,
                num_gradients=self.num_gradients,
                classifiers=self.out / name / "classifiers",
                out=self.out / name / loss,
                resume=self.resume and (self.out / name / loss).exists(),
                **length,
            )
            for name in self.experiments
            for loss in self.losses
        ]


def command_line() -> None:
    """``main`` of the command line's settings; what is wrong with them is said without a trace."""
    config = tyro.cli(Config)
    runs.keep_compiled()
    try:
        check(config)
        data = load(config)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    try:
        finish(config, data)
    except mm.Preempted as end:
        print(end, file=sys.stderr)
        raise


def main(config: Config) -> list[dict[str, Any]]:
    """Do what is left of all runs, print a table and draw it; returns the metrics of all.

    Raises:
      ValueError: if a folder is not fit for its run, before anything is computed or written.
      FileNotFoundError: if the data are not there.
    """
    check(config)
    return finish(config, load(config))


def check(config: Config) -> None:
    """Look for what is wrong with the folders; nothing is written.

    Raises:
      ValueError: if one of them is not fit.
    """
    out = config.out
    if config.resume and not out.exists():
        raise ValueError(f"resume is True, but out is {out}, which does not exist")
    if not config.resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"out is {out}, which is not an empty folder, and nothing in it may be overwritten: "
            "add --resume to go on with the runs in it, or choose another --out"
        )
    for experiment in config.runs():
        conduct.check(dataclasses.replace(experiment, classifiers=None))  # not trained yet


def load(config: Config) -> dict[str, MultimodalArrays]:
    """What to train on in each experiment: all that is missing shows before the first run."""
    first = {experiment.name: next(experiment.runs()) for experiment in config.runs()}
    return {name: run.load().train for name, run in first.items()}


def finish(config: Config, data: Mapping[str, MultimodalArrays]) -> list[dict[str, Any]]:
    """Do what is left of all runs; finished ones stay as they are."""
    found: list[dict[str, Any]] = []
    for experiment in config.runs():
        train_classifiers(experiment, data[experiment.name])
        found += conduct.finish(experiment)
    print(report.table(found))
    draw(found).savefig(config.out / "losses.png", dpi=150)
    return found


def train_classifiers(experiment: Experiment, data: MultimodalArrays) -> None:
    """Leaves classifiers where all the runs of an experiment look for them."""
    folder = experiment.classifiers
    assert folder is not None, "Config.runs names one"
    if folder.exists():
        return
    alone = dataclasses.replace(experiment, classifiers=None)
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for name, classifier in classifiers_of(alone, data, jax.random.key(0)).items():
        classifier.save(partial / f"{name}.npz")
    partial.rename(folder)


def draw(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a point for every run: a row for each experiment, a panel for each metric."""
    names = list(dict.fromkeys(metrics["experiment"] for metrics in found))
    size = (2.3 * len(SHOWN), 2.5 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(SHOWN), squeeze=False)
    for name, row in zip(names, grid, strict=True):
        own = [metrics for metrics in found if metrics["experiment"] == name]
        for axes, (path, title) in zip(row, SHOWN.items(), strict=True):
            _draw_panel(axes, own, path)
            dress(axes, title, "")
        row[0].set_ylabel(name, color=INK)
    return figure


def _draw_panel(axes: Axes, found: Sequence[Mapping[str, Any]], path: str) -> None:
    losses = list(dict.fromkeys(metrics["config"]["loss"] for metrics in found))
    for x, loss in enumerate(losses):
        runs = [metrics for metrics in found if metrics["config"]["loss"] == loss]
        values = [value for run in runs if (value := report.metric(run, path)) is not None]
        axes.plot([x] * len(values), values, "o", color=COLOURS[loss], alpha=0.7, markersize=5)
        if values:
            mean = sum(values) / len(values)
            axes.hlines(mean, x - 0.3, x + 0.3, color=COLOURS[loss], linewidth=2)
    short = [loss.removesuffix("_looser").replace("_", "\n") for loss in losses]
    axes.set_xticks(range(len(losses)), short, fontsize=8)
    axes.set_xlim(-0.6, len(losses) - 0.4)


if __name__ == "__main__":
    command_line()
