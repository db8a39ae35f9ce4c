"""Checkpoints of a training run, kept by orbax: one folder per step, the settings beside them."""

import functools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from mmvae_jax.inputs.paths import as_path
from mmvae_jax.saving.files import damage, write_manifest
from mmvae_jax.training.damaged_steps import first_intact, set_aside
from mmvae_jax.training.donation import check_not_donated
from mmvae_jax.training.run_settings import check_settings, write_settings
from mmvae_jax.training.saved_arrays import (
    PARTS,
    array_differences,
    merge_state,
    split_state,
    with_keys,
    without_keys,
)
from mmvae_jax.training.train_state import TrainState

#: Part of a saved step that holds its metrics; version 0.1.0 used the other name.
METADATA, METADATA_0_1_0 = "metadata", "told"


class Checkpoints:
    """The checkpoints of one run, in one directory.

    A run that is resumed from its newest checkpoint computes, bit for bit, what it would have
    computed uninterrupted: a ``TrainState`` is its parameters, the optimizer's state, the step and
    the key, and the randomness of a step is a function of key and step.

        <directory>/config.json            the settings of the run
        <directory>/<step>/model/, run/    the arrays of a TrainState
        <directory>/<step>/metadata/       the metrics and extra values given to ``save``
        <directory>/<step>/manifest.json   sizes and SHA-256 of all files of the step

    Nothing is written before the first ``save``. A step that was interrupted while being written is
    never listed. Arrays are copied before ``save`` returns, and written while training continues.

    Args:
      directory: folder of this run, which no other run uses.
      config: settings, as JSON can hold them, that must be the same whenever the run is resumed.
      keep: number of newest steps to keep.
      best: name of the metric whose best step is kept beside the newest; None to keep none.
      maximise: True if the largest value of that metric is the best, False for the smallest.

    Raises:
      ValueError: if the directory holds checkpoints made with other settings (the message lists
        the differences), or if ``keep`` is less than 1.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        config: Mapping[str, Any],
        keep: int = 3,
        best: str | None = None,
        maximise: bool = False,
    ):
        if keep < 1:
            raise ValueError(f"keep is {keep}: give the number of steps to keep, at least 1")
        self.directory = as_path(directory, "directory").absolute()
        self.config = json.loads(json.dumps(config))  # tuples as lists, as the file has them
        self.keep = keep
        self.best = best
        self.maximise = maximise
        self._damaged: tuple[int, ...] = ()
        self._metadata: dict[int, dict[str, Any]] = {}
        self._intact: dict[int, bool] = {}
        self._writing: int | None = None
        check_settings(self.directory, self.config)

    @property
    def steps(self) -> tuple[int, ...]:
        """The saved steps, oldest first, once all pending writes are on disk."""
        if not self.directory.is_dir():
            return ()
        self._manager.wait_until_finished()
        return tuple(sorted(self._manager.all_steps()))

    @property
    def best_step(self) -> int | None:
        """The step with the best metric, None if no step has it."""
        return self.best_of(self.steps)

    def best_of(self, steps: Sequence[int]) -> int | None:
        """Returns the step with the best metric among ``steps``, None if none has it."""
        if self.best is None:
            return None
        intact = [step for step in steps if self._is_intact(step)]
        values = {step: self.metrics(step).get(self.best, math.nan) for step in intact}
        values = {step: value for step, value in values.items() if not math.isnan(value)}
        choose = max if self.maximise else min
        return choose(values, key=values.__getitem__) if values else None

    def save(
        self,
        state: TrainState,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes the state under its step, then deletes steps that need not be kept.

        Args:
          state: train state to save.
          metrics: metrics of the step, among them ``best``.
          extra: anything else that JSON can hold, such as the state of a data iterator.

        Raises:
          ValueError: if this step or a later one is saved already.
        """
        check_not_donated(state)
        step = int(state.step)
        if self._damaged:
            set_aside(self.directory, self._damaged)
            self._damaged = ()
            self._manager.reload()
        if (steps := self.steps) and step <= steps[-1]:
            raise ValueError(
                f"state.step is {step}, but {self.directory} holds step {steps[-1]}, and "
                "saved steps are never overwritten: restore that step before training, or save "
                "to another directory"
            )
        if jax.process_index() == 0:
            write_settings(self.directory, self.config)
        metadata = {"metrics": dict(metrics or {}), "extra": dict(extra or {})}
        parts = {part: ocp.args.StandardSave(tree) for part, tree in split_state(state).items()}
        items = {**parts, METADATA: ocp.args.JsonSave(metadata)}
        self._metadata[step] = json.loads(json.dumps(metadata))
        self._writing = step
        self._intact[step] = True
        self._manager.save(step, args=ocp.args.Composite(**items))

    def wait(self) -> None:
        """Returns when all saved steps are on disk; raises the errors of writing them."""
        if self.directory.is_dir():
            self._manager.wait_until_finished()

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """Reads a saved state.

        Args:
          state: new state of the same model and optimizer, which gives shapes, types and devices;
            it stays as it is.
          step: one of ``steps``; by default the newest intact one, with a warning that names the
            damaged ones that are skipped.

        Raises:
          FileNotFoundError: if there is no checkpoint, or none of this step.
          ValueError: if the files of the step, or of all steps, are not as they were written; or
            if the names, shapes or types of the saved arrays are not the state's.
        """
        check_not_donated(state)
        return merge_state(state, self._read(self.intact_step(step), split_state(state)))

    def restore_model(self, model: PyTree, step: int | None = None) -> PyTree:
        """Reads the parameters and other variables of a model.

        Args:
          model: ``{"params": ..., "rest": ...}`` of a new model.
          step: step to read, as in ``restore``.

        Raises:
          FileNotFoundError, ValueError: as ``restore``.
        """
        restored = self._read(self.intact_step(step), {"model": without_keys(model)})
        return with_keys(model, restored["model"])

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the metrics that the step was saved with."""
        return self._metadata_of(step)["metrics"]

    def extra(self, step: int) -> dict[str, Any]:
        """Returns the extra values that the step was saved with."""
        return self._metadata_of(step)["extra"]

    def intact_step(self, step: int | None = None) -> int:
        """Returns the newest step whose files are as they were written, or ``step`` if its are.

        Raises:
          FileNotFoundError, ValueError: as ``restore``.
        """
        steps = self.steps
        if not steps:
            raise FileNotFoundError(
                f"{self.directory} holds no checkpoint: give the directory of a run that saved one"
            )
        if step is not None and step not in steps:
            raise FileNotFoundError(
                f"{self.directory} holds no step {step}: choose one of {list(steps)}"
            )
        found, damaged = first_intact(self.directory, steps[::-1] if step is None else (step,))
        if step is None:  # a run that resumes from here comes to the damaged steps again
            self._damaged = damaged
        return found

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        parts = {part: ocp.StandardCheckpointHandler() for part in PARTS}
        metadata = {item: ocp.JsonCheckpointHandler() for item in (METADATA, METADATA_0_1_0)}
        return ocp.CheckpointManager(
            self.directory,
            item_handlers={**parts, **metadata},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_NewestAndBest(self),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            ),
        )

    def _write_manifest(self) -> None:
        """Called by orbax when all files are there and the folder does not yet have its name."""
        for folder in self.directory.glob(f"{self._writing}.*tmp*"):
            write_manifest(folder)

    def _is_intact(self, step: int) -> bool:
        """True for steps of this process, and for older ones whose files are as written."""
        if step not in self._intact:
            self._intact[step] = damage(self.directory / str(step)) is None
        return self._intact[step]

    def _metadata_of(self, step: int) -> dict[str, Any]:
        if step not in self._metadata:
            is_new = (self.directory / str(step) / METADATA).is_dir()
            item = METADATA if is_new else METADATA_0_1_0
            args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
            self._metadata[step] = self._manager.restore(step, args=args)[item]
        return self._metadata[step]

    def _read(self, step: int, like: Mapping[str, PyTree]) -> Any:
        """Reads parts of a step, onto the devices of the arrays in ``like``."""
        expected = jax.tree.map(ocp.utils.to_shape_dtype_struct, dict(like))
        # Orbax would convert some other shapes and types silently.
        if lines := array_differences(self._manager.item_metadata(step), expected):
            raise ValueError(
                f"state does not have the arrays of step {step} in {self.directory}:\n"
                + "\n".join(lines[:10])
                + f"\n({len(lines)} differences.) Make the state with the model and the "
                "optimizer that it was saved with."
            )
        parts = {part: ocp.args.StandardRestore(tree) for part, tree in expected.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**parts))


class _NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest steps, and the best one so far.

    Orbax's own ``BestN`` ranks NaN among the metrics, can keep a damaged step as the best, and
    reads a file that steps of version 0.1.0 do not have.
    """

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        kept = {*steps[-self.checkpoints.keep :], self.checkpoints.best_of(steps)}
        return [step in kept for step in steps]
