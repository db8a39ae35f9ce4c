"""Argument checks of ``fit``, and the restoration of a run from its checkpoints."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import grain
import jax
import numpy as np

from mmvae_jax.batch import AnyBatch, observe
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.arrays import check_values_in_memory, num_examples, take
from mmvae_jax.training.best import Best
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.fit_options import Checkpointing, Evaluation
from mmvae_jax.training.mesh import DATA, PARTICLE, Layout
from mmvae_jax.training.optimizer import with_hyperparams
from mmvae_jax.training.train_state import TrainState


def count_steps(
    data: AnyBatch | grain.IterDataset,
    num_steps: int | None,
    num_epochs: int | None,
    batch_size: int,
) -> int:
    """Returns the number of steps of a run, given as such or as a number of epochs.

    Raises:
      ValueError: for counts below 1, or unless exactly one of the two is given.
    """
    if num_steps is not None and num_epochs is None:
        return check_count("num_steps", num_steps)
    if num_steps is not None or num_epochs is None:
        raise ValueError(
            f"num_steps is {num_steps} and num_epochs {num_epochs}: give one of the two"
        )
    num_epochs = check_count("num_epochs", num_epochs)
    if not isinstance(data, AnyBatch):
        raise ValueError(f"num_epochs is {num_epochs}, of a pipeline: give num_steps instead")
    return num_epochs * (num_examples(data) // batch_size)


def check_data(
    config: MMVAEConfig,
    train_data: AnyBatch | grain.IterDataset,
    eval_data: AnyBatch | None,
) -> None:
    """Checks the first example of each data set against the config, and all values in memory.

    Values in files are checked batch by batch, when a batch is read.

    Raises:
      ValueError: if an example does not fit, naming the data set, the modality and the row.
    """
    for field, data in (("train_data", train_data), ("eval_data", eval_data)):
        if isinstance(data, AnyBatch):
            num_examples(data)
            first = take(data, np.array([0]))
            try:
                jax.eval_shape(partial(observe, config), first)
            except ValueError as error:
                raise ValueError(f"{field}, as a batch: {error}") from error
            check_values_in_memory(config, data, field=f"{field}.data")


def check_sizes(
    layout: Layout | None, config: MMVAEConfig, batch_size: int, eval_batch_size: int
) -> None:
    """Checks that the devices can share examples and particles equally.

    Raises:
      ValueError: naming the number that they cannot share.
    """
    parts = {} if layout is None else layout.mesh.shape
    sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "K": config.K}
    for field, size in sizes.items():
        num = parts.get(PARTICLE if field == "K" else DATA, 1)
        if size % num:
            raise ValueError(f"{field} is {size}: give a multiple of the mesh's {num} devices")


def open_checkpoints(
    checkpointing: Checkpointing, settings: Mapping[str, Any], best: Best
) -> Checkpoints:
    """Returns the run's checkpoints; nothing is written yet.

    Raises:
      ValueError: if the directory holds checkpoints and the run is not to be resumed, or if they
        were made with other settings.
    """
    directory = checkpointing.directory
    checkpoints = Checkpoints(
        directory,
        config=settings,
        keep=checkpointing.keep,
        best=best.metric,
        maximise=best.maximise,
    )
    if checkpoints.steps and not checkpointing.resume:
        raise ValueError(
            f"checkpoint_dir is {directory}, which holds step {checkpoints.steps[-1]}: give "
            "resume=True to continue that run, or another folder"
        )
    return checkpoints


class Start(NamedTuple):
    """The start of a run, or of the rest of it.

    Attributes:
      state: train state.
      best: best evaluation so far.
      data_state: state of the user's input pipeline; None to start it from the beginning.
      metrics: metrics of the last evaluation, if the last step had one.
    """

    state: TrainState
    best: Best
    data_state: Any = None
    metrics: Mapping[str, float] = {}


def restored(
    state: TrainState, checkpoints: Checkpoints | None, best: Best, num_steps: int
) -> Start:
    """Returns the start that the newest intact checkpoint holds, or that of a new run.

    Hyperparameters of a trained state that is at the same step stay: they were set on purpose.

    Raises:
      ValueError: if the run has made more than ``num_steps`` steps.
    """
    start = Start(state, best)
    if checkpoints is not None and checkpoints.steps:
        start = _from_checkpoint(state, checkpoints, best)
    if start.state.step > num_steps:
        raise ValueError(
            f"num_steps is {num_steps}, but the run is at step {start.state.step}: give more"
        )
    return start


def _from_checkpoint(state: TrainState, checkpoints: Checkpoints, best: Best) -> Start:
    """Returns the start that the newest intact checkpoint holds."""
    given, state = state, checkpoints.restore(state)
    if (step := int(state.step)) == int(given.step) > 0:
        opt_state = with_hyperparams(state.opt_state, given.opt_state)
        state = state.replace(opt_state=opt_state)
    extra = checkpoints.extra(step)
    best = best.restored(extra["judge"])  # the name in checkpoints since version 0.1
    return Start(state, best, extra["data"], checkpoints.metrics(step))


def default_evaluation(evaluation: Evaluation | None, batch_size: int) -> tuple[Best, int]:
    """Returns the comparison of evaluations, before the first, and their batch size."""
    if evaluation is None:
        return Best("eval/loss", maximise=False), batch_size
    return Best(evaluation.best, evaluation.maximise), evaluation.batch_size or batch_size
