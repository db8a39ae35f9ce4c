"""Machines that are about to be taken away, as SIGTERM says, or that are gone."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

#: EX_TEMPFAIL of sysexits.h: try again later.
EXIT_CODE = 75


class Preempted(SystemExit):
    """The run was asked to end, and has saved all that it takes to go on.

    Left uncaught it ends the process with exit code 75.

    Attributes:
      step: that was saved, or reached where nothing is saved.
    """

    def __init__(self, step: int, saved_in: Any = None):
        super().__init__(EXIT_CODE)
        self.step = step
        self.saved_in = saved_in

    def __str__(self) -> str:
        place = "nothing was saved" if self.saved_in is None else f"saved in {self.saved_in}"
        return f"preempted by SIGTERM at step {self.step}, {place}"


class LostProcessError(RuntimeError):
    """A step failed on this process as it does when another process of the run is gone."""


@contextlib.contextmanager
def lost_processes_named(directory: Any) -> Iterator[None]:
    """With several processes, says of errors of the device what they probably mean.

    Raises:
      LostProcessError: from the error.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        place = "" if directory is None else f" from the checkpoints in {directory}"
        first = str(error).splitlines()[0]
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()} cannot go on, probably "
            f"because another one has ended ({first}): end those that are left, and start all of "
            f"them again with resume=True, to go on{place}"
        ) from error


class SigtermFlag:
    """Within the block SIGTERM is noted in place of ending the process.

    With several processes JAX's coordinator notes it, so that all agree on the step to end with.
    Outside the main thread, which alone may handle signals, nothing changes.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._previous: Any = None
        is_main = threading.current_thread() is threading.main_thread()
        self._handles = is_main and jax.process_count() == 1

    def is_set(self, step: int) -> bool:
        """Whether to end after this step; with several processes the same answer on all."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._is_set

    def __enter__(self) -> "SigtermFlag":
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._is_set = True
