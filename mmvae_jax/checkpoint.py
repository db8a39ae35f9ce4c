"""Checkpoints of a training run, kept by orbax: one folder per step, the settings beside them."""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from mmvae_jax.training import TrainState

CONFIG_FILE = "config.json"


class Checkpoints:
    """The checkpoints of one run, in one directory.

    A run that restores its newest checkpoint and goes on computes, bit for bit, what it would have
    computed uninterrupted: the parameters, the optimizer's state, the step and the key are all
    there is to a `TrainState`, and the randomness of a step is a function of key and step.

        <directory>/config.json     the settings of the run
        <directory>/<step>/state/   the arrays of a TrainState

    Nothing is written before the first `save`. A step that was interrupted while being written is
    never listed.

    Args:
      directory: of this run alone.
      config: settings that must be the same whenever the run goes on; JSON can hold them.
      keep: how many of the newest steps to keep.

    Raises:
      ValueError: if the directory holds checkpoints made with other settings (the message lists
        the differences), or if ``keep`` is less than 1.
    """

    def __init__(self, directory: str | os.PathLike, *, config: Mapping[str, Any], keep: int = 3):
        if keep < 1:
            raise ValueError(f"keep is {keep}: give the number of steps to keep, at least 1")
        self.directory = Path(directory).absolute()
        self.config = json.loads(json.dumps(config))  # tuples as lists, as the file has them
        self.keep = keep
        self._check_config()

    @property
    def steps(self) -> tuple[int, ...]:
        """The saved steps, oldest first."""
        return tuple(sorted(self._manager.all_steps())) if self.directory.is_dir() else ()

    def save(self, state: TrainState) -> None:
        """Write the state under its step, then forget steps older than the ``keep`` newest.

        Raises:
          ValueError: if this step or a later one is saved already.
        """
        step = int(state.step)
        if self.steps and step <= self.steps[-1]:
            raise ValueError(
                f"state.step is {step}, but {self.directory} holds step {self.steps[-1]}, and "
                "saved steps are never overwritten: restore that step before going on, or save "
                "to another directory"
            )
        self._write_config()
        self._manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(_raw(state))))

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """Read a saved state.

        Args:
          state: a new one of the same model and optimizer, which says what to expect and on
            which devices to put it; it stays as it is.
          step: one of ``steps``; the newest if left out.

        Raises:
          FileNotFoundError: if there is no checkpoint, or none of this step.
          ValueError: if the names, shapes or types of the saved arrays are not the state's.
        """
        if not self.steps:
            raise FileNotFoundError(
                f"{self.directory} holds no checkpoint: give the directory of a run that saved one"
            )
        step = self.steps[-1] if step is None else step
        if step not in self.steps:
            raise FileNotFoundError(
                f"{self.directory} holds no step {step}: choose one of {list(self.steps)}"
            )
        expected = jax.tree.map(ocp.utils.to_shape_dtype_struct, _raw(state))
        self._check_arrays(step, expected)
        restore = ocp.args.Composite(state=ocp.args.StandardRestore(expected))
        restored = self._manager.restore(step, args=restore)["state"]
        return dataclasses.replace(state, **jax.tree.map(_as_key, _arrays(state), restored))

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.directory,
            item_handlers={"state": ocp.StandardCheckpointHandler()},
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(self.keep),
                enable_async_checkpointing=False,
            ),
        )

    def _check_config(self) -> None:
        file = self.directory / CONFIG_FILE
        if not file.exists():
            return
        saved = {name: json.dumps(value) for name, value in json.loads(file.read_text()).items()}
        given = {name: json.dumps(value) for name, value in self.config.items()}
        if differences := _differences(saved, given):
            raise ValueError(
                f"config differs from that of the checkpoints in {self.directory}:\n"
                + "\n".join(differences)
                + "\nGive the same settings, or another directory."
            )

    def _write_config(self) -> None:
        file = self.directory / CONFIG_FILE
        if file.exists() or jax.process_index() > 0:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(self.config, indent=2) + "\n")
        partial.replace(file)

    def _check_arrays(self, step: int, expected: PyTree) -> None:
        """Compare names, shapes and types, which orbax would partly convert without a word."""
        metadata = self._manager.item_metadata(step)["state"]
        saved = {x.name: _describe(x) for x in jax.tree.leaves(metadata.tree)}
        given = {
            jax.tree_util.keystr(path, simple=True, separator="."): _describe(x)
            for path, x in jax.tree.leaves_with_path(expected)
        }
        if differences := _differences(saved, given):
            raise ValueError(
                f"state does not have the arrays of step {step} in {self.directory}:\n"
                + "\n".join(differences[:10])
                + f"\n({len(differences)} differences.) Make the state with the model and the "
                "optimizer that it was saved with."
            )


def _arrays(state: TrainState) -> dict[str, PyTree]:
    return {name: getattr(state, name) for name in ("step", "params", "opt_state", "rest", "key")}


def _raw(state: TrainState) -> dict[str, PyTree]:
    """The state's arrays, with the bits of PRNG keys in place of keys, which files cannot hold."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, _arrays(state))


def _as_key(like: jax.Array, x: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(x, impl=jax.random.key_impl(like)) if _is_key(like) else x


def _is_key(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)}"


def _differences(saved: Mapping[str, str], given: Mapping[str, str]) -> list[str]:
    return [
        f"  {name}: {saved.get(name, 'absent')} there, {given.get(name, 'absent')} now"
        for name in {**saved, **given}
        if saved.get(name) != given.get(name)
    ]
