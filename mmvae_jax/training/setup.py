"""What comes before the first step of a training run: looking for mistakes, and for a start."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

from mmvae_jax.batch import AnyBatch, as_batch, observe
from mmvae_jax.checks import check_count
from mmvae_jax.config import MMVAEConfig
from mmvae_jax.data.arrays import num_examples, take
from mmvae_jax.training.checkpoint import Checkpoints
from mmvae_jax.training.mesh import DATA, PARTICLE, Layout
from mmvae_jax.training.monitor import Judge
from mmvae_jax.training.steps import TrainState


def run_config(
    config: MMVAEConfig, batch_size: int, seed: int, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What ``fit`` leaves beside its checkpoints, to be the same whenever the run goes on."""
    told = {"batch_size": batch_size, "seed": seed, **(settings or {})}
    return {"model": config.describe(), "run": told}


def count_steps(
    data: AnyBatch | grain.IterDataset,
    num_steps: int | None,
    num_epochs: int | None,
    batch_size: int,
) -> int:
    """Steps of the run, from one of the two ways to say it."""
    check_count("batch_size", batch_size)
    if num_steps is not None and num_epochs is None:
        return num_steps
    if num_steps is not None or num_epochs is None:
        raise ValueError(
            f"num_steps is {num_steps} and num_epochs {num_epochs}: give one of the two"
        )
    check_count("num_epochs", num_epochs)
    if not isinstance(data, AnyBatch):
        raise ValueError(f"num_epochs is {num_epochs}, of a pipeline: give num_steps instead")
    return num_epochs * (num_examples(data) // batch_size)


def steps_between_evaluations(
    data: AnyBatch | None, every: int | None, patience: int | None, num_steps: int
) -> int | None:
    """How often to evaluate: at the end by default, never without data."""
    for field, value in (("eval_every", every), ("patience", patience)):
        if value is not None:
            check_count(field, value)
            if data is None:
                raise ValueError(f"{field} is {value}, but eval_data is None: give eval_data")
    return None if data is None else every or num_steps


def check_data(
    config: MMVAEConfig,
    train_data: AnyBatch | grain.IterDataset,
    eval_data: AnyBatch | None,
) -> None:
    """Look at one example: what is wrong with it is wrong with all."""
    for field, data in (("train_data", train_data), ("eval_data", eval_data)):
        if isinstance(data, AnyBatch):
            num_examples(data)
            first = take(data, np.array([0]))
            try:
                jax.eval_shape(partial(observe, config), as_batch(first))
            except ValueError as error:
                raise ValueError(f"{field}, as a batch: {error}") from error


def check_sizes(
    layout: Layout | None, config: MMVAEConfig, batch_size: int, eval_batch_size: int
) -> None:
    """Look whether the devices can share examples and particles."""
    parts = {} if layout is None else layout.mesh.shape
    sizes = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "K": config.K}
    for field, size in sizes.items():
        num = parts.get(PARTICLE if field == "K" else DATA, 1)
        if size % num:
            raise ValueError(f"{field} is {size}: give a multiple of the mesh's {num} devices")


def open_checkpoints(
    directory: str | Path | None,
    config: Mapping[str, Any],
    keep: int,
    best: str,
    maximise: bool,
    *,
    resume: bool,
) -> Checkpoints | None:
    """The run's checkpoints; nothing is written yet."""
    if directory is None:
        if resume:
            raise ValueError("resume is True, but checkpoint_dir is None: give the run's folder")
        return None
    checkpoints = Checkpoints(directory, config=config, keep=keep, best=best, maximise=maximise)
    if checkpoints.steps and not resume:
        raise ValueError(
            f"checkpoint_dir is {directory}, which holds step {checkpoints.steps[-1]}: give "
            "resume=True to go on with that run, or another folder"
        )
    return checkpoints


def restored(
    state: TrainState, checkpoints: Checkpoints | None, judge: Judge
) -> tuple[TrainState, Judge, Any, dict[str, float]]:
    """State, judge, state of the data and metrics of the newest intact checkpoint, if any."""
    if checkpoints is None or not checkpoints.steps:
        return state, judge, None, {}
    state = checkpoints.restore(state)
    step = int(state.step)
    extra = checkpoints.extra(step)
    return state, judge.restored(extra["judge"]), extra["data"], checkpoints.metrics(step)
