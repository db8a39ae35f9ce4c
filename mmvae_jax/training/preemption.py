"""Handling of SIGTERM, of Ctrl-C and of lost processes."""

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


class StopFlag:
    """A context in which SIGTERM, or the first Ctrl-C, sets a flag instead of ending the process.

    A second Ctrl-C ends the run at once. With several processes JAX's coordinator receives SIGTERM,
    so that all agree on the last step. Only the main thread can handle signals; in other threads
    the context does nothing.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, Any] = {}
        is_main = threading.current_thread() is threading.main_thread()
        self._handles = is_main and jax.process_count() == 1

    def is_set(self, step: int) -> bool:
        """Returns True if the run should end after this step; the same on all processes."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._received is not None

    def end_of_run(self, step: int, saved_in: Any) -> BaseException:
        """Returns the exception that ends a run after the flag was set."""
        end = Preempted(step, saved_in)
        if self._received == signal.SIGINT:
            return KeyboardInterrupt(str(end).replace("preempted by SIGTERM", "interrupted"))
        return end

    def __enter__(self) -> "StopFlag":
        if self._handles:
            self._handle(signal.SIGTERM)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                self._handle(signal.SIGINT)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number in list(self._previous):
            self._restore(number)

    def _handle(self, number: int) -> None:
        self._previous[number] = signal.signal(number, self._receive)

    def _restore(self, number: int) -> None:
        signal.signal(number, self._previous.pop(number))

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        if number == signal.SIGINT:
            self._restore(number)
