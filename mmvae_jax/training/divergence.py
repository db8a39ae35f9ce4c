"""Warnings of a training run that diverges, with the cause and the remedy."""

import math
import warnings

from mmvae_jax.maths.losses import LOSSES

#: Estimators whose gradient contains d(log q)/dz, which is of order 1 / scale.
NOISY = ("stl", "dreg", "mixture_dreg")
#: Scale of a posterior below which the noise of these estimators rules. The noise of a location's
#: gradient is then more than 1000 times the largest gradient that the prior exerts on it.
NARROW = 1e-3
#: Number of first steps in which the loss of any run may rise and fall.
EARLY = 50


class DivergenceWarning(RuntimeWarning):
    """A warning that training has diverged, or is about to."""


class Divergence:
    """The course of the loss, which warns once of each sign of divergence.

    Args:
      loss: the config's loss.
    """

    def __init__(self, loss: str):
        self.loss = loss
        self._first: float | None = None
        self._best = math.inf
        self._has_warned = {"scale": False, "loss": False}

    def check(self, step: int, mean_loss: float, min_scale: float) -> None:
        """Warns if posteriors are narrow under a noisy estimator, or the loss has got much worse.

        Much worse means worse than the first mean by all that it has ever improved, and by half of
        its size at least, after the first ``EARLY`` steps.

        Args:
          step: step of the training.
          mean_loss: mean of the losses since the last check.
          min_scale: smallest scale of a posterior at this step.
        """
        if not math.isfinite(mean_loss):
            return  # an error of its own, or an update that the optimizer skips
        bound, estimator = LOSSES[self.loss]
        if estimator in NOISY and 0 < min_scale < NARROW:
            self._warn(
                "scale",
                f"min_scale is {min_scale:.2g} at step {step}: the gradient of loss={self.loss!r} "
                f"has noise of order 1 / scale, and such a run can diverge. {_remedy(bound)}",
            )
        if self._first is None:
            self._first = mean_loss
        self._best = min(self._best, mean_loss)
        limit = self._first + max(self._first - self._best, abs(self._first) / 2)
        if step > EARLY and mean_loss > limit:
            self._warn(
                "loss",
                f"the mean loss is {mean_loss:.4g} at step {step}, after {self._best:.4g} at best: "
                f"training diverges. {_remedy(bound) if estimator in NOISY else _LESS}",
            )

    def _warn(self, sign: str, message: str) -> None:
        if not self._has_warned[sign]:
            self._has_warned[sign] = True
            warnings.warn(message, DivergenceWarning, stacklevel=2)


_LESS = "Lower the learning rate, clip gradients (make_optimizer(clip_norm=...)), or scale the data"


def _remedy(bound: str) -> str:
    """Returns advice that names the losses of the same bound without this noise."""
    suffix = "_looser" if bound == "looser" else ""
    return (
        f"Use loss='adaptive_dreg{suffix}' or 'iwae{suffix}', scale the data, or raise "
        "config.min_scale"
    )
