"""Damaged checkpoints: noticed before a restore, and kept out of the way of a run that resumes."""

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmvae_jax.saving.files import damage

#: Folder beside the steps that damaged steps are moved to.
DAMAGED_FOLDER = "damaged"


def first_intact(directory: Path, steps: Sequence[int]) -> tuple[int, tuple[int, ...]]:
    """Returns the first step whose files are as they were written, and the damaged ones before it.

    Args:
      directory: folder with a folder for each step.
      steps: candidates, at least one, in order of preference.

    Raises:
      ValueError: if all steps are damaged.

    Warns:
      UserWarning: naming the damaged steps.
    """
    damaged = _damage_before_first_intact(directory, steps)
    text = "\n".join(f"  step {step}: {message}" for step, message in damaged.items())
    if len(damaged) == len(steps):
        raise ValueError(
            f"no step to restore in {directory} is as it was written:\n{text}\n"
            "Put the files back, or choose another step."
        )
    if damaged:
        message = f"{directory} holds damaged steps, which are skipped:\n{text}"
        warnings.warn(message, stacklevel=4)
    return steps[len(damaged)], tuple(damaged)


def set_aside(directory: Path, steps: Sequence[int]) -> None:
    """Moves the folders of steps into ``directory/damaged``, numbered where a name is taken.

    With several processes the first one moves them, and all return once that is done.
    """
    if jax.process_index() == 0:
        place = directory / DAMAGED_FOLDER
        place.mkdir(exist_ok=True)
        for step in steps:
            names = itertools.chain([f"{step}"], (f"{step}-{n}" for n in itertools.count(2)))
            name = next(name for name in names if not (place / name).exists())
            (directory / str(step)).rename(place / name)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("mmvae_jax: damaged steps are set aside")


def _damage_before_first_intact(directory: Path, steps: Sequence[int]) -> dict[int, str]:
    """Returns the damage by step, up to the first intact one.

    With several processes the first one reads the files, and the others learn the number of
    damaged steps from it: all have to restore the same step.
    """
    damaged = {}
    if jax.process_index() == 0:
        for step in steps:
            if (found := damage(directory / str(step))) is None:
                break
            damaged[step] = found
    if jax.process_count() > 1:
        num = int(multihost_utils.broadcast_one_to_all(np.int32(len(damaged))))
        damaged = {step: damaged.get(step, "damaged") for step in steps[:num]}
    return damaged
