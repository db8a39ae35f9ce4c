"""When what happens in a training run."""

from typing import NamedTuple

from mmvae_jax.checks import check_count


class Schedule(NamedTuple):
    """A run's calls, looks, evaluations and checkpoints; every number counts steps.

    Attributes:
      num_steps: of the whole run.
      steps_per_call: in one call on the device.
      log_every: between two looks at the metrics, each of which waits for the device.
      eval_every: between evaluations; None for none.
      save_every: between checkpoints; None for none.
    """

    num_steps: int
    steps_per_call: int
    log_every: int
    eval_every: int | None
    save_every: int | None

    def call_size(self, step: int) -> int:
        """Steps of the call that comes after so many."""
        size = self.steps_per_call
        return size if step % size == 0 and step + size <= self.num_steps else 1

    def is_due(self, step: int, every: int | None) -> bool:
        """Whether what happens so often happens after so many steps; the last is one for all."""
        return every is not None and (step % every == 0 or step == self.num_steps)

    def check(self) -> None:
        """Look for what cannot be.

        Raises:
          ValueError: for a number that is not a count, or that no call ends with.
        """
        for field, value in self._asdict().items():
            if value is None:
                continue
            check_count(field, value)
            is_between = value % self.steps_per_call and value != self.num_steps
            if field.endswith("_every") and is_between:
                raise ValueError(
                    f"{field} is {value}, which ends inside a call of steps_per_call="
                    f"{self.steps_per_call}: choose a multiple of it"
                )
