"""Step counts at which a run logs, evaluates and saves."""

from typing import NamedTuple

from mmvae_jax.checks import check_count


class Due(NamedTuple):
    """The actions that are due after a step.

    Attributes:
      log: check and log the metrics of the step.
      evaluate: evaluate.
      save: save a checkpoint.
    """

    log: bool
    evaluate: bool
    save: bool


class Schedule(NamedTuple):
    """The steps of a run and of its actions.

    Attributes:
      num_steps: number of steps of the whole run.
      steps_per_call: number of steps in one call on the device.
      log_every: number of steps between logs; a log waits for the device.
      eval_every: number of steps between evaluations; None for none.
      save_every: number of steps between checkpoints; None for none.
    """

    num_steps: int
    steps_per_call: int
    log_every: int
    eval_every: int | None
    save_every: int | None

    def call_size(self, step: int) -> int:
        """Returns the number of steps of the call that follows this step."""
        size = self.steps_per_call
        return size if step % size == 0 and step + size <= self.num_steps else 1

    def due(self, step: int) -> Due:
        """Returns the actions that are due after this step; all of them after the last."""
        every = (self.log_every, self.eval_every, self.save_every)
        is_last = step == self.num_steps
        return Due(*(n is not None and (step % n == 0 or is_last) for n in every))

    def checked(self) -> "Schedule":
        """Returns the schedule in plain integers; calls must end where an action is due.

        Raises:
          ValueError: naming the field, its value and the fix.
        """
        counts = self._asdict()
        for field, value in counts.items():
            if value is None:
                continue
            counts[field] = check_count(field, value)
            is_between = value % self.steps_per_call and value != self.num_steps
            if field.endswith("_every") and is_between:
                raise ValueError(
                    f"{field} is {value}, which ends inside a call of steps_per_call="
                    f"{self.steps_per_call}: choose a multiple of it"
                )
        return Schedule(**counts)
