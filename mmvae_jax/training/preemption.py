"""Handling of SIGTERM and of lost processes."""

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
    """A run that SIGTERM has stopped, after it saved all that it takes to resume.

    If not caught, it ends the process with exit code 75.

    Attributes:
      step: last step of the run, which is saved if anything is.
      saved_in: directory of the checkpoints; None if nothing is saved.
    """

    def __init__(self, step: int, saved_in: Any = None):
        super().__init__(EXIT_CODE)
        self.step = step
        self.saved_in = saved_in

    def __str__(self) -> str:
        place = "nothing was saved" if self.saved_in is None else f"saved in {self.saved_in}"
        return f"preempted by SIGTERM at step {self.step}, {place}"


class LostProcessError(RuntimeError):
    """An error of the device that is probably caused by the loss of another process."""


@contextlib.contextmanager
def lost_processes_named(directory: Any) -> Iterator[None]:
    """Turns errors of the device into ``LostProcessError`` if there are several processes.

    Raises:
      LostProcessError: from the error of the device.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        place = "" if directory is None else f" from the checkpoints in {directory}"
        first = str(error).splitlines()[0]
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()} cannot continue, probably "
            f"because another one has ended ({first}): end the remaining processes, and start all "
            f"of them again with resume=True to resume{place}"
        ) from error


class SigtermFlag:
    """A context in which SIGTERM sets a flag instead of ending the process.

    With several processes JAX's coordinator receives it, so that all agree on the last step. Only
    the main thread can handle signals; in other threads the context does nothing.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._previous: Any = None
        is_main = threading.current_thread() is threading.main_thread()
        self._handles = is_main and jax.process_count() == 1

    def is_set(self, step: int) -> bool:
        """Returns True if the run should end after this step; the same on all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._is_set

    def __enter__(self) -> "SigtermFlag":
        if self._handles:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._handles:
            signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._is_set = True
