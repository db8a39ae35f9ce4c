"""What a training loop looks at: whether numbers are finite, and whether they still improve."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.objective import metric_names
from mmvae_jax.training.steps import TrainState

#: With these finite, the parameters after the step are finite as well.
WATCHED = ("loss", "grad_norm")


class NonFiniteError(FloatingPointError):
    """A metric of a step is NaN or infinite.

    Attributes:
      step: the first such step.
      metric: its name.
    """

    def __init__(self, message: str, step: int, metric: str):
        super().__init__(message)
        self.step = step
        self.metric = metric


class Watch:
    """Gathers the metrics of steps on the device, and looks at them when asked to.

    Args:
      directory: of the run's checkpoints, if there are any.
      steps: that are saved there.
    """

    def __init__(self, directory: Path | None, steps: Sequence[int]):
        self.directory = directory
        self.saved = steps[-1] if steps else None
        self._pending: list[tuple[int, dict[str, Array]]] = []
        self._last: Mapping[str, Array] = {}

    def add(self, step: int, size: int, metrics: Mapping[str, Array]) -> None:
        """Note the metrics of the ``size`` steps up to this one, ``[size]`` each if several."""
        self._last = metrics
        first = step - size + 1
        self._pending.append((first, {name: metrics[name] for name in WATCHED}))

    def look(self, state: TrainState) -> dict[str, float]:
        """The metrics of the last step, once all steps since the last look are found to be finite.

        Raises:
          NonFiniteError: if one is not, unless the optimizer left its update out.
        """
        pending, last = jax.device_get((self._pending, self._last))
        self._pending = []
        for first, metrics in pending:
            for name in WATCHED:
                for offset, value in enumerate(np.atleast_1d(metrics[name])):
                    if not math.isfinite(value) and not _was_left_out(state):
                        raise self._error(first + offset, name, float(value))
        return {name: float(np.atleast_1d(value)[-1]) for name, value in last.items()}

    def _error(self, step: int, metric: str, value: float) -> NonFiniteError:
        where = "nothing is saved"
        if self.saved is not None:
            where = f"the last good checkpoint is step {self.saved} in {self.directory}"
        return NonFiniteError(
            f"{metric} is {value} at step {step}; {where}. Lower the learning rate, clip "
            "gradients (make_optimizer(clip_norm=...)) or leave such updates out (max_skips=...)",
            step,
            metric,
        )


def _was_left_out(state: TrainState) -> bool:
    """Whether the optimizer leaves out updates that are not finite, and has done so always."""
    if not optax.tree.get_all_with_path(state.opt_state, "total_notfinite"):
        return False
    return all(bool(jax.numpy.isfinite(p).all()) for p in jax.tree.leaves(state.params))


class Judge(NamedTuple):
    """The best evaluation so far.

    Attributes:
      metric: that is compared.
      maximise: whether larger is better.
      best_step: of the best value; None before the first.
      best_value: its value.
      num_worse: evaluations since then.
    """

    metric: str
    maximise: bool
    best_step: int | None = None
    best_value: float | None = None
    num_worse: int = 0

    def check(self, config: MMVAEConfig) -> None:
        """Raise ValueError for a metric that no evaluation of such a model has."""
        names = [f"eval/{name}" for name in metric_names(config)]
        if self.metric not in names:
            raise ValueError(f"best is {self.metric!r}: choose one of {names}")

    def restored(self, saved: Mapping[str, Any]) -> "Judge":
        """What an earlier part of the run knew.

        Raises:
          ValueError: if it compared something else.
        """
        for field, name in (("metric", "best"), ("maximise", "maximise")):
            if saved[field] != getattr(self, field):
                raise ValueError(
                    f"{name} is {getattr(self, field)!r}, but the run has compared evaluations by "
                    f"{saved[field]!r}: go on with that"
                )
        return self._replace(**saved)

    def after(self, step: int, metrics: Mapping[str, float]) -> tuple["Judge", bool]:
        """The judge after one more evaluation, and whether that was the best."""
        value = metrics[self.metric]
        best = self.best_value
        is_better = best is None or (value > best if self.maximise else value < best)
        is_better &= not math.isnan(value)
        if is_better:
            return self._replace(best_step=step, best_value=value, num_worse=0), True
        return self._replace(num_worse=self.num_worse + 1), False

    def is_tired(self, patience: int | None) -> bool:
        """Whether so many evaluations have passed without a better one."""
        return patience is not None and self.num_worse >= patience
