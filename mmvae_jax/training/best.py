"""The best evaluation of a training run so far."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmvae_jax.config import MMVAEConfig
from mmvae_jax.objective import metric_names


class Best(NamedTuple):
    """The best evaluation so far, and the number of evaluations since.

    Attributes:
      metric: name of the metric that is compared.
      maximise: True if larger values are better.
      best_step: step of the best value; None before the first.
      best_value: best value; None before the first.
      num_worse: number of evaluations since then.
    """

    metric: str
    maximise: bool
    best_step: int | None = None
    best_value: float | None = None
    num_worse: int = 0

    def check(self, config: MMVAEConfig) -> None:
        """Raises ValueError for a metric that no evaluation of such a model has."""
        names = [f"eval/{name}" for name in metric_names(config)]
        if self.metric not in names:
            raise ValueError(f"best is {self.metric!r}: choose one of {names}")

    def restored(self, saved: Mapping[str, Any]) -> "Best":
        """Returns the best evaluation that a checkpoint recorded.

        Raises:
          ValueError: if the run compared evaluations in another way.
        """
        for field, name in (("metric", "best"), ("maximise", "maximise")):
            if saved[field] != getattr(self, field):
                raise ValueError(
                    f"{name} is {getattr(self, field)!r}, but the run has compared evaluations by "
                    f"{saved[field]!r}: give that again"
                )
        return self._replace(**saved)

    def after(self, step: int, metrics: Mapping[str, float]) -> tuple["Best", bool]:
        """Returns the best after one more evaluation, and True if it was this one.

        NaN is never the best.
        """
        value, best = metrics[self.metric], self.best_value
        is_better = best is None or (value > best if self.maximise else value < best)
        if is_better and not math.isnan(value):
            return self._replace(best_step=step, best_value=value, num_worse=0), True
        return self._replace(num_worse=self.num_worse + 1), False

    def has_run_out(self, patience: int | None) -> bool:
        """Returns True after ``patience`` evaluations without a better one."""
        return patience is not None and self.num_worse >= patience
