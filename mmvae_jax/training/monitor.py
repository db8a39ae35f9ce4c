"""Metrics of training steps, checked for NaN, infinity and divergence before they are used."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import optax
from jaxtyping import Array

from mmvae_jax.training.divergence import Divergence
from mmvae_jax.training.train_state import TrainState

#: With these finite, the parameters after the step are finite as well.
CHECKED = ("loss", "grad_norm")


class NonFiniteError(FloatingPointError):
    """A metric of a training step, or of an evaluation, that is NaN or infinite.

    Attributes:
      step: the first such step.
      metric: name of the metric.
    """

    def __init__(self, message: str, step: int, metric: str):
        super().__init__(message)
        self.step = step
        self.metric = metric


class Monitor:
    """The metrics of steps, gathered on the device and checked on demand.

    Args:
      directory: directory of the run's checkpoints, if it has any.
      steps: steps that are saved there.
      loss: the config's loss.
    """

    def __init__(self, directory: Path | None, steps: Sequence[int], loss: str):
        self.directory = directory
        self.divergence = Divergence(loss)
        self.saved = steps[-1] if steps else None
        self._pending: list[tuple[int, dict[str, Array]]] = []
        self._last: Mapping[str, Array] = {}
        self._step = 0

    def add(self, step: int, size: int, metrics: Mapping[str, Array]) -> None:
        """Adds the metrics of the ``size`` steps up to this one, ``[size]`` each if several."""
        self._last, self._step = metrics, step
        first = step - size + 1
        self._pending.append((first, {name: metrics[name] for name in (*CHECKED, "min_scale")}))

    def check(self, state: TrainState) -> dict[str, float]:
        """Returns the metrics of the last step; waits for the device, and warns of divergence.

        Raises:
          NonFiniteError: if a step since the last check had a loss or gradient that is not finite,
            unless the optimizer skipped its update.
        """
        pending, last = jax.device_get((self._pending, self._last))
        self._pending = []
        for first, metrics in pending:
            for name in CHECKED:
                for offset, value in enumerate(np.atleast_1d(metrics[name])):
                    if not math.isfinite(value) and not _was_skipped(state):
                        raise self._error(first + offset, name, float(value))
        if pending and jax.process_index() == 0:
            losses, scales = (
                np.concatenate([np.atleast_1d(metrics[name]) for _, metrics in pending])
                for name in ("loss", "min_scale")
            )
            self.divergence.check(self._step, float(losses.mean()), float(scales.min()))
        return {name: float(np.atleast_1d(value)[-1]) for name, value in last.items()}

    def check_evaluation(
        self, step: int, metric: str, metrics: Mapping[str, float], state: TrainState
    ) -> None:
        """Checks the metric that evaluations are compared by.

        Raises:
          NonFiniteError: if it is NaN or infinite; the cause is named if it lies in training.
        """
        if not math.isfinite(metrics[metric]):
            self.check(state)
            raise NonFiniteError(
                f"{metric} is {metrics[metric]} at step {step}, after finite training steps: look "
                "for NaN and extreme values in the evaluation data",
                step,
                metric,
            )

    def _error(self, step: int, metric: str, value: float) -> NonFiniteError:
        where = "nothing is saved"
        if self.saved is not None:
            where = f"the last good checkpoint is step {self.saved} in {self.directory}"
        return NonFiniteError(
            f"{metric} is {value} at step {step}; {where}. Lower the learning rate, clip "
            "gradients (make_optimizer(clip_norm=...)) or skip such updates (max_skips=...)",
            step,
            metric,
        )


def _was_skipped(state: TrainState) -> bool:
    """Returns True if the optimizer skips updates that are not finite, and has done so always."""
    if not optax.tree.get_all_with_path(state.opt_state, "total_notfinite"):
        return False
    return all(bool(jax.numpy.isfinite(p).all()) for p in jax.tree.leaves(state.params))
