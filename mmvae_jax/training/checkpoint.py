"""Checkpoints of a training run, kept by orbax: one folder per step, the settings beside them."""

import dataclasses
import functools
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from mmvae_jax.saving.manifest import damage, damage_before_first_intact, set_aside, write_manifest
from mmvae_jax.saving.run_config import check_config, differences, write_config
from mmvae_jax.training.steps import TrainState

#: What becomes of damaged steps when the run goes on from an older one.
DAMAGED_FOLDER = "damaged"
#: What each part of a saved step holds.
PARTS = {"model": ("params", "rest"), "run": ("step", "opt_state", "key")}


class Checkpoints:
    """The checkpoints of one run, in one directory.

    A run that restores its newest checkpoint and goes on computes, bit for bit, what it would have
    computed uninterrupted: the parameters, the optimizer's state, the step and the key are all
    there is to a ``TrainState``, and the randomness of a step is a function of key and step.

        <directory>/config.json            the settings of the run
        <directory>/<step>/model/, run/    the arrays of a TrainState
        <directory>/<step>/told/           metrics, and what else was given to ``save``
        <directory>/<step>/manifest.json   sizes and sha256 of all of these

    Nothing is written before the first ``save``. A step that was interrupted while being written is
    never listed. Arrays are copied before ``save`` returns, and written while training goes on.

    Args:
      directory: of this run alone.
      config: settings that must be the same whenever the run goes on; JSON can hold them.
      keep: how many of the newest steps to keep.
      best: name of the metric whose best step is kept beside the newest; None to keep none.
      maximise: whether the largest value of that metric is the best, not the smallest.

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
        self.directory = Path(directory).absolute()
        self.config = json.loads(json.dumps(config))  # tuples as lists, as the file has them
        self.keep = keep
        self.best = best
        self.maximise = maximise
        self._damaged: list[int] = []
        self._told: dict[int, dict[str, Any]] = {}
        self._intact: dict[int, bool] = {}
        self._writing: int | None = None
        check_config(self.directory, self.config)

    @property
    def steps(self) -> tuple[int, ...]:
        """The saved steps, oldest first, once what is being written is on disk."""
        if not self.directory.is_dir():
            return ()
        self._manager.wait_until_finished()
        return tuple(sorted(self._manager.all_steps()))

    @property
    def best_step(self) -> int | None:
        """The step with the best metric, None if no step has it."""
        return self.best_of(self.steps)

    def best_of(self, steps: Sequence[int]) -> int | None:
        """The step of these with the best metric, None if none has it."""
        if self.best is None:
            return None
        intact = [step for step in steps if self._is_intact(step)]
        known = {step: self.metrics(step) for step in intact}
        values = {s: m.get(self.best, math.nan) for s, m in known.items()}
        values = {s: value for s, value in values.items() if not math.isnan(value)}
        choose = max if self.maximise else min
        return choose(values, key=values.__getitem__) if values else None

    def save(
        self,
        state: TrainState,
        metrics: Mapping[str, float] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the state under its step, then forget steps that need not be kept.

        Args:
          state: what to save.
          metrics: of the step; ``best`` is looked up in them.
          extra: anything that JSON can hold, such as the state of a data iterator.

        Raises:
          ValueError: if this step or a later one is saved already.
        """
        step = int(state.step)
        self._set_aside_damaged()
        steps = self.steps
        if steps and step <= steps[-1]:
            raise ValueError(
                f"state.step is {step}, but {self.directory} holds step {steps[-1]}, and "
                "saved steps are never overwritten: restore that step before going on, or save "
                "to another directory"
            )
        if jax.process_index() == 0:
            write_config(self.directory, self.config)
        raw = _raw(state)
        parts = {
            part: ocp.args.StandardSave({name: raw[name] for name in names})
            for part, names in PARTS.items()
        }
        told = {"metrics": dict(metrics or {}), "extra": dict(extra or {})}
        self._told[step] = json.loads(json.dumps(told))
        args = ocp.args.Composite(**parts, told=ocp.args.JsonSave(told))
        self._writing = step
        self._intact[step] = True
        self._manager.save(step, args=args)

    def wait(self) -> None:
        """Return when all that was saved is on disk; errors of writing it are raised here."""
        if self.directory.is_dir():
            self._manager.wait_until_finished()

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """Read a saved state.

        Args:
          state: a new one of the same model and optimizer, which says what to expect and on
            which devices to put it; it stays as it is.
          step: one of ``steps``; if left out, the newest that is as it was written, and a warning
            names those that were passed over.

        Raises:
          FileNotFoundError: if there is no checkpoint, or none of this step.
          ValueError: if the files of the step, or of all steps, are not those that were written;
            or if the names, shapes or types of the saved arrays are not the state's.
        """
        step = self.intact_step(step)
        raw = _raw(state)
        expected = {
            part: {name: jax.tree.map(ocp.utils.to_shape_dtype_struct, raw[name]) for name in names}
            for part, names in PARTS.items()
        }
        restored = self._read(step, expected)
        arrays = restored["model"] | restored["run"]
        return dataclasses.replace(state, **jax.tree.map(_as_key, _arrays(state), arrays))

    def restore_model(self, model: PyTree, step: int | None = None) -> PyTree:
        """Read the parameters and other variables of a model; as ``restore``, which see."""
        step = self.intact_step(step)
        expected = jax.tree.map(ocp.utils.to_shape_dtype_struct, _bits(model))
        return jax.tree.map(_as_key, model, self._read(step, {"model": expected})["model"])

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics that the step was saved with."""
        return self._what_was_told(step)["metrics"]

    def extra(self, step: int) -> dict[str, Any]:
        """What else the step was saved with."""
        return self._what_was_told(step)["extra"]

    def intact_step(self, step: int | None = None) -> int:
        """The newest step whose files are as they were written, or the given one if its are.

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
        candidates = steps[::-1] if step is None else (step,)
        damaged = damage_before_first_intact(self.directory, candidates)
        text = "\n".join(f"  step {number}: {what}" for number, what in damaged.items())
        if len(damaged) == len(candidates):
            raise ValueError(
                f"no step to restore in {self.directory} is as it was written:\n{text}\n"
                f"Put the files back, or choose another step of {list(steps)}."
            )
        if damaged:
            message = f"{self.directory} holds damaged steps, which are passed over:\n{text}"
            warnings.warn(message, stacklevel=3)
        if step is None:  # the run goes on from there, and comes to the damaged steps again
            self._damaged = list(damaged)
        return candidates[len(damaged)]

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        parts = {part: ocp.StandardCheckpointHandler() for part in PARTS}
        return ocp.CheckpointManager(
            self.directory,
            item_handlers={**parts, "told": ocp.JsonCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_NewestAndBest(self),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            ),
        )

    def _write_manifest(self) -> None:
        """Called by orbax when all files are there and the folder does not yet have its name."""
        for folder in self.directory.glob(f"{self._writing}.*tmp*"):
            write_manifest(folder)

    def _set_aside_damaged(self) -> None:
        """Make way for steps that take the places of damaged ones; nothing is deleted."""
        if not self._damaged:
            return
        if jax.process_index() == 0:
            for step in self._damaged:
                set_aside(self.directory / str(step), self.directory / DAMAGED_FOLDER)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("mmvae_jax: damaged steps are set aside")
        self._damaged = []
        self._manager.reload()

    def _read(self, step: int, expected: Mapping[str, PyTree]) -> Any:
        self._check_arrays(step, expected)
        parts = {part: ocp.args.StandardRestore(tree) for part, tree in expected.items()}
        return self._manager.restore(step, args=ocp.args.Composite(**parts))

    def _is_intact(self, step: int) -> bool:
        """Whether the step was written by this process, or was as another one has written it."""
        if step not in self._intact:
            self._intact[step] = damage(self.directory / str(step)) is None
        return self._intact[step]

    def _what_was_told(self, step: int) -> dict[str, Any]:
        if step not in self._told:
            args = ocp.args.Composite(told=ocp.args.JsonRestore())
            self._told[step] = self._manager.restore(step, args=args)["told"]
        return self._told[step]

    def _check_arrays(self, step: int, expected: Mapping[str, PyTree]) -> None:
        """Compare names, shapes and types, which orbax would partly convert without a word."""
        metadata = self._manager.item_metadata(step)
        saved = {
            x.name: _describe(x) for part in expected for x in jax.tree.leaves(metadata[part].tree)
        }
        given = {
            jax.tree_util.keystr(path, simple=True, separator="."): _describe(x)
            for tree in expected.values()
            for path, x in jax.tree.leaves_with_path(tree)
        }
        if lines := differences(saved, given):
            raise ValueError(
                f"state does not have the arrays of step {step} in {self.directory}:\n"
                + "\n".join(lines[:10])
                + f"\n({len(lines)} differences.) Make the state with the model and the "
                "optimizer that it was saved with."
            )


class _NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest steps, and the best one so far."""

    def __init__(self, checkpoints: Checkpoints):
        self.checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [info.step for info in checkpoints]
        kept = {*steps[-self.checkpoints.keep :], self.checkpoints.best_of(steps)}
        return [step in kept for step in steps]


def _arrays(state: TrainState) -> dict[str, PyTree]:
    names = [name for part in PARTS.values() for name in part]
    return {name: getattr(state, name) for name in names}


def _raw(state: TrainState) -> dict[str, PyTree]:
    return _bits(_arrays(state))


def _bits(tree: PyTree) -> PyTree:
    """The tree with the bits of PRNG keys in place of keys, which files cannot hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, tree)


def _as_key(like: jax.Array, x: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"
