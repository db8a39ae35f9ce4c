"""Comparison of losses with equal budgets and seeds, on PolyDigits and on pairs of MNIST digits.

    python -m experiments.losses --data-dir FOLDER --out runs/losses

Besides the metrics of each experiment, the runs measure the noise of the encoders' gradient.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import report, run_experiment, runs
from experiments.command_line import run_command
from experiments.digits import DigitsConfig
from experiments.experiment import Experiment
from experiments.figure_style import INK, style_axes
from experiments.measurements import classifiers_of
from experiments.mnist_pairs import MNISTPairsConfig
from mmvae_jax.batch import MultimodalArrays
from mmvae_jax.checks import check_count
from mmvae_jax.maths.losses import LOSSES
from mmvae_jax.saving.files import whole_folder

EXPERIMENTS = {"digits": DigitsConfig, "mnist_pairs": MNISTPairsConfig}
#: Panel titles of the figure by the path of a metric.
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
class LossesConfig:
    """Train with several losses and compare bounds, likelihoods, coherences and gradient noise."""

    losses: tuple[str, ...] = (
        "dreg_looser",
        "stl_looser",
        "iwae_looser",
        "mixture_dreg_looser",
        "adaptive_dreg_looser",
    )
    """Losses to compare; docs/losses.md lists them all."""
    experiments: tuple[str, ...] = tuple(EXPERIMENTS)
    """Experiments to run with each loss: digits, mnist_pairs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs with each loss."""
    num_steps: int | None = None
    """Number of training steps; None is the default of each experiment."""
    num_gradients: int = 200
    """Number of gradients to measure the gradient noise with."""
    data_dir: Path | None = None
    """Folder of MNIST; None is $MMVAE_DATA, or a download."""
    out: Path = Path("runs/losses")
    """Folder of the runs, new or empty."""
    resume: bool = False
    """Continue the runs in out, which must have the same settings."""

    def __post_init__(self) -> None:
        for field, known in (("losses", LOSSES), ("experiments", EXPERIMENTS)):
            chosen = getattr(self, field)
            unknown = set(chosen) - set(known)
            if unknown or not chosen or len(set(chosen)) < len(chosen):
                raise ValueError(f"{field} is {chosen!r}: choose some of {list(known)}, each once")
        if not self.seeds:
            raise ValueError("seeds is (): give one or more")
        check_count("num_gradients", self.num_gradients)

    def runs(self) -> list[Experiment]:
        """Returns the settings of each experiment with each loss; they have several seeds."""
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


def main(config: LossesConfig) -> list[run_experiment.Metrics]:
    """Computes all runs that are not finished, prints a table and draws ``losses.png``.

    Returns:
      The metrics of all runs.

    Raises:
      ValueError: if a folder does not fit its run; raised before anything is computed or written.
      FileNotFoundError: if the data are missing; raised before anything is computed.
    """
    if not config.resume:
        runs.check_new_folder(config.out, resumable=True)
    elif not config.out.exists():
        raise ValueError(f"resume is True, but out is {config.out}, which does not exist")
    first_runs = {}
    for experiment in config.runs():
        # The classifiers do not exist yet.
        run_experiment.check(dataclasses.replace(experiment, classifiers=None))
        first_runs.setdefault(experiment.name, next(experiment.runs()))
    train = {name: run.load().train for name, run in first_runs.items()}
    found: list[run_experiment.Metrics] = []
    for experiment in config.runs():
        train_classifiers(experiment, train[experiment.name])
        found += run_experiment.finish(experiment)
    print(report.table(found))
    draw(found).savefig(config.out / "losses.png", dpi=150)
    return found


def train_classifiers(experiment: Experiment, data: MultimodalArrays) -> None:
    """Trains the classifiers that all runs of an experiment share, unless they exist."""
    folder = experiment.classifiers
    assert folder is not None, "LossesConfig.runs names a folder"
    if folder.exists():
        return
    untrained = dataclasses.replace(experiment, classifiers=None)
    with whole_folder(folder) as partial:
        for name, classifier in classifiers_of(untrained, data, jax.random.key(0)).items():
            classifier.save(partial / f"{name}.npz")


def draw(found: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a point per run and a bar per mean, in a row per experiment and a panel per metric."""
    names = list(dict.fromkeys(metrics["experiment"] for metrics in found))
    size = (2.3 * len(SHOWN), 2.5 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(names), len(SHOWN), squeeze=False)
    for name, row in zip(names, grid, strict=True):
        own = [metrics for metrics in found if metrics["experiment"] == name]
        for axes, (path, title) in zip(row, SHOWN.items(), strict=True):
            _draw_panel(axes, own, path)
            _set_range(axes, path)
            style_axes(axes, title, "")
        row[0].set_ylabel(name, color=INK)
    return figure


def _draw_panel(axes: Axes, found: Sequence[Mapping[str, Any]], path: str) -> None:
    losses = list(dict.fromkeys(metrics["config"]["loss"] for metrics in found))
    for x, loss in enumerate(losses):
        group = [metrics for metrics in found if metrics["config"]["loss"] == loss]
        values = [v for metrics in group if (v := report.metric(metrics, path)) is not None]
        axes.plot([x] * len(values), values, "o", color=COLOURS[loss], alpha=0.7, markersize=5)
        if values:
            mean = sum(values) / len(values)
            axes.hlines(mean, x - 0.3, x + 0.3, color=COLOURS[loss], linewidth=2)
    short = [loss.removesuffix("_looser").replace("_", "\n") for loss in losses]
    axes.set_xticks(range(len(losses)), short, fontsize=8)
    axes.set_xlim(-0.6, len(losses) - 0.4)


def _set_range(axes: Axes, path: str) -> None:
    """Sets limits that do not magnify small differences.

    Ratios start at 0 and reach at least 1; nats span at least a tenth of their size.
    """
    low, high = axes.get_ylim()
    if path.split("/")[0] in report.NATS:
        half = max(high - low, 0.1 * max(abs(low), abs(high))) / 2
        axes.set_ylim((low + high) / 2 - half, (low + high) / 2 + half)
    else:
        axes.set_ylim(0, max(1.05 * high, 1))


if __name__ == "__main__":
    run_command(runs.process()(main), LossesConfig, "experiments.losses")
